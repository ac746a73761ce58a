"""Lines of a streamed import, applied in order: added, skipped as duplicates, or put in place.

An import that its caller named by a key is exactly-once line by line: each applied line is
remembered by its digest, beside what it wrote. Sent again, from the start or from anywhere, it
gets its first outcome. Equal lines are told apart by counting: the n-th one of an attempt is the
n-th one remembered.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engine.records import FloatMatrix, FloatVector, MemoryId, NewMemory
from engine.workspace.passages import text_in_context
from engine.writing.duplicates.nearest_in_write import NearestInWrite
from engine.writing.duplicates.repeats import QUOTED_CHARS
from engine.writing.write_session import WriteSession, all_vectors

ImportStatus = Literal["added", "duplicate", "updated", "unchanged"]

_REMEMBERED_S = 7 * 24 * 3600
_FORGOTTEN_AT_ONCE = 5_000
"""Lines of an old import that one write forgets: it must not wait long for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOutcome:
    """What became of one line."""

    status: ImportStatus
    id: MemoryId | None
    """The memory that holds it now; None for a duplicate."""
    duplicate_of: MemoryId | None = None
    """The memory that says the same."""
    similarity: float | None = None
    """Cosine with that memory; 1.0 where vectors say nothing."""
    duplicate_text: str | None = None
    """How that memory begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportAttempt:
    """Which lines of which named import are being sent, for the how manyth time."""

    key: str
    attempt: int
    """A number of its own for each time that the import is sent, below 2^63."""
    digests: Sequence[bytes]
    """One per line."""


def ingest(
    session: WriteSession,
    memories: Sequence[NewMemory],
    embeddings: FloatMatrix,
    *,
    dedup_threshold: float,
    attempt: ImportAttempt | None,
) -> list[ImportOutcome]:
    """Apply lines in order.

    Args:
        session: the open group.
        memories: one with a key takes the place of the one with the same source and key.
        embeddings: shape (len(memories), dim).
        dedup_threshold: cosine of near duplicates, among which words decide.
        attempt: what makes it exactly-once; None for an import without a key.
    """
    ledger = None if attempt is None else _Ledger(session, attempt)
    lines = _Lines(session, memories, embeddings, dedup_threshold)
    outcomes = []
    for at in range(len(memories)):
        outcome = None if ledger is None else ledger.first_outcome(at)
        if outcome is None:
            outcome = lines.apply(at)
            if ledger is not None:
                ledger.remember(at, outcome)
        outcomes.append(outcome)
    return outcomes


class _Lines:
    """The lines of one write and what they have added so far."""

    def __init__(
        self,
        session: WriteSession,
        memories: Sequence[NewMemory],
        embeddings: FloatMatrix,
        dedup_threshold: float,
    ) -> None:
        self._session = session
        self._memories = memories
        self._embeddings = embeddings
        asked = [i for i, m in enumerate(memories) if m.deduplicate and m.key is None]
        self._nearest = NearestInWrite(
            session, embeddings, asked, at_least=dedup_threshold, n_similar=1
        )

    def apply(self, at: int) -> ImportOutcome:
        """Write one line."""
        memory, vector = self._memories[at], self._embeddings[at]
        if memory.merge_copy is not None:
            return self._merge(memory, vector)
        if memory.key is not None:
            return self._upsert(memory, vector)
        if memory.deduplicate and (repeated := self._nearest.repeated(at, memory.text)):
            return ImportOutcome(
                status="duplicate",
                id=None,
                duplicate_of=repeated.memory.id,
                similarity=repeated.similarity,
                duplicate_text=repeated.memory.text[:QUOTED_CHARS],
            )
        return self._insert(memory, vector)

    def _merge(self, memory: NewMemory, vector: FloatVector) -> ImportOutcome:
        """Bring back what is missing; what is there stays, whatever became of it meanwhile."""
        known = self._session.transaction.id_like(memory)
        if known is None:
            return self._insert(memory, vector)
        return ImportOutcome(status="unchanged", id=known)

    def _insert(self, memory: NewMemory, vector: FloatVector) -> ImportOutcome:
        return ImportOutcome(status="added", id=self._session.insert(memory, vector))

    def _upsert(self, memory: NewMemory, vector: FloatVector) -> ImportOutcome:
        known = self._session.transaction.id_of_key(memory.source, memory.key or "")
        if known is None:
            return self._insert(memory, vector)
        old = self._session.get(known)
        new = dataclasses.replace(old, text=memory.text, metadata=memory.metadata)
        stored = self._session.replace(
            old,
            new,
            all_vectors(memory, vector) if text_in_context(new) != text_in_context(old) else None,
            created_us=memory.created_us,
            updated_us=memory.updated_us,
        )
        return ImportOutcome(status="unchanged" if stored is old else "updated", id=known)


class _Ledger:
    """The remembered lines of one import."""

    def __init__(self, session: WriteSession, attempt: ImportAttempt) -> None:
        self._imports = session.transaction.imports
        self._attempt = attempt
        self._import = self._imports.use(session.scoped(attempt.key), time_us=session.time_us)
        self._imports.forget(
            before_us=session.time_us - _REMEMBERED_S * 1_000_000, max_lines=_FORGOTTEN_AT_ONCE
        )

    def first_outcome(self, at: int) -> ImportOutcome | None:
        """What became of a line when it was sent before; None for a new one."""
        found = self._imports.take_line(
            self._import, self._attempt.digests[at], attempt=self._attempt.attempt
        )
        return None if found is None else ImportOutcome(**json.loads(found))

    def remember(self, at: int, outcome: ImportOutcome) -> None:
        """Keep a line's outcome beside what it wrote."""
        self._imports.add_line(
            self._import,
            self._attempt.digests[at],
            attempt=self._attempt.attempt,
            outcome=json.dumps(dataclasses.asdict(outcome)),
        )
