"""Every error the engine raises, one tree.

```
EngineError
├── InvalidInputError            the caller's fault; nothing was changed
│   └── PathNotAllowedError      a path outside the workspace
├── NotFoundError
│   ├── MemoryNotFoundError
│   ├── BackupNotFoundError
│   └── KeyNotFoundError
├── QuotaExceededError           more memories than the caller may have
├── OverloadedError              a bounded queue is full; try again
│   └── RateLimitedError         a key has written as often as it may
├── NotReadyError                starting, restoring or shutting down; try again
│   ├── ShuttingDownError        another process takes over
│   ├── DeadlinePassedError      a write came too late; it is not applied, now or later
│   └── LeaseLostError           what was held for the caller between two calls is gone
├── UnknownOutcomeError          no answer; the write may have been applied
│   └── TooLargeError            the answer is larger than one message may be
├── EmbeddingError
│   ├── ModelNotFoundError       the model files are missing or not the expected ones
│   └── ModelMismatchError       the store's vectors come from another model
├── RemoteError                  the bucket does not answer or refuses
│   ├── RemoteDamagedError       a snapshot there is incomplete or damaged
│   ├── RemoteSealedError        it is encrypted with another passphrase, or with none
│   └── RemoteConflictError      another machine has written a newer state there
└── StorageError
    ├── StoreLockedError         another process owns the data directory
    ├── StoreCorruptError        what is on disk cannot be trusted
    ├── RottenRowError           a row is not as it was written; the rest can be read
    ├── StoreFormatError         written by a newer release, or not ours
    ├── UnavailableError         a file or directory cannot be used now; nothing was changed
    │   └── StoreMovedError      the database is no longer where it was opened
    ├── StoreFullError           no space left; nothing of the write was kept
    ├── BackupError              a backup could not be made or is broken
    └── LegacyImportError        an original data directory that cannot be taken over
```

They cross process borders by pickle, so each takes positional arguments, hands them to
`Exception.__init__`, keeps them as attributes, and builds its sentence in `__str__`.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from engine.commands import script_command


class EngineError(Exception):
    """Base of every engine error. `code` is stable and machine-readable."""

    code: ClassVar[str] = "engine_error"

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message or self.code


class InvalidInputError(EngineError):
    """The request cannot be carried out as given."""

    code = "invalid_input"


class PathNotAllowedError(InvalidInputError):
    """A path leads outside the workspace directory, after symlinks."""

    code = "path_not_allowed"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"'{self.path}' is outside the workspace directory"


class NotFoundError(EngineError):
    """What the caller named does not exist."""

    code = "not_found"


class MemoryNotFoundError(NotFoundError):
    """No memory has this id."""

    code = "memory_not_found"

    def __init__(self, memory_id: int) -> None:
        Exception.__init__(self, memory_id)
        self.memory_id = memory_id

    def __str__(self) -> str:
        return f"Memory ID {self.memory_id} not found"


class BackupNotFoundError(NotFoundError):
    """No backup has this name."""

    code = "backup_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"Backup '{self.name}' not found"


class KeyNotFoundError(NotFoundError):
    """No key has this id."""

    code = "key_not_found"

    def __init__(self, key_id: str) -> None:
        super().__init__(key_id)
        self.key_id = key_id

    def __str__(self) -> str:
        return f"Key '{self.key_id}' not found"


class KeyWithdrawnError(EngineError):
    """A key no longer allows what it allowed when a request with it began."""

    code = "key_withdrawn"


class QuotaExceededError(EngineError):
    """There would be more memories than the caller may have. Nothing of the write was applied."""

    code = "quota_exceeded"

    def __init__(self, used: int, limit: int) -> None:
        Exception.__init__(self, used, limit)
        self.used = used
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.used} of {self.limit} memories are used, and this would be more"


class OverloadedError(EngineError):
    """A bounded queue is full. Nothing of the request was applied."""

    code = "overloaded"


class RateLimitedError(OverloadedError):
    """A key has written as often within a minute as it may. Nothing was applied."""

    code = "rate_limited"

    def __init__(self, writes_per_minute: int, retry_after_s: float) -> None:
        Exception.__init__(self, writes_per_minute, retry_after_s)
        self.writes_per_minute = writes_per_minute
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"this key may write {self.writes_per_minute} times a minute"


class NotReadyError(EngineError):
    """The part that would answer is starting, restoring or shutting down."""

    code = "not_ready"


class ShuttingDownError(NotReadyError):
    """The index is closing; its successor may answer."""

    code = "shutting_down"


class DeadlinePassedError(NotReadyError):
    """The caller no longer waits for the write. Nothing of it was applied, or will be."""

    code = "deadline_passed"


class LeaseLostError(NotReadyError):
    """What was held for the caller between two of its calls is gone, and what it sent with it."""

    code = "lease_lost"


class UnknownOutcomeError(EngineError):
    """A write was handed on, and no answer came: it may have been applied."""

    code = "unknown_outcome"


class TooLargeError(UnknownOutcomeError):
    """What was asked, or its answer, is larger than parts of the service hand on."""

    code = "too_large"


class EmbeddingError(EngineError):
    """A text could not be embedded."""

    code = "embedding_failed"


class ModelNotFoundError(EmbeddingError):
    """The model files are missing, or their hashes are not the expected ones."""

    code = "model_not_found"


class ModelMismatchError(EmbeddingError):
    """The store's vectors were made by another model or another precision of it."""

    code = "model_mismatch"


