"""The single writer and all that it owns: a data directory under its lock.

Reads run in the caller's thread and see every acknowledged write. Writes return futures: see
`engine.writing.writer` for their path. Safe for any number of threads.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from pydantic import TypeAdapter

from engine.backups.catalogue import Backups
from engine.backups.of_live_store import LiveBackups
from engine.disk.data_lock import DataLock
from engine.disk.durable_files import check_writable, sweep_leftovers
from engine.errors import LeaseLostError, MemoryNotFoundError, StorageError, UnavailableError
from engine.index_options import IndexOptions
from engine.legacy.takeover import import_legacy
from engine.records import (
    AddOutcome,
    BackupCheck,
    BackupSummary,
    BuildPlan,
    BuildReport,
    DedupeReport,
    DeleteOutcome,
    FloatMatrix,
    FloatVector,
    IndexStats,
    Memory,
    MemoryFilter,
    MemoryId,
    MemoryPage,
    MemoryPatch,
    Neighbour,
    NewMemory,
    SearchHit,
    SearchQuery,
    UpsertOutcome,
)
from engine.recovery.open_store import open_store
from engine.search.hybrid_search import search
from engine.search.postings_cache import CACHE_NAME, load_index
from engine.store.exports import ExportFacts, Exports
from engine.store.read_snapshot import ExportedMemory, Snapshot
from engine.store.rows import iso_time
from engine.workspace.builds import plan_build
from engine.workspace.directory_id import directory_id
from engine.workspace.planned_builds import PlannedBuilds
from engine.workspace.workspace import Workspace
from engine.writing import writes
from engine.writing.deduplication import DuplicateRule, find_duplicates, remove_duplicates
from engine.writing.lines import ImportAttempt, ImportOutcome, ingest
from engine.writing.repeats import first_repeated, says_something
from engine.writing.upkeep import Upkeep, VectorTools
from engine.writing.write_session import WriteSession
from engine.writing.writer import LiveState, Writer

_TRIES = 3

_ADDED = TypeAdapter(list[AddOutcome])
_INGESTED = TypeAdapter(list[ImportOutcome])
_UPSERTED = TypeAdapter(UpsertOutcome)
_MEMORY = TypeAdapter(Memory)
_DELETED = TypeAdapter(DeleteOutcome)
_COUNT = TypeAdapter(int)
_DEDUPED = TypeAdapter(DedupeReport)
_BUILT = TypeAdapter(BuildReport)

_log = logging.getLogger(__name__)


class MemoryIndex:
    """Everything that can be asked of, or done to, the memories of one data directory."""

    def __init__(
        self,
        options: IndexOptions,
        *,
        count_pieces: Callable[[str], int],
        vector_tools: VectorTools | None = None,
    ) -> None:
        """Open the data directory, or create it.

        Args:
            options: see there.
            count_pieces: pieces the model sees in a text; chunks are cut by it.
            vector_tools: what makes the vectors that writes left to be made; None leaves them.

        Raises:
            StoreLockedError: another process owns the directory.
            StoreCorruptError, StoreFormatError, ModelMismatchError: see `Store`.
        """
        self._options = options
        self._count_pieces = count_pieces
        self._workspace = Workspace(options.workspace_dir, passed_over=options.unbuilt_names)
        self._lock = DataLock(options.data_dir, timeout_s=options.lock_timeout_s)
        try:
            sweep_leftovers(options.data_dir)
            backups = options.open_backups()
            store = open_store(options.data_dir, backups, options.identity)
            import_legacy(store, options.data_dir)
            index, n_uncached = load_index(
                store, options.data_dir / CACHE_NAME, exact_below=options.exact_below
            )
        except BaseException:
            self._lock.release()
            raise
        self._exports = Exports()
        self.builds = PlannedBuilds()
        self._state = LiveState(store, index, n_uncached=n_uncached)
        self._writer = Writer(
            self._state,
            options.data_dir,
            on_commit=self._notice_write,
            max_pending_jobs=options.max_pending_jobs,
            max_pending_memories=options.max_pending_memories,
            compact_from=options.compact_from,
            cache_after=options.cache_after,
            longest_write_s=options.longest_write_s,
        )
        self._backups = LiveBackups(
            self._state,
            self._writer,
            backups,
            data_dir=options.data_dir,
            exact_below=options.exact_below,
            bursts=options.bursts(),
        )
        self._upkeep = None
        if vector_tools is not None:
            self._upkeep = Upkeep(self._state, self._writer, vector_tools)

    def _notice_write(self) -> None:
        self._backups.notice_write()
        if self._upkeep is not None:
            self._upkeep.notice_write()

    def close(self) -> None:
        """Finish the writes that wait, close the store and let go of the directory."""
        if self._upkeep is not None:
            self._upkeep.close()
        self._writer.close()
        self._backups.close()
        self._exports.close()
        self._state.store.close()
        self._lock.release()

    def check(self) -> None:
        """Raise `UnavailableError` when only a restart can make the answers right again."""
        if self._state.broken is not None:
            raise UnavailableError("the indexes do not show what the store holds; restart")
        if not self._writer.is_alive:
            raise UnavailableError("nothing is written any more; restart")

    def check_in_place(self) -> None:
        """Raise `StoreMovedError` when the database is not the one that is open here."""
        with self._state.store_lock.shared():
            self._state.store.check_in_place()

    def problem(self) -> str | None:
        """What keeps memories from being stored and backed up, if something does. Writes files."""
        try:
            self.check()
            self._writer.check_progress()
            self.check_in_place()
            check_writable(self._options.data_dir)
            self._backups.files.check_writable()
        except StorageError as exc:
            return str(exc)
        return None

    # Reads

    def count(self) -> int:
        """Memories stored. In memory, takes no lock."""
        return len(self._state.index)

    def stats(self) -> IndexStats:
        """The state of the index, for operators."""
        workspace_id = directory_id(self._options.workspace_dir)  # before the locks: it may hang
        with self._state.store_lock.shared(), self._state.lock.shared():
            store, index = self._state.store, self._state.index
            changed_us = store.last_changed_us()
            return IndexStats(
                total_memories=len(index),
                model=store.identity,
                created_at=iso_time(store.created_us),
                last_updated=None if changed_us is None else iso_time(changed_us),
                lsn=store.lsn,
                store_bytes=store.file_bytes(),
                index_bytes=index.n_bytes,
                backup_count=self._backups.count(),
                backup_error=self._backups.error,
                vector_index=index.vectors.kind,
                n_rows=index.n_rows,
                n_terms=index.keywords.n_terms,
                pending_writes=self._writer.n_pending,
                n_stored=store.count(),
                n_vectors=index.n_vectors,
                n_documents=index.keywords.n_documents,
                workspace_id=workspace_id,
            )

    def search(
        self, embeddings: FloatMatrix, queries: Sequence[SearchQuery]
    ) -> list[list[SearchHit]]:
        """Answer several searches, each with its row of `embeddings`, shape (n, dim)."""
        self.check()
        return [
            self._search_one(embedding, query)
            for embedding, query in zip(embeddings, queries, strict=True)
        ]

    def _search_one(self, embedding: FloatVector, query: SearchQuery) -> list[SearchHit]:
        asks_store = not query.where.is_empty()
        for _ in range(_TRIES):
            with self._state.store_lock.shared(), self._state.lock.shared():
                store = self._state.store
                allowed = store.ids_where(query.where) if asks_store else None
                ranked = search(self._state.index, embedding, query, allowed)
                memories = store.get_many([hit.id for hit in ranked])
            if len(memories) == len(ranked):
                break
            asks_store = True  # a delete has committed that the indexes do not show yet
        return [
            SearchHit(
                memory=memories[hit.id],
                similarity=hit.similarity,
                score=hit.score,
                rrf_score=hit.rrf_score,
                bm25_score=hit.bm25_score,
            )
            for hit in ranked
            if hit.id in memories
        ]

    def nearest(self, embedding: FloatVector, text: str) -> Neighbour | None:
        """The memory with the highest cosine, and whether one says the same as the text.

        Where the text's vector says nothing, a memory that says the same is the nearest, else the
        one that its words find. None only on an empty store.
        """
        self.check()
        nearest = self._nearest_memory(embedding, text)
        if nearest is None:
            return None
        repeated = self._repeated(embedding, text, nearest)
        is_comparable = says_something(embedding)
        return dataclasses.replace(
            nearest if repeated is None or is_comparable else repeated,
            says_the_same=repeated is not None,
            is_comparable=is_comparable,
        )

    def _nearest_memory(self, embedding: FloatVector, text: str) -> Neighbour | None:
        by_meaning = SearchQuery(text="", k=1, hybrid=False)
        by_words = SearchQuery(text=text, k=1, neighbours=False)
        for query in (by_meaning, by_words):
            for hit in self._search_one(embedding, query):
                return Neighbour(memory=hit.memory, similarity=hit.similarity)
        page = self.list_memories(MemoryFilter(), offset=0, limit=1)
        return Neighbour(memory=page.memories[0], similarity=0.0) if page.memories else None

    def _repeated(self, embedding: FloatVector, text: str, nearest: Neighbour) -> Neighbour | None:
        with self._state.store_lock.shared(), self._state.lock.shared():
            index = self._state.index
            alike = [*self._state.store.alike(text), nearest.memory]
            return first_repeated(
                text,
                embedding,
                (memory for memory in alike if memory.id in index),
                index.vector_of,
                dedup_threshold=self._options.dedup_threshold,
            )

    def get(self, memory_id: MemoryId) -> Memory:
        """One memory. Raises `MemoryNotFoundError`."""
        with self._state.store_lock.shared():
            found = self._state.store.get_many([memory_id])
        if memory_id not in found:
            raise MemoryNotFoundError(memory_id)
        return found[memory_id]

    def known_embeddings(self, texts: Sequence[str]) -> dict[int, FloatMatrix]:
        """The vectors of texts that are stored already, by position; see `Store`."""
        with self._state.store_lock.shared():
            return self._state.store.known_embeddings(texts)

    def list_memories(
        self,
        where: MemoryFilter,
        *,
        offset: int,
        limit: int,
        newest_first: bool = False,
        cursor: str | None = None,
    ) -> MemoryPage:
        """A page in order of time; `cursor` (of the page before) wins over `offset`."""
        with self._state.store_lock.shared():
            return self._state.store.page(
                where, offset=offset, limit=limit, newest_first=newest_first, cursor=cursor
            )

    def _matching(self, where: MemoryFilter) -> list[Memory]:
        with self._state.store_lock.shared():
            ids = self._state.store.ids_where(where).tolist()
            return list(self._state.store.get_many(ids).values())

    # Exports: read in pieces, as of one LSN

    def begin_export(self, where: MemoryFilter, *, with_embeddings: bool) -> ExportFacts:
        """Open an export of the memories that pass a filter. Raises `OverloadedError`."""
        with self._state.store_lock.shared():
            return self._exports.begin(
                lambda: Snapshot(self._state.store, where, with_embeddings=with_embeddings)
            )

    def read_export(self, export_id: str, max_bytes: int) -> list[ExportedMemory]:
        """The next memories of an export, by id; none at its end. See `Exports.read`."""
        with self._state.store_lock.shared():
            return self._exports.read(export_id, max_bytes)

    def end_export(self, export_id: str) -> None:
        """Close an export before its end."""
        self._exports.end(export_id)

    # Writes

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
        return self._writer.submit(
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
        return self._writer.submit(
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
        return self._writer.submit(run, _UPSERTED, request_id=request_id, deadline_s=deadline_s)

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
        return self._writer.submit(run, _MEMORY, request_id=request_id, deadline_s=deadline_s)

    def delete(
        self, ids: Sequence[MemoryId], *, request_id: str, deadline_s: float | None = None
    ) -> Future[DeleteOutcome]:
        """Delete those that exist."""
        run = functools.partial(writes.delete, ids=ids)
        return self._writer.submit(
            run, _DELETED, request_id=request_id, deadline_s=deadline_s, weight=len(ids)
        )

    def delete_by_source(
        self, where: MemoryFilter, *, request_id: str, deadline_s: float | None = None
    ) -> Future[int]:
        """Delete every memory that passes a filter."""
        run = functools.partial(writes.delete_by_source, where=where)
        return self._writer.submit(run, _COUNT, request_id=request_id, deadline_s=deadline_s)

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
        found = find_duplicates(self._state, threshold, by)

        def remove(session: WriteSession) -> DedupeReport:
            n_removed = remove_duplicates(session, found)
            return report(n_removed, remaining=self.count() - n_removed)

        def report(n_removed: int, remaining: int) -> DedupeReport:
            return DedupeReport(
                n_pairs=found.n_pairs,
                n_removed=n_removed,
                remaining=remaining,
                dry_run=dry_run,
                best_pairs=found.best_pairs,
            )

        if dry_run:
            return report(len(found.later), remaining=self.count())
        return self._writer.submit(remove, _DEDUPED, request_id=request_id).result()

    # Workspace files

    def plan_build(self, sources: Sequence[str] | None, *, replace_all: bool) -> BuildPlan:
        """Read and chunk workspace files and say which chunks need an embedding."""
        return plan_build(
            self._workspace,
            sources,
            self._matching,
            replace_all=replace_all,
            count_pieces=self._count_pieces,
            max_pieces=self._options.max_pieces,
        )

    def apply_build(
        self, plan: BuildPlan, embeddings: FloatMatrix, *, request_id: str
    ) -> BuildReport:
        """Back up, then apply a plan; `embeddings` has a row for each of `plan.to_embed`."""
        backup = self._backups.create("pre_build", "safety")
        run = functools.partial(
            writes.apply_build, plan=plan, embeddings=embeddings, backup_location=backup.path
        )
        return self._writer.submit(run, _BUILT, request_id=request_id).result()

    def built_before(self, request_id: str) -> BuildReport:
        """What a build of this id has changed. Raises `LeaseLostError` when there was none."""

        def refuse(_session: WriteSession) -> BuildReport:
            raise LeaseLostError("the service restarted during the build; build again")

        return self._writer.submit(refuse, _BUILT, request_id=request_id).result()

    # Backups

    def backups(self) -> list[BackupSummary]:
        """Every restorable backup, newest first."""
        return self._backups.files.summaries()

    def backup(self, prefix: str) -> BackupSummary:
        """Back up the store as it is now; writes go on meanwhile."""
        return self._backups.create(prefix, "scheduled" if prefix == "scheduled" else "requested")

    @property
    def backup_files(self) -> Backups:
        """The backup directories, for whoever copies them elsewhere."""
        return self._backups.files

    def on_automatic_backup(self, hear: Callable[[str], None]) -> None:
        """Tell `hear` of each automatic backup; see `LiveBackups.on_automatic`."""
        self._backups.on_automatic(hear)

    def verify_backup(self, name: str) -> BackupCheck:
        """Check that a backup can be restored. Raises `BackupNotFoundError`."""
        return self._backups.verify(name)

    def restore(self, name: str, *, request_id: str | None = None) -> Future[int]:
        """Put a backup in the store's place; the result is how many memories there are now.

        The state before is kept as `pre_restore_…`. Reads go on against it until the swap.
        Sent again with its `request_id`, it happens once, until another restore undoes it.
        """
        restored = self._backups.restore(name, request_id=request_id)
        restored.add_done_callback(lambda _: self._notice_write())
        return restored
