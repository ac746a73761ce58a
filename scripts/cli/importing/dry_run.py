"""`faiss-memory import --dry-run`: what would be sent, counted and shown."""

from __future__ import annotations

from collections import Counter

from scripts.cli.errors import CliError
from scripts.cli.importing.reading import Reading
from scripts.cli.readers import TRANSCRIPTS
from scripts.cli.readers.records import Memory
from scripts.cli.terminal import counted, note, note_redacted, one_line, print_json, say

_SHOWN = 20


def show(reading: Reading) -> None:
    """Show the first memories, and how many of what there are; nothing is sent.

    Raises:
        CliError: something cannot be read.
    """
    n_memories, sessions = 0, _Sessions()
    for memory in reading.memories():
        n_memories += 1
        sessions.take(memory)
        if reading.as_json:
            print_json(memory.line)
        elif n_memories <= _SHOWN:
            say(f"{one_line(memory.line['source'])} — {one_line(memory.line['text'])}")
    if not reading.as_json:
        for name, kind, n in reading.counts[:_SHOWN]:
            note(f"{name}: {counted(n, 'memory')} ({kind.value})")
        note(f"{counted(n_memories, 'memory')} would be sent.")
        if any(kind in TRANSCRIPTS for _, kind, _ in reading.counts):
            sessions.tell(sum(file.size for file in reading.files))
        note_redacted(reading.secrets.counts)
    if reading.n_unreadable:
        raise CliError(f"{reading.n_unreadable:,} could not be read; see above.")


class _Sessions:
    """Of transcripts, what there is of each project."""

    def __init__(self) -> None:
        self._sessions: set[str] = set()
        self._turns: Counter[str] = Counter()
        """By source."""
        self._n_chars = 0

    def take(self, memory: Memory) -> None:
        """Count a turn."""
        if session := memory.line.get("metadata", {}).get("session"):
            self._sessions.add(str(session))
            self._turns[memory.line["source"]] += 1
            self._n_chars += len(memory.line["text"].encode())

    def tell(self, n_bytes: int) -> None:
        """Say what was counted, of files of so many bytes."""
        note(
            f"{counted(len(self._sessions), 'session')} of {counted(len(self._turns), 'project')}, "
            f"{counted(self._turns.total(), 'turn')}: {self._n_chars / 1e6:,.1f} MB of text in "
            f"{n_bytes / 1e6:,.1f} MB."
        )
        for source, n in self._turns.most_common(_SHOWN):
            note(f"{one_line(source)}: {counted(n, 'turn')}")
