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
    """Exclusive `flock` on `<data_dir>/lock` and on the directory, taken with a timeout.

    Of the two, people remove the file, taking it for one that was left behind.
    The kernel lets go of it when the holder dies, however it dies. During a rolling update the
    new replica waits here until the old one has closed.
    """

    def __init__(self, data_dir: Path, *, timeout_s: float) -> None:
        self._path = data_dir / "lock"
        try:
            make_directory(data_dir)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._directory_fd = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            raise StorageError(
                f"cannot use the data directory {data_dir}: {exc.strerror}; "
                "make it writable or set DATA_DIR to one that is"
            ) from exc
        try:
            self._acquire(timeout_s)
        except BaseException:
            self.release()
            raise
        with suppress(OSError):  # a full disk: only the name of the holder is missing then
            os.pwrite(self._fd, f"{os.getpid():<10}\n".encode(), 0)

    def _acquire(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._lock_directory()
                return
            except BlockingIOError as exc:
                if time.monotonic() >= deadline:
                    holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
                    raise StoreLockedError(
                        f"{self._path.parent} is in use by process {holder or 'unknown'}; "
                        "stop that service first, or set DATA_DIR to another directory"
                    ) from exc
            time.sleep(_POLL_S)

    def _lock_directory(self) -> None:
        try:
            fcntl.flock(self._directory_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass  # NFS locks only what is open for writing; the file will do

    def release(self) -> None:
        """Let go. Idempotent."""
        for fd in (self._directory_fd, self._fd):
            if fd >= 0:
                os.close(fd)
        self._directory_fd = self._fd = -1

    def __enter__(self) -> DataLock:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
