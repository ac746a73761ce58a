"""Following a directory: what changes there is read again, what is deleted is forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from watchfiles import watch
from watchfiles.main import FileChange

from scripts.cli.errors import RefusedError, UnreachableError
from scripts.cli.readers import TEXT_SUFFIXES
from scripts.cli.readers.inputs import find_inputs, is_entered
from scripts.cli.terminal import note
from wire.retries import PASSING_IN_TIME

_LOOK_AGAIN_MS = 1000
_STEP_MS = 500
"""Changes that follow each other within it are one: an editor's save, a `git pull`."""
_MAX_GATHERED_MS = 10_000
_POLL_MS = 2000
_RETRY_S = 2.0


class FileSync(Protocol):
    """Brings the memories of files up to date."""

    def start(self) -> None:
        """Find out what is stored, before the first `sync`."""

    def sync(self, present: Sequence[Path], gone: Sequence[Path]) -> None:
        """Read files that are there, and forget files or directories that are not."""


def follow(
    file_sync: FileSync,
    top: Path,
    *,
    once: bool = False,
    left_out: Path | None = None,
    suffixes: frozenset[str] = TEXT_SUFFIXES,
    tell: Callable[[str], None] = note,
) -> None:
    """Sync everything below `top`, then what changes there, until Ctrl-C.

    A service that goes away meanwhile is waited for; nothing that changed is forgotten.

    Args:
        file_sync: brings the memories up to date.
        top: a directory.
        once: sync what is there, and return.
        left_out: a directory below it that is not followed.
        suffixes: of the files that are.
        tell: gets sentences about how it goes.
    """
    if once:
        file_sync.start()
        file_sync.sync(_files(top, suffixes), [])
        return
    following = _Following(file_sync, top, suffixes, tell)
    try:
        # The watcher is at work before the first reading, so that no change falls between.
        for changes in _changes(top, left_out, tell):
            following.take(changes)
    except KeyboardInterrupt:
        return


class _Following:
    """What has changed and is not synced yet."""

    def __init__(
        self,
        file_sync: FileSync,
        top: Path,
        suffixes: frozenset[str],
        tell: Callable[[str], None],
    ) -> None:
        self._file_sync = file_sync
        self._top = top
        self._suffixes = suffixes
        self._tell = tell
        self._pending: set[Path] = set()
        self._has_started = self._is_waiting = False

    def take(self, changes: Iterable[FileChange]) -> None:
        """Sync changes, or keep them until the service is there again."""
        self._pending |= {Path(path) for _, path in changes}
        try:
            self._sync()
        except (UnreachableError, RefusedError) as exc:
            if not passes_in_time(exc):
                raise
            if not self._is_waiting:
                self._tell(f"{exc} Waiting for it.")
            self._is_waiting = True
            time.sleep(_RETRY_S)

    def _sync(self) -> None:
        if not self._has_started:
            self._file_sync.start()
            self._file_sync.sync(_files(self._top, self._suffixes), [])
            self._has_started = True
            self._tell(f"Watching {self._top}. Stop with Ctrl-C.")
        if self._pending:
            _sync(self._file_sync, self._pending, self._suffixes)
            self._pending.clear()
            self._is_waiting = False


def passes_in_time(error: UnreachableError | RefusedError) -> bool:
    """Whether the same request may succeed later."""
    return isinstance(error, UnreachableError) or error.status in PASSING_IN_TIME


def _changes(
    top: Path, left_out: Path | None, tell: Callable[[str], None]
) -> Iterator[set[FileChange]]:
    options: dict[str, Any] = {
        "watch_filter": lambda _, path: _is_meant(Path(path), top, left_out),
        "debounce": _MAX_GATHERED_MS,
        "step": _STEP_MS,
        "rust_timeout": _LOOK_AGAIN_MS,
        "yield_on_timeout": True,
        "raise_interrupt": False,
        "ignore_permission_denied": True,
    }
    try:
        yield from watch(top, **options)
    except FileNotFoundError:
        raise
    except OSError as exc:
        tell(f"The system does not tell of changes ({exc.strerror}): it is looked for them.")
        yield from watch(top, **options, force_polling=True, poll_delay_ms=_POLL_MS)


def _sync(file_sync: FileSync, changed: Iterable[Path], suffixes: frozenset[str]) -> None:
    present: set[Path] = set()
    gone = []
    for path in sorted(changed):
        if path.is_dir():
            present.update(_files(path, suffixes))
        elif not path.exists():
            gone.append(path)
        elif path.suffix.lower() in suffixes:
            present.add(path)
    if present or gone:
        file_sync.sync(sorted(present), gone)


def _files(top: Path, suffixes: frozenset[str]) -> list[Path]:
    return [file.path for file in find_inputs([str(top)], suffixes) if file.path is not None]


def _is_meant(path: Path, top: Path, left_out: Path | None) -> bool:
    if not path.is_relative_to(top) or (left_out and path.is_relative_to(left_out)):
        return False
    above = path.relative_to(top).parents
    return all(is_entered(top / directory) for directory in above if directory.name)
