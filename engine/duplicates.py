"""Near-duplicates among stored memories: all pairs, and the groups they form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.records import DuplicatePair, FloatMatrix, MemoryId
from engine.writer import LiveState

IdArray = npt.NDArray[np.int64]

_BLOCK_ROWS = 1_024
_SHOWN_PAIRS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """What deduplication would remove."""

    n_pairs: int
    best_pairs: list[DuplicatePair]
    """The most similar ones."""
    later: list[tuple[MemoryId, str]]
    """Id and text of all but the earliest memory of each group."""


def find_duplicates(state: LiveState, threshold: float) -> Duplicates:
    """Compare all memories, as they are now, outside every lock."""
    with state.lock.shared():
        ids, vectors = state.store.embeddings()
    pairs = list(similar_pairs(vectors, threshold))
    groups = DuplicateGroups(len(ids))
    for i, j, _ in pairs:
        groups.join(i, j)
    best = sorted(pairs, key=lambda pair: -pair[2])[:_SHOWN_PAIRS]
    id_of = ids.tolist()
    with state.lock.shared():
        later = state.store.get_many(ids[groups.later_members()].tolist())
        shown = state.store.get_many([id_of[at] for i, j, _ in best for at in (i, j)])
    best_pairs = [
        DuplicatePair(id_a=a.id, id_b=b.id, similarity=cosine, text_a=a.text, text_b=b.text)
        for i, j, cosine in best
        if (a := shown.get(id_of[i])) and (b := shown.get(id_of[j]))
    ]
    return Duplicates(
        n_pairs=len(pairs),
        best_pairs=best_pairs,
        later=[(memory.id, memory.text) for memory in later.values()],
    )


def similar_pairs(vectors: FloatMatrix, threshold: float) -> Iterator[tuple[int, int, float]]:
    """Every pair of rows i < j whose cosine reaches `threshold`, with that cosine. Exact.

    A product of blocks: O(n² dim) arithmetic, O(block) memory.
    """
    for row_start in range(0, len(vectors), _BLOCK_ROWS):
        block = vectors[row_start : row_start + _BLOCK_ROWS]
        for column_start in range(row_start, len(vectors), _BLOCK_ROWS):
            cosines = block @ vectors[column_start : column_start + _BLOCK_ROWS].T
            if column_start == row_start:
                cosines = np.triu(cosines, k=1)
            for i, j in np.argwhere(cosines >= threshold):
                yield row_start + int(i), column_start + int(j), float(cosines[i, j])


class DuplicateGroups:
    """Connected components of the pairs, by union-find with path halving (Tarjan 1984)."""

    def __init__(self, n: int) -> None:
        self._parent = np.arange(n)

    def join(self, i: int, j: int) -> None:
        """Put two rows, and what is joined to them, into one group."""
        low, high = sorted((self._root(i), self._root(j)))
        self._parent[high] = low

    def later_members(self) -> npt.NDArray[np.int64]:
        """All rows but the first of each group, ascending."""
        # A root is the lowest row of its group, so every other member has a lower parent.
        return np.flatnonzero(self._parent != np.arange(len(self._parent)))

    def _root(self, i: int) -> int:
        while (parent := int(self._parent[i])) != i:
            self._parent[i] = self._parent[parent]
            i = parent
        return i
