"""Exact vectors: held once, searched by brute force, and the judge of every candidate list.

Scores come from the same faiss kernel whichever method is asked, so that a row has one score.
"""

from __future__ import annotations

import faiss
import numpy as np
import numpy.typing as npt

from engine.records import BoolMask, FloatMatrix, FloatVector, RowArray

SimilarityArray = npt.NDArray[np.float32]
"""Inner products, which are cosines here; -inf pads."""

_FIRST_CAPACITY_ROWS = 1 << 7  # of thousands of small indexes
_SECOND_CAPACITY_ROWS = 1 << 17  # pages never touched take no memory; most stores never move
_BATCH_FROM = 20  # queries; from here on a matrix product beats one scan a query (faiss's bound)
_BATCH_BLOCK_ROWS = 1 << 14  # bounds the copy of allowed rows: 25 MB at 384 dimensions
_BATCH_SPARE = 16  # extra candidates a block: matrix products round differently
_NEAREST_BLOCK_ROWS = 1 << 12  # 4 MB of scores for 256 queries: they stay in the cache
_ROUNDING = 1e-5
_GATHER_BELOW = 0.35  # share of allowed rows under which picking them beats scanning all


class ExactIndex:
    """Append-only float32 rows and exact inner products over them.

    One thread appends. Searches may run in any number of threads, but not during `append`.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.n_rows = 0
        self._vectors: FloatMatrix = np.empty((_FIRST_CAPACITY_ROWS, dim), dtype=np.float32)

    @property
    def vectors(self) -> FloatMatrix:
        """The rows so far, shape (n_rows, dim), not copied.

        The view stays valid and its values stay the same while rows are appended, which lets a
        background build read it.
        """
        n_rows = self.n_rows  # before the buffer: every later buffer holds these rows too
        return self._vectors[:n_rows]

    def append(self, vectors: FloatMatrix) -> None:
        """Append rows, shape (n, dim). Amortised O(n): the buffer doubles when it is full."""
        end = self.n_rows + len(vectors)
        if end > len(self._vectors):
            n_rows = _SECOND_CAPACITY_ROWS if 2 * end < _SECOND_CAPACITY_ROWS else 2 * end
            grown = np.empty((n_rows, self.dim), dtype=np.float32)
            grown[: self.n_rows] = self.vectors
            self._vectors = grown
        self._vectors[self.n_rows : end] = vectors
        self.n_rows = end

    def similarities(self, queries: FloatMatrix, rows: RowArray) -> SimilarityArray:
        """Inner products of each query with its own rows.

        Args:
            queries: shape (q, dim), C-contiguous.
            rows: shape (q, c), each below `n_rows`; -1 gives -inf.

        Returns:
            Shape (q, c).
        """
        rows = np.ascontiguousarray(rows, dtype=np.int64)
        scores = np.empty(rows.shape, dtype=np.float32)
        faiss.fvec_inner_products_by_idx(  # type: ignore[attr-defined]  # not in its stubs
            faiss.swig_ptr(scores),
            faiss.swig_ptr(queries),
            faiss.swig_ptr(self._vectors),
            faiss.swig_ptr(rows),
            self.dim,
            *rows.shape,
        )
        return scores

    def search(
        self, queries: FloatMatrix, k: int, live: BoolMask | None
    ) -> tuple[RowArray, SimilarityArray]:
        """Return the best rows of each query by brute force.

        Args:
            queries: shape (q, dim), C-contiguous.
            k: rows wanted, >= 1.
            live: shape (n_rows,), the rows allowed; None allows all.

        Returns:
            Rows and inner products, both (q, k), best first, equal ones by lower row; short
            answers are padded with -1 and -inf.
        """
        if len(queries) >= _BATCH_FROM:
            if k == 1:
                return self.nearest(queries, -np.inf, live)
            candidates = self._batch_candidates(queries, k, live)
            return ranked(candidates, self.similarities(queries, candidates), k)
        found = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        gathered = None
        if live is not None and np.count_nonzero(live) < _GATHER_BELOW * self.n_rows:
            gathered = np.flatnonzero(live)
        for i, query in enumerate(queries):
            if gathered is None:
                all_scores = self._scan(query, live)
            else:
                all_scores = self.similarities(query[None], gathered[None])[0]
            best = _best(all_scores, k)
            found[i, : len(best)] = best if gathered is None else gathered[best]
            scores[i, : len(best)] = all_scores[best]
        return found, scores

    def nearest(
        self, queries: FloatMatrix, at_least: float, live: BoolMask | None
    ) -> tuple[RowArray, SimilarityArray]:
        """Return the best row of each query among those whose inner product reaches a bound.

        Args:
            queries: shape (q, dim), C-contiguous.
            at_least: the bound; the higher it is, the less work remains.
            live: shape (n_rows,), the rows allowed; None allows all.

        Returns:
            As `search` for k = 1; where no row reaches the bound, one that does not, or none.
        """
        if len(queries) < _BATCH_FROM:
            return self.search(queries, 1, live)
        candidates = self._batch_nearest(queries, at_least, live)
        return ranked(candidates, self.similarities(queries, candidates), 1)

    def _scan(self, query: FloatVector, live: BoolMask | None) -> SimilarityArray:
        """Inner products with every row, -inf where not live.

        Scanning all and masking after is about twice as fast as faiss's selector.
        """
        scores = np.empty(self.n_rows, dtype=np.float32)
        faiss.fvec_inner_products_ny(  # type: ignore[attr-defined]  # not in its stubs
            faiss.swig_ptr(scores),
            faiss.swig_ptr(query),
            faiss.swig_ptr(self._vectors),
            self.dim,
            self.n_rows,
        )
        if live is not None:
            scores[~live] = -np.inf
        return scores

    def _batch_nearest(
        self, queries: FloatMatrix, at_least: float, live: BoolMask | None
    ) -> RowArray:
        """Rows that may be the best of all, by matrix products; shape (q, some), padded with -1.

        Five times as fast as faiss, which keeps a heap for every query.
        """
        blocks = []
        for start in range(0, self.n_rows, _NEAREST_BLOCK_ROWS):
            scores = queries @ self.vectors[start : start + _NEAREST_BLOCK_ROWS].T
            if live is not None:
                scores[:, ~live[start : start + scores.shape[1]]] = -np.inf
            best = scores.max(axis=1)
            # Products round differently in a matrix: all that are as good within that take part.
            reaching = np.flatnonzero((best >= at_least - _ROUNDING) & (best > -np.inf))
            asked, row = np.nonzero(scores[reaching] >= best[reaching, None] - _ROUNDING)
            nth = np.arange(len(asked)) - np.searchsorted(asked, asked)
            few = nth < _BATCH_SPARE
            found = np.full((len(queries), int(nth[few].max(initial=-1)) + 1), -1, np.int64)
            found[reaching[asked[few]], nth[few]] = row[few] + start
            blocks.append(found)
        return np.concatenate([np.full((len(queries), 1), -1, np.int64), *blocks], axis=1)

    def _batch_candidates(self, queries: FloatMatrix, k: int, live: BoolMask | None) -> RowArray:
        """The best rows of each block of rows, by matrix products; shape (q, some)."""
        allowed = None if live is None else np.flatnonzero(live)
        n_allowed = self.n_rows if allowed is None else len(allowed)
        blocks = [np.empty((len(queries), 0), dtype=np.int64)]
        for start in range(0, n_allowed, _BATCH_BLOCK_ROWS):
            stop = min(start + _BATCH_BLOCK_ROWS, n_allowed)
            if allowed is None:
                _, found = _knn(queries, self._vectors[start:stop], k + _BATCH_SPARE)
                blocks.append(np.where(found < 0, -1, found + start))
            else:
                rows = allowed[start:stop]
                _, found = _knn(queries, self._vectors[rows], k + _BATCH_SPARE)
                blocks.append(np.where(found < 0, -1, rows[found]))
        return np.concatenate(blocks, axis=1)


def ranked(
    candidates: RowArray, scores: SimilarityArray, k: int
) -> tuple[RowArray, SimilarityArray]:
    """Order candidates by score, equal ones by lower row, and cut or pad each line to k.

    Args:
        candidates: shape (q, c), in any order, padded with -1, no row twice in a line.
        scores: shape (q, c), -inf where the candidate is -1.
        k: rows wanted, >= 1.

    Returns:
        Rows and scores, both (q, k), padded with -1 and -inf.
    """
    order = np.lexsort((candidates, -scores))[:, :k]
    rows = np.take_along_axis(candidates, order, axis=1)
    scores = np.take_along_axis(scores, order, axis=1)
    if order.shape[1] == k:
        return rows, scores
    missing = ((0, 0), (0, k - order.shape[1]))
    return (
        np.pad(rows, missing, constant_values=-1),
        np.pad(scores, missing, constant_values=-np.inf),
    )


def _best(scores: SimilarityArray, k: int) -> RowArray:
    """Positions of the k highest scores, best first, equal ones by position; never a -inf."""
    positions = np.flatnonzero(scores > -np.inf)
    if k < len(positions):
        kth = np.partition(scores, -k)[-k]
        positions = np.flatnonzero(scores >= kth)
    return positions[np.argsort(-scores[positions], kind="stable")[:k]]


def _knn(queries: FloatMatrix, vectors: FloatMatrix, k: int) -> tuple[SimilarityArray, RowArray]:
    """Search one block exhaustively, by inner product."""
    scores: SimilarityArray
    rows: RowArray
    scores, rows = faiss.knn(
        queries, vectors, min(k, len(vectors)), metric=faiss.METRIC_INNER_PRODUCT
    )
    return scores, rows
