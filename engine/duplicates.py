"""Near-duplicates among stored memories: all pairs, and the groups they form."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from engine.records import FloatMatrix

IdArray = npt.NDArray[np.int64]

_BLOCK_ROWS = 1_024


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
