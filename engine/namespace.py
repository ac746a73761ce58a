"""One namespace: all that can be asked of, or done to, its memories.

Writes return futures: see `engine.writing.writer` for their path. Safe for any number of threads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from pydantic import TypeAdapter

from engine.errors import LeaseLostError
from engine.namespace_reads import NamespaceReads
from engine.records import (
    AddOutcome,
    BuildPlan,
    BuildReport,
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
from engine.workspace.builds import plan_build
from engine.workspace.planned_builds import PlannedBuilds
from engine.writing import writes
from engine.writing.duplicates.deduplication import (
    DuplicateRule,
    find_duplicates,
    remove_duplicates,
)
from engine.writing.lines import ImportAttempt, ImportOutcome, ingest
from engine.writing.write_group import WriteGroup
from engine.writing.write_session import WriteSession, scoped_write

T = TypeVar("T")

_ADDED = TypeAdapter(list[AddOutcome])
_INGESTED = TypeAdapter(list[ImportOutcome])
_UPSERTED = TypeAdapter(UpsertOutcome)
_MEMORY = TypeAdapter(Memory)
_DELETED = TypeAdapter(DeleteOutcome)
_COUNT = TypeAdapter(int)
_DEDUPED = TypeAdapter(DedupeReport)
_BUILT = TypeAdapter(BuildReport)


class Namespace(NamespaceReads):
    """The memories of one namespace. It need not exist: the first one added makes it."""

    # Writes

    def _submit(
        self,
        run: Callable[[WriteSession], T],
        outcome_type: TypeAdapter[T],
        *,
        request_id: str,
        replaces: str | None = None,
        weight: int = 1,
        deadline_s: float | None = None,
        in_pieces: bool = False,
    ) -> Future[T]:
        """Queue a write to this namespace; see `Writer.submit`."""
        name, quota = self.name, self._quota

        def run_here(group: WriteGroup) -> T:
            used = 0 if quota is None else group.n_memories(quota)
            outcome = run(group.session(name))
            if quota is not None:
                group.check_quota(quota, used)
            return outcome

        return self._shared.writer.submit(
            run_here,
            outcome_type,
            request_id=scoped_write(request_id, name),
            replaces=None if replaces is None else scoped_write(replaces, name),
            weight=weight,
            deadline_s=deadline_s,
            in_pieces=in_pieces,
        )

    def add(
        self,
        memories: Sequence[NewMemory],
        embeddings: FloatMatrix,
        *,
        request_id: str,
        deadline_s: float | None = None,
    ) -> Future[list[AddOutcome]]:
        """Add all or none; `embeddings` has shape (len(memories), dim).

        This and the writes below do nothing once `deadline_s` has passed: see `Writer.submit`.
        """
        run = functools.partial(
            writes.add,
            memories=memories,
            embeddings=embeddings,
            dedup_threshold=self._options.dedup_threshold,
        )
        return self._submit(
            run, _ADDED, request_id=request_id, deadline_s=deadline_s, weight=len(memories)
        )

    def ingest(
        self,
        memories: Sequence[NewMemory],
        embeddings: FloatMatrix,
        *,
        request_id: str,
        after: str | None = None,
        attempt: ImportAttempt | None = None,
        deadline_s: float | None = None,
    ) -> Future[list[ImportOutcome]]:
        """Apply lines of a streamed import in order; see `engine.writing.lines`.

        Args:
            memories: one with a key is put in the place of the one with its source and key.
            embeddings: shape (len(memories), dim).
            request_id: of this write.
            after: of the write before it in the same stream, which will not be sent again.
            attempt: what makes a named import exactly-once line by line.
            deadline_s: as for `add`.
        """
        run = functools.partial(
            ingest,
            memories=memories,
            embeddings=embeddings,
            dedup_threshold=self._options.dedup_threshold,
            attempt=attempt,
        )
        return self._submit(
            run,
            _INGESTED,
            request_id=request_id,
            replaces=after,
            deadline_s=deadline_s,
            weight=len(memories),
            in_pieces=True,
        )

    def upsert(
        self,
        memory: NewMemory,
        embedding: FloatVector,
        *,
        request_id: str,
        deadline_s: float | None = None,
    ) -> Future[UpsertOutcome]:
        """Replace the memory with this (source, key), or add it."""
        run = functools.partial(writes.upsert, memory=memory, embedding=embedding)
        return self._submit(run, _UPSERTED, request_id=request_id, deadline_s=deadline_s)

    def update(
        self,
        memory_id: MemoryId,
        patch: MemoryPatch,
        vectors: FloatMatrix | None,
        *,
        request_id: str,
        deadline_s: float | None = None,
    ) -> Future[Memory]:
        """Change a memory; `vectors`, shape (windows, dim), go with a new text."""
        run = functools.partial(writes.update, memory_id=memory_id, patch=patch, vectors=vectors)
        return self._submit(run, _MEMORY, request_id=request_id, deadline_s=deadline_s)

    def delete(
        self, ids: Sequence[MemoryId], *, request_id: str, deadline_s: float | None = None
    ) -> Future[DeleteOutcome]:
        """Delete those that exist."""
        run = functools.partial(writes.delete, ids=ids)
        return self._submit(
            run, _DELETED, request_id=request_id, deadline_s=deadline_s, weight=len(ids)
        )

    def delete_by_source(
        self, where: MemoryFilter, *, request_id: str, deadline_s: float | None = None
    ) -> Future[int]:
        """Delete every memory that passes a filter."""
        run = functools.partial(writes.delete_by_source, where=where)
        return self._submit(run, _COUNT, request_id=request_id, deadline_s=deadline_s)

    def deduplicate(
        self, threshold: float, *, by: DuplicateRule, dry_run: bool, request_id: str
    ) -> DedupeReport:
        """Find groups of duplicates; unless `dry_run`, keep only the earliest of each.

        Compares outside every lock; what changed meanwhile is not removed.

        Args:
            threshold: cosine of duplicates, or of near ones among which words decide.
            by: which of the two.
            dry_run: remove nothing.
            request_id: of this write.
        """
        found = find_duplicates(self._state, self.name, threshold, by)

        def remove(session: WriteSession) -> DedupeReport:
            n_removed = remove_duplicates(session, found)
            return report(n_removed, remaining=self._state.count(self.name) - n_removed)

        def report(n_removed: int, remaining: int) -> DedupeReport:
            return DedupeReport(
                n_pairs=found.n_pairs,
                n_removed=n_removed,
                remaining=remaining,
                dry_run=dry_run,
                best_pairs=found.best_pairs,
            )

        if dry_run:
            return report(len(found.later), remaining=self._state.count(self.name))
        return self._submit(remove, _DEDUPED, request_id=request_id).result()

    # Workspace files

    @property
    def builds(self) -> PlannedBuilds:
        """Those that are planned and not yet applied."""
        return self._shared.builds

    def plan_build(self, sources: Sequence[str] | None, *, replace_all: bool) -> BuildPlan:
        """Read and chunk workspace files and say which chunks need an embedding."""
        return plan_build(
            self._shared.workspace,
            sources,
            self._matching,
            replace_all=replace_all,
            count_pieces=self._shared.count_pieces,
            max_pieces=self._options.max_pieces,
        )

    def apply_build(
        self, plan: BuildPlan, embeddings: FloatMatrix, *, request_id: str
    ) -> BuildReport:
        """Back up, then apply a plan; `embeddings` has a row for each of `plan.to_embed`."""
        backup = self._shared.backups.create("pre_build", "safety")
        run = functools.partial(
            writes.apply_build, plan=plan, embeddings=embeddings, backup_location=backup.path
        )
        return self._submit(run, _BUILT, request_id=request_id).result()

    def built_before(self, request_id: str) -> BuildReport:
        """What a build of this id has changed. Raises `LeaseLostError` when there was none."""

        def refuse(_session: WriteSession) -> BuildReport:
            raise LeaseLostError("the service restarted during the build; build again")

        return self._submit(refuse, _BUILT, request_id=request_id).result()
