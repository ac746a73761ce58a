"""Keeping memories in step with the text files of a directory.

Either the service reads the files (`Built`), or they are read here and sent (`Sent`).
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from watchfiles import watch

from scripts.cli.errors import CliError, RefusedError, UnreachableError
from scripts.cli.importing.sending import Sender, parts_of
from scripts.cli.importing.stored_passages import file_of, forget_rest
from scripts.cli.memory_commands import delete_all, pages
from scripts.cli.readers import TEXT_SUFFIXES
from scripts.cli.readers.identity import owner, path_name, utf8
from scripts.cli.readers.inputs import InputFile, find_inputs, is_entered
from scripts.cli.readers.records import Memory, Options, Unreadable
from scripts.cli.readers.text_files import read_text
from scripts.cli.service import WORTH_ANOTHER_TRY, Json, Service
from scripts.cli.terminal import counted, note, print_json, say

_NOTHING_BUILT: Json = {"files_processed": 1, "memories_added": 0, "unchanged": 0}
_CONTEXT = "passage_context"
"""In the metadata of a passage, what stands above it in its file."""
_FILES_AT_ONCE = 200
_LOOK_AGAIN_MS = 1000
_DEBOUNCE_MS = 400
_RETRY_S = 2.0
_PASSING = WORTH_ANOTHER_TRY | {507}
"""A full disk passes too, once somebody makes room; nobody waits for an answer meanwhile."""


class Keeper(Protocol):
    """Brings the memories of files up to date."""

    def start(self) -> None:
        """Find out what is stored, before the first `sync`."""

    def sync(self, present: Sequence[Path], gone: Sequence[Path]) -> None:
        """Read files that are there, and forget files or directories that are not."""


def follow(keeper: Keeper, top: Path, *, once: bool) -> None:
    """Sync everything below `top`, then what changes there, until Ctrl-C.

    A service that goes away meanwhile is waited for; nothing that changed is forgotten.
    """
    if once:
        keeper.start()
        keeper.sync(_text_files(top), [])
        return
    pending: set[Path] = set()
    started = told = False
    try:
        # The watcher is at work before the first reading, so that no change falls between.
        for changes in watch(
            top,
            watch_filter=lambda _, path: _is_meant(Path(path), top),
            debounce=_DEBOUNCE_MS,
            rust_timeout=_LOOK_AGAIN_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
        ):
            pending |= {Path(path) for _, path in changes}
            try:
                if not started:
                    keeper.start()
                    keeper.sync(_text_files(top), [])
                    started = True
                    note(f"Watching {top}. Stop with Ctrl-C.")
                if pending:
                    _sync(keeper, pending)
                    pending.clear()
                    told = False
            except (UnreachableError, RefusedError) as exc:
                if isinstance(exc, RefusedError) and exc.status not in _PASSING:
                    raise
                if not told:
                    note(f"{exc} Waiting for it.")
                told = True
                time.sleep(_RETRY_S)
    except KeyboardInterrupt:
        return


def _sync(keeper: Keeper, changed: Iterable[Path]) -> None:
    present: set[Path] = set()
    gone = []
    for path in sorted(changed):
        if path.is_dir():
            present.update(_text_files(path))
        elif not path.exists():
            gone.append(path)
        elif path.suffix.lower() in TEXT_SUFFIXES:
            present.add(path)
    keeper.sync(sorted(present), gone)


def _text_files(top: Path) -> list[Path]:
    return [file.path for file in find_inputs([str(top)], TEXT_SUFFIXES) if file.path is not None]


def _is_meant(path: Path, top: Path) -> bool:
    if not path.is_relative_to(top):
        return False
    above = path.relative_to(top).parents
    return all(is_entered(top / directory) for directory in above if directory.name)


class Built:
    """The service reads the files: they are in its workspace."""

    def __init__(
        self,
        service: Service,
        workspace: Path,
        *,
        on_built: Callable[[list[str], Json], None],
        on_refused: Callable[[str, str], None],
    ) -> None:
        """Build nothing yet.

        Args:
            service: whose workspace it is.
            workspace: all files are in it.
            on_built: told which files were built and the service's answer.
            on_refused: told of a file that cannot be read, and why.
        """
        self._service = service
        self._workspace = workspace
        self._on_built = on_built
        self._on_refused = on_refused

    def start(self) -> None:
        """The service knows what is stored."""

    def sync(self, present: Sequence[Path], gone: Sequence[Path]) -> None:
        """See `Keeper`."""
        filled = [path for path in present if path.is_file() and path.stat().st_size]
        names = [path.relative_to(self._workspace).as_posix() for path in filled]
        for start in range(0, len(names), _FILES_AT_ONCE):
            self._build(names[start : start + _FILES_AT_ONCE])
        for path in [*gone, *(path for path in present if path not in filled)]:
            self._forget(path.relative_to(self._workspace).as_posix())

    def _build(self, names: list[str]) -> None:
        try:
            answer = self._service.post("/index/build", {"sources": names})
        except RefusedError as exc:
            if exc.status not in (400, 422):  # 422: a name that is no Unicode
                raise
            if len(names) > 1:  # one of them cannot be read, or is gone again
                for name in names:
                    self._build([name])
            else:
                self._on_refused(names[0], exc.detail)
            return
        self._on_built(names, answer)

    def _forget(self, name: str) -> None:
        found = [
            memory["id"]
            for prefix in (f"{name}:chunk_", f"{name}/")
            for page in pages(self._service, source_prefix=prefix)
            for memory in page["memories"]
            # What somebody else put there under a key of theirs is not the file's.
            if memory["key"] is None and _is_below(file_of(memory["source"]), name)
        ]
        if found:
            n_removed = delete_all(self._service, found)["deleted_count"]
            self._on_built([name], {**_NOTHING_BUILT, "memories_removed": n_removed})


class Sent:
    """The files are read here; their passages carry a key that tells them from all others."""

    def __init__(self, service: Service, top: Path, source: str | None, *, as_json: bool) -> None:
        self._service = service
        self._top = top
        self._as_json = as_json
        self._source = source
        self.prefix = f"{path_name(top).rstrip('/')}/" if source is None else source
        self._key = owner(None if source is None else top)
        self._stored: dict[str, dict[str, tuple[int, str, Json]]] = {}
        """Id, digest of the text and metadata by source, by file."""

    def start(self) -> None:
        """Ask which passages of this directory are stored; forget those of vanished files."""
        self._stored = {}
        found = pages(self._service, source_prefix=self.prefix)
        for memory in (memory for page in found for memory in page["memories"]):
            name = file_of(memory["source"])
            if memory["key"] == self._key and name is not None:
                passage = (memory["id"], _digest(memory["text"]), memory["metadata"])
                self._stored.setdefault(name, {})[memory["source"]] = passage
        for name in list(self._stored):
            if not (self._top / name.removeprefix(self.prefix)).is_file():
                self._forget(name)

    def sync(self, present: Sequence[Path], gone: Sequence[Path]) -> None:
        """See `Keeper`."""
        for path in present:
            self._send(path)
        for path in gone:
            name = self.prefix + path.relative_to(self._top).as_posix()
            for stored in list(self._stored):
                if _is_below(stored, name):
                    self._forget(stored)

    def _send(self, path: Path) -> None:
        relative = utf8(path.relative_to(self._top).as_posix())
        file = InputFile(path=path, root=self._top, relative=relative)
        name = file.source(self._source)
        found: list[Memory] = []
        try:
            for record in read_text(file, Options(source=self._source)):
                if isinstance(record, Unreadable):
                    note(f"{record.origin}: {record.reason}")
                    return
                found.append(record)
        except CliError as exc:  # not for us to read, or gone again
            note(str(exc))
            return
        stored = self._stored.get(name, {})
        new = [memory for memory in found if not _is_stored(memory, stored)]
        sources = {memory.line["source"] for memory in found}
        stale = [number for source, (number, *_) in stored.items() if source not in sources]
        if not new and not stale:
            return
        ids = self._post(new)
        delete_all(self._service, stale)
        if self._source is not None and not stored:
            forget_rest(self._service, file, self._source, len(found))
        self._stored[name] = {
            source: passage for source, passage in stored.items() if source in sources
        } | {
            memory.line["source"]: (
                number,
                _digest(memory.line["text"]),
                memory.line.get("metadata", {}),
            )
            for memory, number in zip(new, ids, strict=True)
            if number is not None
        }
        _tell(name, sent=len(new), removed=len(stale), as_json=self._as_json)

    def _post(self, found: Sequence[Memory]) -> list[int | None]:
        sender = Sender(
            self._service,
            deduplicate=False,
            stop_on_error=False,
            on_error=lambda origin, reason: note(f"{origin}: {reason}"),
        )
        return [
            number
            for part in parts_of(found)
            for number in sender.send(part, f"watch-{uuid.uuid4().hex}").ids
        ]

    def _forget(self, name: str) -> None:
        passages = self._stored[name]
        delete_all(self._service, [number for number, *_ in passages.values()])
        del self._stored[name]
        _tell(name, sent=0, removed=len(passages), as_json=self._as_json)


def _is_below(name: str | None, top: str) -> bool:
    return name is not None and (name == top or name.startswith(f"{top}/"))


def _is_stored(memory: Memory, stored: Mapping[str, tuple[int, str, Json]]) -> bool:
    """Whether a passage is stored with what its file says of itself, and maybe with more."""
    _, digest, metadata = stored.get(memory.line["source"], (0, "", {}))
    told = memory.line.get("metadata", {})
    is_same_place = told.get(_CONTEXT) == metadata.get(_CONTEXT)
    is_told = is_same_place and metadata | told == metadata
    return is_told and digest == _digest(memory.line["text"])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _tell(name: str, *, sent: int, removed: int, as_json: bool) -> None:
    if as_json:
        print_json({"type": "file", "file": name, "sent": sent, "removed": removed})
    else:
        done = [f"{counted(sent, 'passage')} sent"] if sent else []
        done += [f"{counted(removed, 'passage')} removed"] if removed else []
        say(f"{name}: {', '.join(done)}")
