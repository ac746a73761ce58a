"""Reading a text file beneath a directory, whatever happens to the directory meanwhile."""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Sequence
from pathlib import PurePosixPath

from engine.workspace.documents import DOCUMENT_SUFFIXES, Documents, UnreadableDocumentError

_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, a FIFO swapped in after the check would hang the reader.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

EMPTY = "empty"
"""Why a file without text is skipped; a scan without a text layer is one."""


class UnreadableFileError(Exception):
    """Why a file is skipped; never leaves the engine."""


def read_text(root_fd: int, path: str, documents: Documents, *, max_bytes: int) -> str:
    """Read a UTF-8 file, with or without a byte order mark, a UTF-16 one with it, or a document.

    Args:
        root_fd: an open directory.
        path: posix path relative to it, without symlinks: one swapped in is not followed.
        documents: what reads those that are no text files.
        max_bytes: a larger file is refused.

    Raises:
        UnreadableFileError: with a reason for people.
    """
    try:
        fd = _open_beneath(root_fd, PurePosixPath(path).parts)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise UnreadableFileError("not a regular file")
            content = file.read(max_bytes + 1)
    except OSError as exc:
        raise UnreadableFileError(exc.strerror or "cannot be read") from exc
    if len(content) > max_bytes:
        raise UnreadableFileError(f"larger than {max_bytes} bytes")
    suffix = PurePosixPath(path).suffix.lower()
    return _said(documents, content, suffix) if suffix in DOCUMENT_SUFFIXES else _decode(content)


def _said(documents: Documents, content: bytes, suffix: str) -> str:
    try:
        text = documents.text(content, suffix)
    except UnreadableDocumentError as exc:
        raise UnreadableFileError(str(exc)) from exc
    if not text.strip():
        raise UnreadableFileError(EMPTY)
    return text


def _open_beneath(root_fd: int, parts: Sequence[str]) -> int:
    fd = os.dup(root_fd)
    for n, part in enumerate(parts, start=1):
        try:
            child = os.open(part, _OPEN_DIR if n < len(parts) else _OPEN_FILE, dir_fd=fd)
        finally:
            os.close(fd)
        fd = child
    return fd


def _decode(content: bytes) -> str:
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if not is_utf16 and b"\0" in content:
        raise UnreadableFileError("binary")
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as exc:
        encoding = "UTF-16" if is_utf16 else "UTF-8"
        raise UnreadableFileError(f"not {encoding} at byte {exc.start}") from exc
    if "\0" in text:
        raise UnreadableFileError("binary")
    if not text.strip():
        raise UnreadableFileError(EMPTY)
    return text
