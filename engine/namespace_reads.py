"""All that can be asked of the memories of one namespace.

Reads run in the caller's thread and see every acknowledged write. A memory of another namespace is
as if it did not exist.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.backups.of_live_store import LiveBackups
from engine.errors import MemoryNotFoundError, UnavailableError
from engine.index_options import IndexOptions
from engine.records import (
    Beginning,
    FloatMatrix,
    FloatVector,
    IdArray,
    IndexStats,
    Memory,
    MemoryFilter,
    MemoryId,
    MemoryPage,
    MemoryQuota,
    Neighbour,
    ScoreArray,
    SearchHit,
    SearchHits,
    SearchQuery,
)
from engine.search.by_time import put_in_order, recency_of
from engine.search.hybrid_search import search
from engine.store.database import now_us
from engine.store.exports import ExportFacts, Exports
from engine.store.layout.namespaces import checked_name
from engine.store.layout.rows import iso_time
from engine.store.read_snapshot import ExportedMemory, Snapshot
from engine.workspace.directory_id import directory_id
from engine.workspace.planned_builds import PlannedBuilds
from engine.workspace.workspace import Workspace
from engine.writing.duplicates.repeats import first_repeated, says_something
from engine.writing.live_state import LiveState, View
from engine.writing.writer import Writer

BEGINNING_CHARS = 200
_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Workings:
    """What all namespaces of a data directory share."""

    options: IndexOptions
    state: LiveState
    writer: Writer
    backups: LiveBackups
    exports: Exports
    builds: PlannedBuilds
    workspace: Workspace
    count_pieces: Callable[[str], int]

    def check(self) -> None:
        """Raise `UnavailableError` when only a restart can make the answers right again."""
        if self.state.broken is not None:
            raise UnavailableError("the indexes do not show what the store holds; restart")
        if not self.writer.is_alive:
            raise UnavailableError("nothing is written any more; restart")


class NamespaceReads:
    """What can be asked of the memories of one namespace."""

    def __init__(self, name: str, workings: Workings, quota: MemoryQuota | None = None) -> None:
        """Name it.

        Args:
            name: of the namespace.
            workings: of its data directory.
            quota: that writes through this object must not exceed.

        Raises:
            InvalidInputError: a namespace cannot be called so.
        """
        self.name = checked_name(name)
        self._shared = workings
        self._state = workings.state
        self._options = workings.options
        self._quota = quota

    # Reads

    def count(self) -> int:
        """Memories stored. In memory, takes no lock."""
        return self._state.count(self.name)

    def stats(self) -> IndexStats:
        """The state of its index, for operators; size, backups and queue are of the directory."""
        workspace_id = directory_id(self._options.workspace_dir)  # before the locks: it may hang
        with self._state.reading(self.name) as view:
            store, index = view.store, view.index
            facts = self._state.namespaces.get(self.name)
            changed_us = None if facts is None else facts.changed_us
            return IndexStats(
                total_memories=len(index),
                model=store.identity,
                created_at=iso_time(store.created_us),
                last_updated=None if changed_us is None else iso_time(changed_us),
                lsn=0 if facts is None else facts.lsn,
                store_bytes=store.file_bytes(),
                index_bytes=index.n_bytes,
                backup_count=self._shared.backups.count(),
                backup_error=self._shared.backups.error,
                vector_index=index.vectors.kind,
                n_rows=index.n_rows,
                n_terms=index.keywords.n_terms,
                pending_writes=self._shared.writer.n_pending,
                n_stored=store.count(view.namespace_id),
                n_vectors=index.n_vectors,
                n_documents=index.keywords.n_documents,
                workspace_id=workspace_id,
            )

    def search(self, embeddings: FloatMatrix, queries: Sequence[SearchQuery]) -> list[SearchHits]:
        """Answer several searches, each with its row of `embeddings`, shape (n, dim)."""
        self._shared.check()
        return [
            self._search_one(embedding, query)
            for embedding, query in zip(embeddings, queries, strict=True)
        ]

    def _search_one(self, embedding: FloatVector, query: SearchQuery) -> SearchHits:
        asks_store = not query.where.is_empty()
        for _ in range(_TRIES):
            with self._state.reading(self.name) as view:
                store, mine = view.store, view.namespace_id
                allowed = store.ids_where(query.where, mine) if asks_store else None
                ranked = search(view.index, embedding, query, allowed, _recency(view, query))
                memories = store.get_many([hit.id for hit in ranked.hits], mine)
            if len(memories) == len(ranked.hits):
                break
            asks_store = True  # a delete has committed that the indexes do not show yet
        hits = SearchHits(
            SearchHit(
                memory=memories[hit.id],
                similarity=hit.similarity,
                score=hit.score,
                rrf_score=hit.rrf_score,
                bm25_score=hit.bm25_score,
                namespace=self.name,
                explanation=hit.explanation,
            )
            for hit in ranked.hits
            if hit.id in memories
        )
        hits.explanation = ranked.explanation
        return put_in_order(hits, query.order)

    def nearest(self, embedding: FloatVector, text: str) -> Neighbour | None:
        """The memory with the highest cosine, and whether one says the same as the text.

        Where the text's vector says nothing, a memory that says the same is the nearest, else the
        one that its words find. None only on an empty store.
        """
        self._shared.check()
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
        with self._state.reading(self.name) as view:
            index = view.index
            alike = [*view.store.alike(text, view.namespace_id), nearest.memory]
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
            found = self._state.store.get_many([memory_id], self._id)
        if memory_id not in found:
            raise MemoryNotFoundError(memory_id)
        return found[memory_id]

    def beside(self, ids: Sequence[MemoryId]) -> list[tuple[Beginning | None, Beginning | None]]:
        """What stands before and after each memory in its source; nothing of one that is gone."""
        with self._state.reading(self.name) as view:
            around = [view.index.beside(memory_id) for memory_id in ids]
            wanted = list({each for pair in around for each in pair if each is not None})
            found = view.store.beginnings(wanted, view.namespace_id, BEGINNING_CHARS)
        return [
            (
                None if before is None else found.get(before),
                None if after is None else found.get(after),
            )
            for before, after in around
        ]

    @property
    def _id(self) -> int:
        return self._state.id_of(self.name)

    def known_embeddings(self, texts: Sequence[str]) -> dict[int, FloatMatrix]:
        """The vectors of texts that are stored already, by position; see `Store`."""
        with self._state.store_lock.shared():
            return self._state.store.known_embeddings(texts, self._id)

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
                where,
                {self._id: self.name},
                offset=offset,
                limit=limit,
                newest_first=newest_first,
                cursor=cursor,
            )

    def _matching(self, where: MemoryFilter) -> list[Memory]:
        with self._state.store_lock.shared():
            ids = self._state.store.ids_where(where, self._id).tolist()
            return list(self._state.store.get_many(ids, self._id).values())

    # Exports: read in pieces, as of one LSN

    def begin_export(self, where: MemoryFilter, *, with_embeddings: bool) -> ExportFacts:
        """Open an export of the memories that pass a filter. Raises `OverloadedError`."""
        with self._state.store_lock.shared():
            store, mine = self._state.store, self._id
            return self._shared.exports.begin(
                lambda: Snapshot(store, where, mine, with_embeddings=with_embeddings)
            )

    def read_export(self, export_id: str, max_bytes: int) -> list[ExportedMemory]:
        """The next memories of an export, by id; none at its end. See `Exports.read`."""
        with self._state.store_lock.shared():
            return self._shared.exports.read(export_id, max_bytes, self._id)

    def end_export(self, export_id: str) -> None:
        """Close an export before its end."""
        self._shared.exports.end(export_id, self._id)


def _recency(view: View, query: SearchQuery) -> Callable[[IdArray], ScoreArray] | None:
    """What age takes from the scores of a search."""
    asked = query.recency
    if asked is None:
        return None

    def recency(ids: IdArray) -> ScoreArray:
        now = now_us()
        known = view.store.created_us_of(ids.tolist(), view.namespace_id)
        created_us = np.array([known.get(memory_id, now) for memory_id in ids.tolist()])
        return recency_of(created_us, now, asked)

    return recency
