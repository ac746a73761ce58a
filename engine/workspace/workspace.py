"""Text files of the workspace directory, found and read without ever leaving it."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from engine.errors import InvalidInputError, PathNotAllowedError
from engine.records import SkippedFile
from engine.workspace.confined_file import UnreadableFileError, read_text
from engine.workspace.documents import DOCUMENT_SUFFIXES, Documents
from engine.workspace.markup.sections import MARKDOWN_SUFFIXES, RST_SUFFIXES, TEXT_SUFFIXES

logger = logging.getLogger(__name__)

READABLE_SUFFIXES = MARKDOWN_SUFFIXES | RST_SUFFIXES | TEXT_SUFFIXES | DOCUMENT_SUFFIXES
DEFAULT_MAX_FILE_BYTES = 20 * 1024 * 1024

_INSTALLED_DIRS = frozenset({"node_modules", "__pycache__", "site-packages"})
_VENV_MARK = "pyvenv.cfg"
_PASSED_OVER = "read only when it is named"
_WILDCARD = re.compile(r"[*?\[]")
_MAX_SKIPPED_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceRead:
    """What was read; both lists in order of path, no path twice."""

    files: list[tuple[str, str]]
    """Posix path relative to the workspace, symlinks resolved, and the text."""
    skipped: list[SkippedFile]


class Workspace:
    """The directory that `/index/build` may read."""

    def __init__(
        self,
        root: Path,
        *,
        max_file_bytes: int = DEFAULT_MAX_FILE_BYTES,
        passed_over: frozenset[str] = frozenset(),
    ) -> None:
        self._root = root.resolve()
        self._passed_over = frozenset(self._root / name for name in passed_over)
        self._max_file_bytes = max_file_bytes

    def read(self, sources: Sequence[str] | None) -> WorkspaceRead:
        """Read files, directories (recursively) and globs; None reads all of the workspace.

        Below a directory, hidden and installed directories (`.git`, `node_modules`, virtual
        environments), symlinked directories, `passed_over` and whatever leads outside are skipped;
        what a source names itself is read. A glob matches files; one that ends in `/` matches
        directories.

        Args:
            sources: relative to the workspace, or absolute and inside it.

        Raises:
            PathNotAllowedError: a source leads outside, also by a symlink; nothing was read.
            InvalidInputError: a source does not exist, or there is nothing to read.
        """
        if not self._root.is_dir():
            raise InvalidInputError(f"The workspace directory '{self._root}' does not exist")
        found = _Found(root=self._root, passed_over=self._passed_over)
        named = ["."] if sources is None else sources
        # All sources are judged before anything is listed or read.
        for source, path, pattern in [self._resolve(s) for s in named]:
            _find(source, path, pattern, found)
        files = self._read_files(found)
        skipped = [SkippedFile(path=p, reason=r) for p, r in sorted(found.skipped.items())]
        logger.info("workspace read", extra={"n_files": len(files), "n_skipped": len(skipped)})
        if not files:
            raise InvalidInputError(_nothing_readable(named, skipped))
        return WorkspaceRead(files=files, skipped=skipped)

    def _resolve(self, source: str) -> tuple[str, Path, str]:
        """A source, the real path it names, and the glob below that path, which may be empty."""
        if not source.strip() or "\0" in source:
            raise InvalidInputError(f"{source!r} is not a path")
        path, pattern = self._root / source, ""
        if _WILDCARD.search(source) and not os.path.lexists(path):
            path, pattern = _split_glob(path, ends_in_slash=source.endswith("/"))
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(self._root):
            raise PathNotAllowedError(source)
        return source, real, pattern

    def _read_files(self, found: _Found) -> list[tuple[str, str]]:
        root_fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            paths = sorted(found.files)
            with Documents() as documents:
                read = [(p, self._read_or_skip(root_fd, p, documents, found)) for p in paths]
        finally:
            os.close(root_fd)
        return [(path, text) for path, text in read if text is not None]

    def _read_or_skip(
        self, root_fd: int, path: str, documents: Documents, found: _Found
    ) -> str | None:
        try:
            return read_text(root_fd, path, documents, max_bytes=self._max_file_bytes)
        except UnreadableFileError as exc:
            found.skip(self._root / path, str(exc))
            return None


@dataclass(slots=True, kw_only=True)
class _Found:
    """Files to read and files skipped so far, by path relative to the root."""

    root: Path
    passed_over: frozenset[Path]
    files: set[str] = field(default_factory=set)
    skipped: dict[str, str] = field(default_factory=dict)

    def skip(self, path: Path, reason: str | None) -> None:
        # A name that is no UTF-8 must not reach JSON as lone surrogates.
        name = os.fsencode(path.relative_to(self.root).as_posix()).decode("utf-8", "replace")
        self.skipped[name] = reason or "cannot be read"

    def add(self, path: Path) -> None:
        """Take a file under its real path, or note why not."""
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(self.root):
            return self.skip(path, "symlink out of the workspace")
        try:
            is_regular = stat.S_ISREG(real.lstat().st_mode)
        except OSError as exc:
            return self.skip(path, exc.strerror)
        relative = real.relative_to(self.root).as_posix()
        if not is_regular:
            self.skip(path, "not a regular file")
        elif real.suffix.lower() not in READABLE_SUFFIXES:
            self.skip(path, f"unsupported type {real.suffix or '(no suffix)'}")
        elif not _is_utf8(relative):
            self.skip(path, "the name is not UTF-8")
        else:
            self.files.add(relative)
        return None

    def walk(self, top: Path) -> Iterator[Path]:
        """Every file below `top` that is not in a skipped directory."""
        for directory, dirs, names in os.walk(top, onerror=self._skip_unlistable):
            path = Path(directory)
            dirs[:] = sorted(name for name in dirs if self._enters(path / name))
            for file in (path / name for name in sorted(names)):
                if file in self.passed_over:
                    self.skip(file, _PASSED_OVER)
                else:
                    yield file

    def _skip_unlistable(self, error: OSError) -> None:
        self.skip(Path(error.filename), error.strerror)

    def _enters(self, directory: Path) -> bool:
        if directory.is_symlink():
            inside = Path(os.path.realpath(directory)).is_relative_to(self.root)
            # One that leads inside is read where it really is: no loops, nothing twice.
            reason = "symlinked directory" if inside else "symlink out of the workspace"
        elif directory in self.passed_over:
            reason = _PASSED_OVER
        elif directory.name.startswith("."):
            reason = "hidden directory"
        elif directory.name in _INSTALLED_DIRS or os.path.lexists(directory / _VENV_MARK):
            reason = "installed files"
        else:
            return True
        self.skip(directory, reason)
        return False


def _find(source: str, path: Path, pattern: str, found: _Found) -> None:
    try:
        is_dir = stat.S_ISDIR(path.lstat().st_mode)
    except OSError as exc:
        raise InvalidInputError(f"'{source}' cannot be read: {exc.strerror}") from exc
    if not is_dir and not pattern:
        return found.add(path)
    runs = _runs(pattern)
    matching = [
        file
        for file in found.walk(path)
        if not pattern or _matches(file.relative_to(path).parts, runs)
    ]
    for file in matching:
        found.add(file)
    if pattern and not matching:
        found.skipped[source] = "matches no file"
    return None


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _split_glob(path: Path, *, ends_in_slash: bool) -> tuple[Path, str]:
    """The directory above the first wildcard, and the pattern below it."""
    first = next(n for n, part in enumerate(path.parts) if _WILDCARD.search(part))
    below = (*path.parts[first:], "**") if ends_in_slash else path.parts[first:]
    return Path(*path.parts[:first]), "/".join(below)


def _runs(pattern: str) -> list[list[str]]:
    """The components of a glob between its `**`."""
    runs: list[list[str]] = [[]]
    for part in pattern.split("/"):
        if part == "**":
            runs.append([])
        else:
            runs[-1].append(part)
    return runs


def _matches(parts: Sequence[str], runs: Sequence[Sequence[str]]) -> bool:
    """Whether a path matches a glob; `**` stands for any directories, or at the end for all.

    A run is taken where it first fits, since any directories may follow it: no second way needs
    to be tried, and a glob takes no longer than its runs times the path.
    """
    first, *others = runs
    if not _fits(parts, 0, first):
        return False
    if not others:
        return len(parts) == len(first)
    *middle, last = others
    at = len(first)
    for run in middle:
        while not _fits(parts, at, run):
            at += 1
            if at + len(run) > len(parts):
                return False
        at += len(run)
    if not last:
        return at < len(parts)
    end = len(parts) - len(last)
    return at <= end and _fits(parts, end, last)


def _fits(parts: Sequence[str], at: int, run: Sequence[str]) -> bool:
    """Whether a path has components that match a run at this place."""
    found = parts[at : at + len(run)]
    return len(found) == len(run) and all(map(fnmatchcase, found, run))


def _nothing_readable(sources: Sequence[str], skipped: Sequence[SkippedFile]) -> str:
    looked_in = ", ".join(f"'{s}'" for s in sources) or "an empty list of sources"
    reasons = [f"{s.path} ({s.reason})" for s in skipped[:_MAX_SKIPPED_NAMED]]
    if len(skipped) > len(reasons):
        reasons.append(f"and {len(skipped) - len(reasons)} more")
    looked_for = f"Nothing to read in {looked_in}: looked for {' '.join(sorted(READABLE_SUFFIXES))}"
    return f"{looked_for}; skipped {', '.join(reasons)}" if reasons else looked_for
