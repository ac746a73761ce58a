"""Changing memories, exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.operations.operation import Lane, MemoryOperation, Remedy, Write
from engine.records import (
    AddOutcome,
    DedupeReport,
    DeleteOutcome,
    FloatMatrix,
    FloatVector,
    Memory,
    MemoryFilter,
    MemoryId,
    MemoryPatch,
    NewMemory,
    UpsertOutcome,
)
from engine.writing.lines import ImportAttempt, ImportOutcome

if TYPE_CHECKING:
    from engine.namespace import Namespace
    from engine.writing.duplicates.deduplication import DuplicateRule


@dataclass(frozen=True, slots=True)
class AddMemories(Write[list[AddOutcome]]):
    """Add all or none.

    What makes it durable is the commit in `engine.writing.writer.Writer._run`.
    """

    memories: Sequence[NewMemory]
    embeddings: FloatMatrix
    """A row for each."""

    @property
    def n_chars(self) -> int:
        """Of all texts."""
        return sum(len(memory.text) for memory in self.memories)

    def run(self, index: Namespace) -> Future[list[AddOutcome]]:
        return index.add(
            self.memories,
            self.embeddings,
            request_id=self.request_id,
            deadline_s=self.deadline_s,
        )


@dataclass(frozen=True, slots=True)
class IngestLines(Write[list[ImportOutcome]]):
    """Apply lines of an import in order."""

    memories: Sequence[NewMemory]
    embeddings: FloatMatrix
    after: str | None = None
    """The request before it in the stream, which will not be sent again."""
    attempt: ImportAttempt | None = None
    """What makes a named import exactly-once line by line."""

    @property
    def n_chars(self) -> int:
        """Of all texts."""
        return sum(len(memory.text) for memory in self.memories)

    def run(self, index: Namespace) -> Future[list[ImportOutcome]]:
        return index.ingest(
            self.memories,
            self.embeddings,
            request_id=self.request_id,
            after=self.after,
            attempt=self.attempt,
            deadline_s=self.deadline_s,
        )


@dataclass(frozen=True, slots=True)
class UpsertMemory(Write[UpsertOutcome]):
    """Replace the memory with this (source, key), or add it."""

    memory: NewMemory
    embedding: FloatVector

    def run(self, index: Namespace) -> Future[UpsertOutcome]:
        return index.upsert(
            self.memory, self.embedding, request_id=self.request_id, deadline_s=self.deadline_s
        )


@dataclass(frozen=True, slots=True)
class UpdateMemory(Write[Memory]):
    """Change a memory. Raises `MemoryNotFoundError`."""

    memory_id: MemoryId
    patch: MemoryPatch
    vectors: FloatMatrix | None
    """Shape (windows, dim); they go with a new text."""

    def run(self, index: Namespace) -> Future[Memory]:
        return index.update(
            self.memory_id,
            self.patch,
            self.vectors,
            request_id=self.request_id,
            deadline_s=self.deadline_s,
        )


@dataclass(frozen=True, slots=True)
class DeleteMemories(Write[DeleteOutcome]):
    """Delete those that exist; never raises `MemoryNotFoundError`."""

    ids: Sequence[MemoryId]

    def run(self, index: Namespace) -> Future[DeleteOutcome]:
        return index.delete(self.ids, request_id=self.request_id, deadline_s=self.deadline_s)


@dataclass(frozen=True, slots=True)
class DeleteBySource(Write[int]):
    """Delete every memory that passes a filter, which may not be empty; how many there were."""

    where: MemoryFilter

    def run(self, index: Namespace) -> Future[int]:
        return index.delete_by_source(
            self.where, request_id=self.request_id, deadline_s=self.deadline_s
        )


@dataclass(frozen=True, slots=True)
class Deduplicate(MemoryOperation[DedupeReport]):
    """Find groups of duplicates; unless `dry_run`, keep only the earliest of each."""

    lane = Lane.SLOW
    is_long = True
    if_unknown = Remedy.SEND_AGAIN

    threshold: float
    by: DuplicateRule
    dry_run: bool
    request_id: str = field(kw_only=True)

    def run(self, index: Namespace) -> DedupeReport:
        return index.deduplicate(
            self.threshold, by=self.by, dry_run=self.dry_run, request_id=self.request_id
        )
