"""One process owns a data directory: an advisory lock that dies with its holder."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from engine.disk.durable_files import make_directory
from engine.errors import StorageError, StoreLockedError

_POLL_S = 0.05


class DataLock:
    """Exclusive `flock` on `<data_dir>/lock`, taken with a timeout.

    The kernel lets go of it when the holder dies, however it dies. During a rolling update the
    new replica waits here until the old one has closed.
    """

    def __init__(self, data_dir: Path, *, timeout_s: float) -> None:
        self._path = data_dir / "lock"
        try:
            make_directory(data_dir)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise StorageError(
                f"cannot use the data directory {data_dir}: {exc.strerror}; "
                "make it writable or set DATA_DIR to one that is"
            ) from exc
        try:
            self._acquire(timeout_s)
        except BaseException:
            os.close(self._fd)
            raise
        with suppress(OSError):  # a full disk: only the name of the holder is missing then
            os.pwrite(self._fd, f"{os.getpid():<10}\n".encode(), 0)

    def _acquire(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as exc:
                if time.monotonic() >= deadline:
                    holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
                    raise StoreLockedError(
                        f"{self._path.parent} is in use by process {holder or 'unknown'}; "
                        "stop that service first, or set DATA_DIR to another directory"
                    ) from exc
            time.sleep(_POLL_S)

    def release(self) -> None:
        """Let go. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> DataLock:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