class RemoteError(EngineError):
    """The bucket does not answer, or refuses. What was to be there may not be."""

    code = "remote_error"


class RemoteDamagedError(RemoteError):
    """A snapshot in the bucket is incomplete or damaged."""

    code = "remote_damaged"


class RemoteSealedError(RemoteError):
    """A snapshot is encrypted with another passphrase, or not at all."""

    code = "remote_sealed"


class RemoteConflictError(RemoteError):
    """Another machine has written a newer state, which this store does not descend from."""

    code = "remote_conflict"


class StorageError(EngineError):
    """The data directory cannot serve the request."""

    code = "storage_error"


class StoreLockedError(StorageError):
    """Another process owns the data directory."""

    code = "store_locked"


_DATABASE_NAME = "memories.db"


def _doctor(database: str) -> str:
    """What looks at the data directory of a database, where that is known."""
    path = Path(database)
    is_known = path.is_absolute() and path.name == _DATABASE_NAME
    return script_command("store doctor", path.parent if is_known else "")


class StoreCorruptError(StorageError):
    """What is on disk failed a check."""

    code = "store_corrupt"

    def __init__(self, path: str, reason: str, command: str = "") -> None:
        Exception.__init__(self, path, reason, command)
        self.path = path
        self.reason = reason
        self.command = command

    def __str__(self) -> str:
        return (
            f"{self.path} is damaged: {self.reason}. Stop the service and run: "
            f"{self.command or _doctor(self.path)}"
        )


class RottenRowError(StorageError):
    """A row of the database is not as it was written. The others can be read."""

    code = "rotten_row"

    def __init__(self, message: str, database: str = "") -> None:
        Exception.__init__(self, message, database)
        self.message = message
        self.database = database

    def __str__(self) -> str:
        return f"{self.message}; stop the service and run: {_doctor(self.database)}"


class StoreFormatError(StorageError):
    """The store was written by a newer release, or is not a store of ours."""

    code = "store_format"


class UnavailableError(StorageError):
    """A file or directory cannot be used as it is now. Nothing of the request was applied."""

    code = "storage_unavailable"


class StoreMovedError(UnavailableError):
    """The database, or its WAL, was removed or replaced while it is in use."""

    code = "store_moved"

    def __init__(self, path: str) -> None:
        Exception.__init__(self, path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"{self.path} was removed or replaced while the service runs, and nothing can be "
            f"stored: put it back, or stop the service and run: {_doctor(self.path)}"
        )


class StoreFullError(StorageError):
    """No space left on the device. Nothing of the write was kept."""

    code = "store_full"

    def __str__(self) -> str:
        return f"{self.message}; nothing was changed: free some space, then try again"


class BackupError(StorageError):
    """A backup could not be made, or one that exists is broken."""

    code = "backup_failed"


class LegacyImportError(StorageError):
    """A data directory of the original service cannot be taken over whole."""

    code = "legacy_import_failed"
