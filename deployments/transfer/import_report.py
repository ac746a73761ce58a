"""What the client of an import is told: a line for each of its own, progress, a summary."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic_core import to_json

from deployments import rendering
from deployments.transfer.import_lines import BadLine, GoodLine, MarkLine, ParsedLine
from engine.writing.lines import ImportOutcome

PROGRESS_S = 1.0
_SHOWN_SKIPPED = 5


@dataclass(slots=True)
class Tally:
    """What became of the lines so far."""

    lines: int = 0
    added: int = 0
    duplicates: int = 0
    updated: int = 0
    unchanged: int = 0
    errors: int = 0
    bytes: int = 0

    def count(self, status: Literal["added", "duplicate", "updated", "unchanged"]) -> None:
        """One more line was stored, or need not be."""
        name = "duplicates" if status == "duplicate" else status
        setattr(self, name, getattr(self, name) + 1)

    def shown(self) -> dict[str, int]:
        """As clients see it."""
        return {name: getattr(self, name) for name in self.__slots__}


class ImportReport:
    """Counts and answers the lines of one import, in order."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]], *, reports_all: bool) -> None:
        """Answer every line, or only those with errors, through `send`."""
        self.tally = Tally()
        self._send_bytes = send
        self._reports_all = reports_all
        self._progress_s = time.monotonic()
        self._redacted: Counter[str] = Counter()
        self._skipped: list[dict[str, Any]] = []
        """The first lines that say what a memory says already."""
        self._after_header: int | None = None
        """Memory lines since the export's header; None without one, or after its footer."""

    @property
    def is_cut_off(self) -> bool:
        """Whether the footer of an export is still to come."""
        return self._after_header is not None

    async def answer(self, lines: Sequence[ParsedLine], outcomes: Sequence[ImportOutcome]) -> None:
        """Tell what became of lines; those that could be stored are, durably."""
        remaining = iter(outcomes)
        answers = []
        for line in lines:
            self.tally.lines = line.number
            problem = line.reason if isinstance(line, BadLine) else None
            if isinstance(line, MarkLine):
                problem = self._check_mark(line)
                if problem is None:
                    continue
            elif self._after_header is not None:
                self._after_header += 1
            if isinstance(line, GoodLine):
                outcome = next(remaining)
                self.tally.count(outcome.status)
                self._redacted.update(line.redactions.get("redacted", {}))
                if outcome.status == "duplicate" and len(self._skipped) < _SHOWN_SKIPPED:
                    self._skipped.append({"line": line.number, **_repeated(outcome)})
                if self._reports_all:
                    answers.append(_item(line, outcome))
            else:
                self.tally.errors += 1
                shown = {"type": "item", "line": line.number, "status": "error", "error": problem}
                answers.append(to_json(shown) + b"\n")
        if answers:
            await self._send_bytes(b"".join(answers))

    def _check_mark(self, line: MarkLine) -> str | None:
        """What a footer finds wrong with the lines since its header."""
        if line.kind == "header":
            self._after_header = 0
            return None
        n_lines, self._after_header = self._after_header, None
        if n_lines is None or line.fields.get("count") == n_lines:
            return None
        return f"the export says it has {line.fields.get('count')} memories, {n_lines} came"

    async def progress(self) -> None:
        """Tell how far it is, once in a while."""
        now_s = time.monotonic()
        if now_s - self._progress_s >= PROGRESS_S:
            self._progress_s = now_s
            await self._send({"type": "progress", **self.tally.shown()})

    async def summary(self, stopped_at: int | None, message: str | None) -> None:
        """Tell how it ended: where and why it stopped, if it did."""
        n_errors = self.tally.errors
        ok = message is None and not n_errors
        if message is None:
            message = (
                "Import finished" if ok else f"{n_errors} lines were not imported; see their errors"
            )
        await self._send(
            {"type": "summary", **self.tally.shown(), "ok": ok}
            | {"stopped_at": stopped_at, "message": message}
            | ({"skipped": self._skipped} if self._skipped else {})
            | ({"redacted": dict(sorted(self._redacted.items()))} if self._redacted else {})
        )

    async def _send(self, content: dict[str, Any]) -> None:
        await self._send_bytes(to_json(content) + b"\n")


def _item(line: GoodLine, outcome: ImportOutcome) -> bytes:
    shown: dict[str, Any] = {
        "type": "item",
        "line": line.number,
        "status": outcome.status,
        "id": outcome.id,
    }
    if outcome.status == "duplicate":
        shown |= _repeated(outcome)
    shown |= line.redactions
    return to_json(shown) + b"\n"


def _repeated(outcome: ImportOutcome) -> dict[str, Any]:
    return {
        "duplicate_of": outcome.duplicate_of,
        "similarity": rendering.score(outcome.similarity or 0.0),
        "duplicate_text": outcome.duplicate_text,
    }
