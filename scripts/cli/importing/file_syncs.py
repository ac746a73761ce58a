"""Who brings the memories of files up to date.

Either the service reads the files (`WorkspaceSync`), or they are read here and sent (`UploadSync`).
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from scripts.cli.errors import CliError, RefusedError
from scripts.cli.importing.sending import Sender, parts_of
from scripts.cli.importing.stored_passages import file_of, forget_file, forget_rest, is_below
from scripts.cli.memory_commands import delete_all, pages
from scripts.cli.readers.identity import owner, path_name, utf8
from scripts.cli.readers.inputs import InputFile
from scripts.cli.readers.records import Memory, Options, Unreadable
from scripts.cli.readers.secrets import Secrets
from scripts.cli.readers.text_files import read_text
from scripts.cli.service import Json, Service
from scripts.cli.terminal import counted, note, print_json, say

_NOTHING_BUILT: Json = {"files_processed": 1, "memories_added": 0, "unchanged": 0}
_CONTEXT = "passage_context"
"""In the metadata of a passage, what stands above it in its file."""
_FILES_AT_ONCE = 200


class WorkspaceSync:
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
        """See `FileSync`."""
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
        if n_removed := forget_file(self._service, name):
            self._on_built([name], {**_NOTHING_BUILT, "memories_removed": n_removed})


class UploadSync:
    """The files are read here; their passages carry a key that tells them from all others."""

    def __init__(
        self, service: Service, top: Path, source: str | None, *, redact: bool, as_json: bool
    ) -> None:
        self._service = service
        self._top = top
        self._as_json = as_json
        self._source = source
        self._options = Options(source=source, secrets=Secrets() if redact else None)
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
        """See `FileSync`."""
        for path in present:
            self._send(path)
        for path in gone:
            name = self.prefix + path.relative_to(self._top).as_posix()
            for stored in list(self._stored):
                if is_below(stored, name):
                    self._forget(stored)

    def _send(self, path: Path) -> None:
        relative = utf8(path.relative_to(self._top).as_posix())
        file = InputFile(path=path, root=self._top, relative=relative)
        name = file.source(self._source)
        found: list[Memory] = []
        try:
            for record in read_text(file, self._options):
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


def _is_stored(memory: Memory, stored: Mapping[str, tuple[int, str, Json]]) -> bool:
    """Whether a passage is stored with what its file says of itself, and maybe with more."""
    _, digest, metadata = stored.get(memory.line["source"], (0, "", {}))
    given = memory.line.get("metadata", {})
    is_same_place = given.get(_CONTEXT) == metadata.get(_CONTEXT)
    is_given = is_same_place and metadata | given == metadata
    return is_given and digest == _digest(memory.line["text"])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _tell(name: str, *, sent: int, removed: int, as_json: bool) -> None:
    if as_json:
        print_json({"type": "file", "file": name, "sent": sent, "removed": removed})
    else:
        done = [f"{counted(sent, 'passage')} sent"] if sent else []
        done += [f"{counted(removed, 'passage')} removed"] if removed else []
        say(f"{name}: {', '.join(done)}")
