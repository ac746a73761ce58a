"""Near-duplicates among vectors: all pairs, and the groups they form."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from engine.records import FloatMatrix, RowArray

_BLOCK_ROWS = 1_024


def similar_pairs(
    vectors: FloatMatrix, threshold: float
) -> Iterator[tuple[RowArray, RowArray, npt.NDArray[np.float32]]]:
    """Every pair of rows i < j whose cosine reaches `threshold`, with that cosine. Exact.

    A product of blocks: O(n² dim) arithmetic, O(block) memory. Yields arrays of i, j and cosine.
    """
    for row_start in range(0, len(vectors), _BLOCK_ROWS):
        block = vectors[row_start : row_start + _BLOCK_ROWS]
        for column_start in range(row_start, len(vectors), _BLOCK_ROWS):
            cosines = block @ vectors[column_start : column_start + _BLOCK_ROWS].T
            reaches = cosines >= threshold
            if column_start == row_start:
                reaches = np.triu(reaches, k=1)
            i, j = np.nonzero(reaches)
            if len(i):
                yield row_start + i, column_start + j, cosines[i, j]


class DuplicateGroups:
    """Connected components of the pairs, by union-find with path halving (Tarjan 1984)."""

    def __init__(self, n: int) -> None:
        self._parent = np.arange(n)

    def join(self, rows: RowArray, others: RowArray) -> None:
        """Put the two rows of each pair, and what is joined to them, into one group."""
        apart = self._roots(rows) != self._roots(others)
        for i, j in zip(rows[apart].tolist(), others[apart].tolist(), strict=True):
            low, high = sorted((self._root(i), self._root(j)))
            self._parent[high] = low

    def later_members(self) -> tuple[RowArray, RowArray]:
        """All rows but the first of each group, ascending, and the first of theirs."""
        # A root is the lowest row of its group, so every other member has a lower parent.
        later = np.flatnonzero(self._parent != np.arange(len(self._parent)))
        return later, self._roots(later)

    def _roots(self, rows: RowArray) -> RowArray:
        while not np.array_equal(parents := self._parent[rows], rows):
            rows = parents
        return rows

    def _root(self, i: int) -> int:
        while (parent := int(self._parent[i])) != i:
            self._parent[i] = self._parent[parent]
            i = parent
        return i
