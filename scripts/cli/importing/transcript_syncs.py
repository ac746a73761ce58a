"""Following an assistant's transcripts: what was said since is sent, and nothing is forgotten."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts.cli.errors import CliError
from scripts.cli.importing.journal import Tally
from scripts.cli.importing.sending import Sender, parts_of
from scripts.cli.readers import Format, read
from scripts.cli.readers.inputs import InputFile
from scripts.cli.readers.records import Memory, Options, Unreadable
from scripts.cli.service import Service
from scripts.cli.terminal import counted, note, print_json, say


class TranscriptSync:
    """Sends turns as they are told; a transcript that its assistant deletes leaves them here."""

    def __init__(
        self, service: Service, top: Path, format: Format, options: Options, *, as_json: bool
    ) -> None:
        """Send nothing yet.

        Args:
            service: where to.
            top: all transcripts are in it.
            format: whose they are.
            options: how they are read; secrets are taken out where it has `secrets`.
            as_json: whether to tell in JSON.
        """
        self._service = service
        self._top = top
        self._format = format
        self._options = options
        self._as_json = as_json
        self._sent: dict[Path, dict[str, int]] = {}
        """Of each transcript, the hash of what was sent under each key."""

    def start(self) -> None:
        """The service knows by their keys which turns are stored."""

    def sync(self, present: Sequence[Path], gone: Sequence[Path]) -> None:
        """See `FileSync`."""
        for path in present:
            self._send(path)
        for path in gone:
            self._sent.pop(path, None)

    def _send(self, path: Path) -> None:
        sender = Sender(
            self._service,
            deduplicate=False,
            stop_on_error=False,
            on_error=lambda origin, reason: note(f"{origin}: {reason}"),
        )
        done = self._sent.get(path, {})
        new: dict[str, int] = {}
        total = Tally()
        for part in parts_of(self._unsent(path, done, new)):
            total.add(sender.send(part, f"watch-{uuid.uuid4().hex}").tally)
        self._sent[path] = done | new
        self._tell(path, total)

    def _unsent(self, path: Path, done: dict[str, int], new: dict[str, int]) -> Iterator[Memory]:
        """What a transcript says and was not sent yet; `new` is told of it."""
        relative = path.relative_to(self._top).as_posix()
        file = InputFile(path=path, root=self._top, relative=relative)
        try:
            for record in read(file, self._format, self._options):
                if isinstance(record, Unreadable):
                    note(f"{record.origin}: {record.reason}")
                    continue
                key, content = record.line["key"], hash(record.line["text"])
                if done.get(key) != content:
                    new[key] = content
                    yield record
        except CliError as exc:  # not for us to read, or gone again
            note(str(exc))

    def _tell(self, path: Path, total: Tally) -> None:
        n_new = total.added + total.updated
        if not n_new:
            return
        if self._as_json:
            print_json({"type": "file", "file": str(path), "sent": n_new})
        else:
            say(f"{path}: {counted(n_new, 'turn')} sent")
