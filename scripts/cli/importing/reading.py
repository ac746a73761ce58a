"""Reading all the files of an import, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from scripts.cli.errors import CliError, UsageError
from scripts.cli.readers import TRANSCRIPTS, Format, kind_of, read
from scripts.cli.readers.inputs import InputFile
from scripts.cli.readers.records import Memory, Options, Record, Unreadable
from scripts.cli.readers.secrets import Secrets
from scripts.cli.terminal import note, one_line, print_json, said_already

_SHOWN_SKIPPED = 5


@dataclass(slots=True, kw_only=True)
class Reading:
    """The files, and what became of them."""

    files: Sequence[InputFile]
    format: Format
    options: Options
    deduplicate: bool | None
    """What the user said about all memories; None: each as its reader thinks best."""
    redact: bool | None
    """Likewise, whether secrets are taken out."""
    stop_on_error: bool
    as_json: bool
    n_unreadable: int = 0
    skipped: list[str] = field(default_factory=list)
    """Why memories were skipped as said already, for the first ones."""
    secrets: Secrets = field(default_factory=Secrets, init=False)
    n_passages: list[tuple[InputFile, int]] = field(default_factory=list, init=False)
    """The text files that were read whole, and how many passages each has."""
    counts: list[tuple[str, Format, int]] = field(default_factory=list, init=False)
    """Name, kind and number of memories of each file so far."""
    _n_bytes: int = field(init=False)
    _n_read_before: int = field(default=0, init=False)
    """Of the files before the current one."""
    _current: InputFile | None = field(default=None, init=False)
    _kind: Format | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.choose(self.files)

    def choose(self, files: Sequence[InputFile]) -> None:
        """Read these files alone."""
        self.files = files
        is_known = not any(file.is_stdin for file in files)
        self._n_bytes = sum(file.size for file in files) if is_known else 0

    def note_duplicate(self, origin: str, item: dict[str, Any]) -> None:
        """A memory was skipped, because the one that `item` names says the same."""
        if len(self.skipped) < _SHOWN_SKIPPED:
            self.skipped.append(f"{one_line(origin)}: {said_already(item)}")

    def memories(self) -> Iterator[Memory]:
        """Every memory; tells of what cannot be read when it gets there.

        Raises:
            CliError: something cannot be read, and the user wants to stop then.
        """
        for file in self.files:
            n_memories, n_unreadable = 0, self.n_unreadable
            for record in self._records(file):
                if isinstance(record, Memory):
                    n_memories += 1
                    if self.deduplicate is not None:
                        record.line.pop("deduplicate", None)
                    yield record
                    continue
                self.n_unreadable += 1
                if self.stop_on_error:
                    raise CliError(f"{record.origin}: {record.reason}")
                self.complain(record.origin, record.reason)
            self._n_read_before += file.n_read
            if self._kind is not None:
                self.counts.append((file.name, self._kind, n_memories))
            if n_unreadable == self.n_unreadable and self.is_text(file):
                self.n_passages.append((file, n_memories))

    def is_text(self, file: InputFile) -> bool:
        """Whether a file is read in passages, and may be read again."""
        return not file.is_stdin and kind_of(file, self.format) is Format.TEXT

    def _records(self, file: InputFile) -> Iterator[Record]:
        """What a file holds; the others are taken in also when it cannot be read."""
        self._current, self._kind = file, None
        try:
            self._kind = kind_of(file, self.format)
            secrets = self.secrets if self._redacts(self._kind) else None
            options = replace(self.options, secrets=secrets)
            for record in read(file, self.format, options):
                if secrets is not None and isinstance(record, Memory):
                    yield replace(record, line=secrets.line_without(record.line))
                else:
                    yield record
        except UsageError:
            raise
        except CliError as exc:
            yield Unreadable(origin=file.name, reason=str(exc))

    def _redacts(self, kind: Format) -> bool:
        """What a person typed to an assistant is full of them."""
        return kind in TRANSCRIPTS if self.redact is None else self.redact

    def complain(self, origin: str, reason: str) -> None:
        """Tell of a memory that is not in."""
        if self.as_json:
            print_json({"type": "error", "origin": origin, "error": reason})
        else:
            note(f"{origin}: {reason}")

    def share_read(self) -> float:
        """How much of the files was read, 0 to 1; 0 when nobody knows how much there is."""
        if not self._n_bytes:
            return 0.0
        n_read = self._n_read_before + (self._current.n_read if self._current else 0)
        return min(n_read / self._n_bytes, 1.0)
