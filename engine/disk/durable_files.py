"""Files that are either whole or absent, also after a power cut.

Written beside their place, fsynced, renamed into it, and the directory fsynced: the order of
litestream's file replica and of LevelDB. Every file the engine makes besides SQLite's own
passes through here, so that fault tests have one place to break.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from engine.errors import StoreFullError, UnavailableError

_READ_BYTES = 1 << 20
_PROBE_BYTES = 1 << 20


def file_id(path: Path) -> tuple[int, int] | None:
    """Device and inode of the file that is there now; None for none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def fsync_directory(directory: Path) -> None:
    """Make renames and new names in `directory` durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(directory: Path) -> None:
    """Make a directory that is its owner's alone, and its parents; they may exist. Durable."""
    if not directory.is_dir():
        make_directory(directory.parent)
        directory.mkdir(exist_ok=True, mode=0o700)
        fsync_directory(directory.parent)


def fsync_file(path: Path) -> None:
    """Make the content of an existing file durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_whole(path: Path, *, max_bytes: int) -> bytes:
    """The content of a file that somebody else may have put there.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger than `max_bytes`, or no regular file.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no regular file")
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"it is larger than {max_bytes} bytes")
    return content


def _open_without_waiting(path: str, flags: int) -> int:
    """Without O_NONBLOCK, a FIFO would hang the reader."""
    return os.open(path, flags | os.O_NONBLOCK)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes `path`'s place, whole and durable, when the block ends well.

    Raises:
        StoreFullError: no space left; `path` is as it was.
    """
    partial = path.with_name(path.name + ".partial")
    with translating_os_errors(path):
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            fsync_directory(path.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def translating_os_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about `path` into the engine's."""
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFullError(f"no space left on the device that holds {path.parent}") from exc
        raise UnavailableError(f"cannot write {path}: {exc.strerror or exc}") from exc


def check_writable(directory: Path) -> None:
    """Write and remove a file of `_PROBE_BYTES`. Raises `StoreFullError`, `UnavailableError`."""
    with (
        translating_os_errors(directory / "a file"),
        tempfile.NamedTemporaryFile(dir=directory, suffix=".partial") as probe,
    ):
        probe.write(bytes(_PROBE_BYTES))
        probe.flush()


def rename_directory(source: Path, target: Path) -> None:
    """Move a finished directory to its final name; `target` must not exist. Durable."""
    with translating_os_errors(target):
        fsync_directory(source)
        source.rename(target)
        fsync_directory(target.parent)


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def remove_directory(directory: Path) -> None:
    """Remove a directory and what it holds. One that is half removed is never listed again.

    The rename comes first: a crash half-way leaves a name that start-up sweeps.
    """
    removed = directory.with_name(directory.name + ".removing")
    with translating_os_errors(directory):
        directory.rename(removed)
        fsync_directory(directory.parent)
        shutil.rmtree(removed)


def sweep_leftovers(directory: Path) -> None:
    """Remove what a killed process left unfinished in `directory`."""
    for path in directory.iterdir():
        if not path.suffix.startswith((".partial", ".removing")):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
