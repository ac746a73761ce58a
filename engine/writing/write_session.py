"""What an open transaction has changed and the indexes do not show yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from engine.errors import MemoryNotFoundError
from engine.records import FloatMatrix, FloatVector, Memory, MemoryFilter, MemoryId, NewMemory
from engine.search.search_index import IndexEntry, SearchIndex, searchable_tokens
from engine.search.source_order import group_of
from engine.store.rows import canonical_json, iso_time
from engine.store.transaction import Transaction
from engine.workspace.passages import text_in_context

Near = list[tuple[MemoryId, float]]
"""Memories and their cosines with something, best first."""


class WriteSession:
    """The writes of one group: to the store at once, to the indexes after the commit.

    What it answers (which memories exist, what is nearest) includes the group's own writes.
    """

    def __init__(
        self, transaction: Transaction, index: SearchIndex, *, lsn: int, time_us: int
    ) -> None:
        self.transaction = transaction
        self.lsn = lsn
        """Of the job that runs."""
        self.time_us = time_us
        self._index = index
        self._added: dict[MemoryId, tuple[Memory | NewMemory, FloatMatrix]] = {}
        self._removed: dict[MemoryId, Memory] = {}
        self.n_changes = 0
        """Memories written or removed so far."""

    @contextmanager
    def job(self, lsn: int) -> Iterator[None]:
        """Run one job; if it fails, its writes alone are undone."""
        self.lsn = lsn
        added, removed = self._added.copy(), self._removed.copy()
        try:
            with self.transaction.savepoint():
                yield
        except BaseException:
            self._added, self._removed = added, removed
            raise

    def entries(self) -> list[IndexEntry]:
        """What the indexes must add, analysed."""
        return [
            IndexEntry(
                id=memory_id,
                tokens=searchable_tokens(text_in_context(memory), memory.source),
                vectors=vectors,
                group=group_of(memory.source),
            )
            for memory_id, (memory, vectors) in self._added.items()
        ]

    def removals(self) -> dict[MemoryId, list[str]]:
        """What the indexes must remove, with the tokens it was added with."""
        return {
            memory_id: searchable_tokens(text_in_context(memory), memory.source)
            for memory_id, memory in self._removed.items()
        }

    # Reads

    def nearest(self, vectors: FloatMatrix, k: int, at_least: float) -> list[Near]:
        """The memories most similar to each vector, best first: at most k that reach `at_least`."""
        ids, similarities = self._index.nearest(
            vectors, k, at_least=at_least, excluded=list(self._removed)
        )
        if self._added:
            own = vectors @ np.stack([vectors[0] for _, vectors in self._added.values()]).T
            own_ids = np.broadcast_to(np.fromiter(self._added, dtype=np.int64), own.shape)
            ids, similarities = np.hstack([ids, own_ids]), np.hstack([similarities, own])
        best = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
        return [
            [(MemoryId(i), cosine) for i, cosine in zip(*line, strict=True) if cosine >= at_least]
            for line in zip(
                np.take_along_axis(ids, best, axis=1).tolist(),
                np.take_along_axis(similarities, best, axis=1).tolist(),
                strict=True,
            )
        ]

    def vector_of(self, memory_id: MemoryId) -> FloatVector:
        """The vector of the first window of a memory, shape (dim,)."""
        if memory_id in self._added:
            vector: FloatVector = self._added[memory_id][1][0]
            return vector
        return self._index.vector_of(memory_id)

    def vectors_of(self, memory_id: MemoryId) -> FloatMatrix:
        """The vectors of a memory, shape (windows, dim), the first one first."""
        if memory_id in self._added:
            return self._added[memory_id][1]
        return self._index.vectors_of(memory_id)

    def get(self, memory_id: MemoryId) -> Memory:
        """A memory. Raises `MemoryNotFoundError`."""
        memory = self.transaction.get_many([memory_id]).get(memory_id)
        if memory is None:
            raise MemoryNotFoundError(memory_id)
        return memory

    def matching(self, where: MemoryFilter) -> list[Memory]:
        """The memories that pass a filter, by id."""
        ids = sorted(self.transaction.ids_where(where))
        return list(self.transaction.get_many(ids).values())

    # Writes

    def insert(self, memory: NewMemory, vector: FloatVector) -> MemoryId:
        """Add a memory."""
        self.n_changes += 1
        vectors = all_vectors(memory, vector)
        memory_id = self.transaction.insert(memory, vectors, time_us=self.time_us, lsn=self.lsn)
        self._added[memory_id] = (memory, vectors)
        return memory_id

    def replace(
        self,
        old: Memory,
        new: Memory,
        vectors: FloatMatrix | None,
        *,
        created_us: int | None = None,
        updated_us: int | None = None,
    ) -> Memory:
        """Overwrite a memory, unless it is so already; returns it as it is stored then.

        What would only be written again is not: it keeps its LSN, and backups need not copy it.

        Args:
            old: as it is stored.
            new: as it shall be; its times are not looked at.
            vectors: those of a new text; None: they stay.
            created_us: a new time of creation; None: it stays.
            updated_us: a time of the last change, for one that happened elsewhere; None: now.
        """
        created = old.timestamp if created_us is None else iso_time(created_us)
        updated = old.updated_at if updated_us is None else iso_time(updated_us)
        new = dataclasses.replace(new, timestamp=created, updated_at=updated)
        if vectors is None and _is_same(old, new):
            return old
        time_us = self.time_us if updated_us is None else updated_us
        self.n_changes += 1
        self.transaction.replace(new, vectors, time_us=time_us, lsn=self.lsn, created_us=created_us)
        said, says = text_in_context(old), text_in_context(new)
        if vectors is not None or (said, old.source) != (says, new.source):
            current = self.vectors_of(old.id) if vectors is None else vectors
            self._remove_from_index(old)
            self._added[old.id] = (new, current)
        return dataclasses.replace(new, updated_at=iso_time(time_us))

    def set_vectors(self, memory_id: MemoryId, vectors: FloatMatrix, *, as_of_lsn: int) -> None:
        """Give a memory other vectors, shape (windows, dim), unless it has changed since an LSN."""
        if self.transaction.lsn_of(memory_id) == as_of_lsn:
            self.n_changes += 1
            memory = self.get(memory_id)
            self.transaction.set_vectors(memory_id, vectors, lsn=self.lsn)
            self._remove_from_index(memory)
            self._added[memory_id] = (memory, vectors)

    def delete(self, memories: Sequence[Memory]) -> None:
        """Remove memories that exist."""
        for memory in memories:
            self.n_changes += 1
            self.transaction.delete(memory, lsn=self.lsn)
            self._remove_from_index(memory)

    def _remove_from_index(self, memory: Memory) -> None:
        # The version that the committed index holds is the one to remove there; later versions
        # of the same group never reached it.
        self._added.pop(memory.id, None)
        if memory.id in self._index:
            self._removed.setdefault(memory.id, memory)


def all_vectors(memory: NewMemory, first: FloatVector) -> FloatMatrix:
    """The vectors of a memory, shape (windows, dim), from that of its first window."""
    if memory.later_vectors is None:
        return first[None]
    return np.concatenate([first[None], memory.later_vectors])


def _is_same(old: Memory, new: Memory) -> bool:
    # As JSON: to Python, true and 1 are equal.
    return old == new and canonical_json(old.metadata) == canonical_json(new.metadata)
