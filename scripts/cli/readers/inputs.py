"""Which files a command line names, and reading them with a count of what was read."""

from __future__ import annotations

import codecs
import glob
import gzip
import io
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO, cast

from scripts.cli.errors import CliError, UsageError
from scripts.cli.readers.identity import owner, path_name, utf8

MAX_LINE_BYTES = 8 * 1024 * 1024
"""Of JSON Lines; a longer one is skipped, so that no file can fill the memory."""

_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_INSTALLED_DIRS = frozenset({"node_modules", "__pycache__", "site-packages"})
_VENV_MARK = "pyvenv.cfg"


class _Counted(io.RawIOBase):
    """A raw stream that tells how many bytes were read from it."""

    def __init__(self, raw: io.RawIOBase, file: InputFile) -> None:
        self._raw = raw
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int | None:  # type: ignore[override]
        n = self._raw.readinto(buffer)
        self._file.n_read += n or 0
        return n

    def close(self) -> None:
        if not self._file.is_stdin:
            self._raw.close()
        super().close()


class _Utf8(io.RawIOBase):
    """A stream of UTF-16 with a byte order mark, as UTF-8 without one."""

    def __init__(self, utf16: IO[bytes]) -> None:
        self._text = io.TextIOWrapper(utf16, "utf-16", "strict", newline="")
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        try:
            self._ready = self._ready or self._text.read(1 << 15).encode("utf-8", "replace")
        except UnicodeDecodeError as exc:
            raise OSError("not UTF-16, though its first bytes say so") from exc
        n = min(len(buffer), len(self._ready))
        buffer[:n], self._ready = self._ready[:n], self._ready[n:]
        return n

    def close(self) -> None:
        self._text.close()
        super().close()


@dataclass(slots=True, kw_only=True)
class InputFile:
    """A file to read; `-` is stdin."""

    path: Path | None
    """None is stdin."""
    root: Path | None = None
    """The directory that was named, or that a named file or the fixed part of a glob is in."""
    relative: str = "stdin"
    """Posix path below the root."""
    in_workspace: str | None = None
    """Posix path in the service's workspace, where the service reads it itself."""
    size: int = 0
    """Bytes; 0 when unknown."""
    n_read: int = 0
    """Bytes read so far."""
    _begun: IO[bytes] | None = field(default=None, repr=False)

    @property
    def is_stdin(self) -> bool:
        """Whether it is not a file at all."""
        return self.path is None

    @property
    def name(self) -> str:
        """For messages."""
        return "stdin" if self.path is None else str(self.path)

    @property
    def suffix(self) -> str:
        """The last one, in lower case, `.gz` and `.zst` not counted."""
        return Path(_unpacked(self.relative)).suffix

    def source(self, prefix: str | None) -> str:
        """What the file is called: see `identity`; `prefix` names its root."""
        if prefix is not None:
            return prefix + self.relative
        if self.path is None:
            return self.relative
        return self.in_workspace or path_name(self.path)

    def owner(self, prefix: str | None) -> str:
        """The key of the file's passages."""
        return owner(None if prefix is None else self.root)

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Its bytes, unpacked; UTF-16 comes as UTF-8.

        Raises:
            CliError: it cannot be read.
        """
        try:
            stream = self._stream()
            try:
                yield stream
            finally:
                if not self.is_stdin:
                    stream.close()
        except (OSError, EOFError) as exc:
            raise CliError(f"{self.name} cannot be read: {exc}") from exc

    def peek(self, n_bytes: int = 65536) -> bytes:
        """Its first bytes; they are read again afterwards."""
        with self.opened() as stream:
            return cast(io.BufferedReader, stream).peek(n_bytes)[:n_bytes]

    def _stream(self) -> IO[bytes]:
        if self._begun is not None:
            return self._begun
        self.n_read = 0
        raw = sys.stdin.buffer if self.path is None else self.path.open("rb", buffering=0)
        counted: io.RawIOBase = _Counted(cast(io.RawIOBase, raw), self)
        stream: IO[bytes] = io.BufferedReader(counted, buffer_size=1 << 16)
        if self.relative.lower().endswith(".gz"):
            stream = io.BufferedReader(
                cast(io.RawIOBase, gzip.GzipFile(fileobj=cast(BinaryIO, stream)))
            )
        elif self.relative.lower().endswith(".zst"):
            from zstandard import ZstdDecompressor

            unpacked = ZstdDecompressor().stream_reader(stream, read_across_frames=True)
            stream = io.BufferedReader(cast(io.RawIOBase, unpacked))
        if cast(io.BufferedReader, stream).peek(2)[:2] in _UTF16_MARKS:
            stream = io.BufferedReader(cast(io.RawIOBase, _Utf8(stream)))
        if self.is_stdin:
            self._begun = stream  # what was peeked at must not be lost
        return stream


def lines(stream: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Lines with their numbers from 1, blank ones left out; None for one that is too long."""
    number = 0
    while line := stream.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, None
        elif line.strip():
            yield number, line


def find_inputs(paths: Sequence[str], suffixes: frozenset[str]) -> list[InputFile]:
    """The files that paths name: files, directories (recursively), globs and `-`.

    Below a directory only files with one of `suffixes` or called so are taken, and hidden and
    installed directories (`.git`, `node_modules`, virtual environments) are left out.

    Raises:
        UsageError: a path names nothing.
    """
    found: dict[Path, InputFile] = {}
    stdin: list[InputFile] = []
    for path in paths:
        if path == "-":
            stdin = [InputFile(path=None)]
            continue
        root, expanded = _expanded(path)
        for one in expanded:
            for file in _below(one, suffixes) if one.is_dir() else [one]:
                found.setdefault(file.resolve(), _input(file, root))
    return [*found.values(), *stdin]


def _expanded(path: str) -> tuple[Path, list[Path]]:
    """What a path names, and the root of it."""
    literal = Path(path).expanduser()
    if literal.exists():
        return literal if literal.is_dir() else literal.parent, [literal]
    names = glob.glob(str(literal), recursive=True)  # noqa: PTH207 (Path.glob takes no absolute one)
    matching = [Path(name) for name in sorted(names)]
    if not matching:
        raise UsageError(f"{path} names no file or directory")
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), literal.parts)
    return Path(*fixed), matching


def _input(path: Path, root: Path) -> InputFile:
    relative = utf8(path.relative_to(root).as_posix())
    return InputFile(path=path, root=root, relative=relative, size=_size(path))


def _below(top: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    for directory, dirs, names in os.walk(top):
        here = Path(directory)
        dirs[:] = sorted(name for name in dirs if is_entered(here / name))
        for name in sorted(names):
            path, plain = here / name, _unpacked(name)
            if not suffixes.isdisjoint((plain, Path(plain).suffix)) and path.is_file():
                yield path


def _unpacked(name: str) -> str:
    return name.lower().removesuffix(".gz").removesuffix(".zst")


def is_entered(directory: Path) -> bool:
    """Whether files below a directory are meant when the one above it is named."""
    return not (
        directory.name.startswith(".")
        or directory.name in _INSTALLED_DIRS
        or directory.is_symlink()
        or os.path.lexists(directory / _VENV_MARK)
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
