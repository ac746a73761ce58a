"""Near-duplicates among vectors: all pairs, and which of them can go."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from engine.records import FloatMatrix, RowArray
from engine.search.vectors.rabitq_index import RabitqIndex
from engine.search.vectors.vector_index import NEAR_FROM, SURE_THAT_NONE_ERRORS, use_one_thread

_BLOCK_ROWS = 1_024
_EXACT_BELOW = 20_000
_QUERY_BLOCK = 64
_CANDIDATES = 64

Pairs = tuple[RowArray, RowArray, npt.NDArray[np.float32]]
"""Rows i, rows j and their cosines, of pairs with i < j."""


def similar_pairs(vectors: FloatMatrix, threshold: float) -> Iterator[Pairs]:
    """Every pair of rows i < j whose cosine reaches `threshold`, those of lower i first.

    Exact; of many rows and a threshold of near duplicates, one pair in a thousand may be missed.
    """
    if len(vectors) >= _EXACT_BELOW and threshold >= NEAR_FROM:
        return _pairs_in_cells(vectors, threshold)
    return _all_pairs(vectors, threshold)


def _pairs_in_cells(vectors: FloatMatrix, threshold: float) -> Iterator[Pairs]:
    """Compare each row with what is in the cells around it, or with all where that is much."""
    use_one_thread()
    codes = RabitqIndex(vectors)
    codes.add(vectors)
    for start in range(0, len(vectors), _QUERY_BLOCK):
        block = vectors[start : start + _QUERY_BLOCK]
        rows, estimates = codes.candidates(block, _CANDIDATES, None, near_only=True)
        missing = rows < 0
        cosines = np.einsum("qd,qcd->qc", block, vectors[rows])
        error = np.std(np.where(missing, 0, cosines - np.where(missing, 0, estimates)), axis=1)
        is_settled = missing[:, -1] | (estimates[:, -1] + SURE_THAT_NONE_ERRORS * error < threshold)
        numbers = np.arange(start, start + len(block))
        reaches = ~missing & (cosines >= threshold) & (rows > numbers[:, None])
        at, nth = np.nonzero(reaches & is_settled[:, None])
        found = [(numbers[at], rows[at, nth], cosines[at, nth])]
        for row in numbers[~is_settled].tolist():
            later = vectors[row + 1 :] @ vectors[row]
            others = np.flatnonzero(later >= threshold)
            found.append((np.full(len(others), row), others + row + 1, later[others]))
        i, j, cosine = map(np.concatenate, zip(*found, strict=True))
        if len(i):
            yield i, j, cosine


def _all_pairs(vectors: FloatMatrix, threshold: float) -> Iterator[Pairs]:
    """A product of blocks: O(n² dim) arithmetic, O(block) memory."""
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


class KeptRows:
    """Which rows stay when each that reaches the threshold with an earlier one that stays goes.

    Every row that goes is beside one that stays: there are no chains.
    """

    def __init__(self, n: int) -> None:
        self._stays_for = np.arange(n)
        """Of each row the one that stays in its place: itself, if it stays."""

    def leave_out(self, rows: RowArray, others: RowArray) -> None:
        """Judge pairs i < j; those of lower i first, all of one i at once."""
        order = np.argsort(rows, kind="stable")
        rows, others = rows[order], others[order]
        borders = np.flatnonzero(np.diff(rows, prepend=-1, append=-1))
        for start, end in pairwise(borders.tolist()):
            row = rows[start]
            if self._stays_for[row] == row:
                later = others[start:end]
                later = later[self._stays_for[later] == later]
                self._stays_for[later] = row

    def left_out(self) -> tuple[RowArray, RowArray]:
        """The rows that go, ascending, and for each the one that stays in its place."""
        later = np.flatnonzero(self._stays_for != np.arange(len(self._stays_for)))
        return later, self._stays_for[later]
