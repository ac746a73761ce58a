"""The vectors of long texts past their first window: a text is as near as its best one.

One vector holds `MAX_PIECES` word pieces. What a text says after them is found by windows of its
own, kept apart from the first ones: everything that is about a memory as such looks at those.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from engine.records import BoolMask, FloatMatrix, FloatVector, RowArray
from engine.search.vectors.vector_index import VectorIndex

_FIRST_CAPACITY_ROWS: Final = 64
_WIDER: Final = 4
_BEST_WEIGHT: Final = 0.7
_LUCK: Final = 0.03  # the best of n windows is higher by chance


class LaterWindows:
    """Windows past the first, by the row of their memory.

    One thread adds. Searches may run in any number of threads, but not during `add`.
    """

    def __init__(self, vectors: VectorIndex, rows: RowArray) -> None:
        """Begin with vector i of the memory at `rows[i]`, ascending."""
        self.vectors = vectors
        self._rows = rows.copy()
        self._n = len(rows)

    @property
    def rows(self) -> RowArray:
        """The memory of each window, ascending."""
        return self._rows[: self._n]

    def add(self, row: int, vectors: FloatMatrix) -> None:
        """Add the windows of a memory, shape (n, dim), at a row above every other."""
        end = self._n + len(vectors)
        if end > len(self._rows):
            room = max(_FIRST_CAPACITY_ROWS, 2 * end) - self._n
            self._rows = np.concatenate([self.rows, np.empty(room, dtype=np.int64)])
        self.vectors.add(vectors)
        self._rows[self._n : end] = row
        self._n = end

    def compacted(self, keep: BoolMask) -> LaterWindows:
        """Those of the kept rows, which are numbered anew; shape of `keep`: (n_rows,)."""
        kept = keep[self.rows]
        return LaterWindows(self.vectors.compacted(kept), (np.cumsum(keep) - 1)[self.rows[kept]])

    def of(self, row: int) -> RowArray:
        """Which windows those of one memory are."""
        return np.arange(*np.searchsorted(self.rows, [row, row + 1]))

    def nearest_rows(
        self, query: FloatVector, n: int, mask: BoolMask | None, n_sure: int
    ) -> RowArray:
        """The n memories with the windows most similar to a query, or more, each once.

        `n_sure` of these windows are sure; see `VectorIndex.search`.
        """
        if not self._n:
            return np.empty(0, dtype=np.int64)
        allowed = None if mask is None else mask[self.rows]
        n_windows, n_before = n, 0
        while True:  # one text may have many good windows
            [windows], _ = self.vectors.search(query[None], n_windows, allowed, n_sure=n_sure)
            windows = windows[windows >= 0]
            rows = self.rows[windows]
            found = np.unique(rows)
            if len(found) >= n or len(windows) == n_before or n_windows >= self._n:
                return found
            n_windows, n_before = min(_WIDER * n_windows, self._n), len(windows)

    def best(
        self, query: FloatVector, rows: RowArray
    ) -> tuple[RowArray, npt.NDArray[np.float32], RowArray]:
        """The highest inner product of a query with the windows of each long memory.

        Returns:
            Positions in `rows` of those that have windows here, shape (m,); their best products;
            how many windows they have here.
        """
        if not self._n:
            nothing = np.empty(0, dtype=np.int64)
            return nothing, np.empty(0, dtype=np.float32), nothing
        starts = np.searchsorted(self.rows, rows)
        counts = np.searchsorted(self.rows, rows, side="right") - starts
        at = np.flatnonzero(counts)
        counts = counts[at]
        if not len(at):
            return at, np.empty(0, dtype=np.float32), counts
        ends = np.cumsum(counts)
        windows = np.arange(ends[-1]) + np.repeat(starts[at] - (ends - counts), counts)
        products = self.vectors.similarities(query, windows)
        return at, np.maximum.reduceat(products, ends - counts), counts


def similarity_of_best(
    firsts: npt.NDArray[np.float32], at: RowArray, best: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Each memory's cosine by its best window; arguments as `LaterWindows.best` gives them."""
    if not len(at):
        return firsts
    similarities = firsts.copy()
    similarities[at] = np.maximum(firsts[at], best)
    return similarities


def relevance(
    firsts: npt.NDArray[np.float32],
    at: RowArray,
    best: npt.NDArray[np.float32],
    counts: RowArray,
) -> npt.NDArray[np.float32]:
    """The same for ranking: less what many windows gain by chance, and the beginning has a say.

    A plain maximum ranks long texts too high where answers are long.
    """
    if not len(at):
        return firsts
    relevances = firsts.copy()
    highest = np.maximum(firsts[at], best) - _LUCK * np.log(counts + 1)
    relevances[at] = _BEST_WEIGHT * highest + (1 - _BEST_WEIGHT) * firsts[at]
    return relevances.astype(np.float32)
