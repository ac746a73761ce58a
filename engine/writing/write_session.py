"""What an open transaction has changed and the indexes do not show yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import MemoryNotFoundError
from engine.namespaces import DEFAULT, is_covered
from engine.records import FloatMatrix, FloatVector, Memory, MemoryFilter, MemoryId, NewMemory
from engine.search.search_index import IndexEntry, SearchIndex, searchable_tokens
from engine.search.source_order import group_of
from engine.store.layout.namespaces import NO_NAMESPACE
from engine.store.layout.remembered_outcomes import CALLERS_KEY
from engine.store.layout.rows import canonical_json, iso_time
from engine.workspace.passages import text_in_context

if TYPE_CHECKING:
    from engine.writing.write_group import WriteGroup

_BEFORE_NAMESPACE = "\x1f"

Near = list[tuple[MemoryId, float]]
"""Memories and their cosines with something, best first."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a session has changed so far."""

    name: str
    added: dict[MemoryId, tuple[Memory | NewMemory, FloatMatrix]]
    removed: dict[MemoryId, Memory]
    growth: int
    last_lsn: int | None


class WriteSession:
    """A group's writes to one namespace: to the store at once, to the index after the commit.

    What it answers (which memories exist, what is nearest) includes the group's own writes.
    """

    def __init__(self, group: WriteGroup, namespace_id: int, name: str) -> None:
        self.name = name
        """Of the namespace."""
        self.transaction = group.transaction.within(namespace_id)
        self.time_us = group.time_us
        self.growth = 0
        """By how many memories the namespace has more."""
        self.last_lsn: int | None = None
        """Of the group's last write to the namespace; None without one."""
        self._group = group
        self._added: dict[MemoryId, tuple[Memory | NewMemory, FloatMatrix]] = {}
        self._removed: dict[MemoryId, Memory] = {}

    @property
    def namespace_id(self) -> int:
        """Of the namespace; `NO_NAMESPACE` until its first memory is written."""
        return self.transaction.namespace_id

    @property
    def _index(self) -> SearchIndex:
        return self._group.index_of(self.namespace_id)

    def scoped(self, key: str) -> str:
        """A caller's key as the store knows it: the same one means others in other namespaces."""
        return scoped(key, self.name)

    def is_named_by(self, patterns: Sequence[str]) -> bool:
        """Whether one of these patterns means the namespace."""
        return is_covered(self.name, patterns)

    def changes(self) -> Changes:
        """What was changed so far, to go back to."""
        return Changes(
            self.name, self._added.copy(), self._removed.copy(), self.growth, self.last_lsn
        )

    def go_back_to(self, changes: Changes) -> None:
        """Forget what was changed since."""
        self.name, self._added, self._removed = changes.name, changes.added, changes.removed
        self.growth, self.last_lsn = changes.growth, changes.last_lsn

    def rename(self, name: str) -> None:
        """Call the namespace otherwise."""
        self.name, self.last_lsn = name, self._group.lsn
        self.transaction.namespaces.rename(self.namespace_id, name)

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

    def _note_write(self, *, growth: int = 0) -> int:
        """One memory is written or removed; the LSN of that."""
        self._group.n_changes += 1
        self.growth += growth
        self.last_lsn = self._group.lsn
        return self._group.lsn

    def _ensure_namespace(self) -> None:
        if self.namespace_id == NO_NAMESPACE:
            self.transaction = self.transaction.within(self._group.create_namespace(self))

    def insert(self, memory: NewMemory, vector: FloatVector) -> MemoryId:
        """Add a memory."""
        self._ensure_namespace()
        vectors = all_vectors(memory, vector)
        lsn = self._note_write(growth=1)
        memory_id = self.transaction.insert(memory, vectors, time_us=self.time_us, lsn=lsn)
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
        self.transaction.replace(
            new, vectors, time_us=time_us, lsn=self._note_write(), created_us=created_us
        )
        said, says = text_in_context(old), text_in_context(new)
        if vectors is not None or (said, old.source) != (says, new.source):
            current = self._vectors_of(old.id) if vectors is None else vectors
            self._remove_from_index(old)
            self._added[old.id] = (new, current)
        return dataclasses.replace(new, updated_at=iso_time(time_us))

    def set_vectors(self, memory_id: MemoryId, vectors: FloatMatrix, *, as_of_lsn: int) -> None:
        """Give a memory other vectors, shape (windows, dim), unless it has changed since an LSN."""
        if self.transaction.lsn_of(memory_id) == as_of_lsn:
            memory = self.get(memory_id)
            self.transaction.set_vectors(memory_id, vectors, lsn=self._note_write())
            self._remove_from_index(memory)
            self._added[memory_id] = (memory, vectors)

    def delete(self, memories: Sequence[Memory]) -> None:
        """Remove memories that exist."""
        for memory in memories:
            self.transaction.delete(memory, lsn=self._note_write(growth=-1))
            self._remove_from_index(memory)

    def move(self, memories: Sequence[Memory], to: WriteSession) -> None:
        """Put memories that exist into another namespace, where none has their source and key."""
        to._ensure_namespace()
        for memory in memories:
            vectors = self._vectors_of(memory.id)
            lsn = self._note_write(growth=-1)
            self.transaction.move(memory, to.namespace_id, lsn=lsn)
            self._remove_from_index(memory)
            to._note_write(growth=1)
            to._added[memory.id] = (memory, vectors)

    def _vectors_of(self, memory_id: MemoryId) -> FloatMatrix:
        return self.transaction.vectors_of(memory_id, self._group.dim)

    def _remove_from_index(self, memory: Memory) -> None:
        # The version that the committed index holds is the one to remove there; later versions
        # of the same group never reached it.
        is_own = self._added.pop(memory.id, None) is not None
        if not is_own:
            self._removed.setdefault(memory.id, memory)


def all_vectors(memory: NewMemory, first: FloatVector) -> FloatMatrix:
    """The vectors of a memory, shape (windows, dim), from that of its first window."""
    if memory.later_vectors is None:
        return first[None]
    return np.concatenate([first[None], memory.later_vectors])


def scoped(key: str, namespace: str) -> str:
    """A caller's key as the store knows it. Those of `default` are as they always were."""
    alone = key.replace(_BEFORE_NAMESPACE, 2 * _BEFORE_NAMESPACE)
    return alone if namespace == DEFAULT else f"{alone}{_BEFORE_NAMESPACE}{namespace}"


def is_scoped_to(key: str, namespace: str) -> bool:
    """Whether a key, as the store knows it, is one of a namespace."""
    _, found, name = key.replace(2 * _BEFORE_NAMESPACE, "").rpartition(_BEFORE_NAMESPACE)
    return (name if found else DEFAULT) == namespace


def scoped_write(request_id: str, namespace: str) -> str:
    """The id of a write as the store knows it; one that the service made is of no other write."""
    return scoped(request_id, namespace) if request_id.startswith(CALLERS_KEY) else request_id


def _is_same(old: Memory, new: Memory) -> bool:
    # As JSON: to Python, true and 1 are equal.
    return old == new and canonical_json(old.metadata) == canonical_json(new.metadata)
