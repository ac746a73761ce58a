"""The vector index: exact while small, RaBitQ codes reranked by exact products once large."""

from __future__ import annotations

from typing import Literal

import faiss
import numpy as np
import numpy.typing as npt

from engine.defaults import EXACT_BELOW
from engine.records import BoolMask, FloatMatrix, FloatVector, RowArray
from engine.search.vectors.exact_index import ExactIndex, SimilarityArray, ranked
from engine.search.vectors.rabitq_index import RabitqIndex

_QUERY_BLOCK = 64  # bounds the memory of candidates: 64 queries of 3,300 candidates take 3 MB
_CANDIDATES = 300  # with 10 for each hit: 400 at k = 10, where few do not suffice
_FIRST_HITS = 60  # of those the candidates for each are wanted; fewer for each further one
_CANDIDATES_A_FURTHER_HIT = 3
_SURE_ERRORS = 1.5  # standard errors of the estimates; see `_refined`
_ROWS_PER_CANDIDATE = 16  # reranking a candidate costs as much as scanning so many rows
_EXACT_SHARE = 16  # picking one row in so many is as cheap as scanning the codes of all
NEAR_FROM = 0.9  # inner products that the cells around a query are known to hold
_NEAR_CANDIDATES = 32
SURE_THAT_NONE_ERRORS = 3.0  # standard errors of the estimates; see `_near`


def use_one_thread() -> None:
    """Make faiss work in the calling thread alone.

    OpenMP keeps this setting per thread: a call at start does nothing for the threads of a pool.
    On two busy cores a second OpenMP thread only spins, and every search gets slower.
    """
    faiss.omp_set_num_threads(1)


class VectorIndex:
    """Rows 0..n-1 of normalised vectors, in the order they were added, found by inner product.

    One thread adds and adopts. Searches may run in any number of threads, but not during `add`.
    A store that has outgrown its kind is switched without stopping either:

        if index.needs_switch():
            built = index.build_quantised()   # in a background thread; adds and searches go on
            index.adopt(built)                # in the thread that adds
    """

    def __init__(
        self,
        dim: int,
        *,
        exact_below: int = EXACT_BELOW,
        refine_factor: int = 10,
        retrain_growth: float = 4.0,
    ) -> None:
        """Make an empty index.

        Args:
            dim: dimensions of a vector, >= 1.
            exact_below: rows from which searches use RaBitQ codes.
            refine_factor: candidates reranked for each hit wanted, besides a few hundred.
            retrain_growth: codes are made anew when the rows have grown by this factor.
        """
        self.dim = dim
        self.exact_below = exact_below
        self.refine_factor = refine_factor
        self.retrain_growth = retrain_growth
        self._exact = ExactIndex(dim)
        self._quantised: RabitqIndex | None = None

    @property
    def kind(self) -> Literal["exact", "rabitq"]:
        """How searches are answered."""
        return "exact" if self._quantised is None else "rabitq"

    @property
    def n_rows(self) -> int:
        """Rows added."""
        return self._exact.n_rows

    @property
    def n_bytes(self) -> int:
        """Memory of vectors and codes."""
        codes = 0 if self._quantised is None else self._quantised.n_bytes
        return self._exact.vectors.nbytes + codes

    def add(self, vectors: FloatMatrix) -> None:
        """Append rows. Amortised O(new rows).

        Args:
            vectors: shape (n, dim), float32, L2-normalised; copied.

        Raises:
            ValueError: another shape or dtype, or a value that is not finite; nothing is added.
        """
        self._check_matrix(vectors, "vectors")
        use_one_thread()
        self._exact.append(vectors)
        if self._quantised is not None:
            self._quantised.add(self._exact.vectors[self._quantised.n_rows :])

    def search(
        self,
        queries: FloatMatrix,
        k: int,
        live: BoolMask | None = None,
        *,
        n_sure: int | None = None,
    ) -> tuple[RowArray, SimilarityArray]:
        """Return the best rows for each query.

        Args:
            queries: shape (q, dim), float32, L2-normalised.
            k: rows wanted for each, >= 1; fewer come back when fewer are allowed.
            live: shape (n_rows,), bool, the rows allowed; None allows all and costs nothing.
            n_sure: of so many of the best of k hardly any may be missing, by default of all; a few
                of those after them may. The fewer, the less often every vector is compared.

        Returns:
            Rows and exact inner products, both (q, k), best first, equal ones by lower row; short
            answers are padded with -1 and -inf. A `rabitq` index may miss rows (recall@10 is at
            least 0.99); the scores of those it finds are exact.

        Raises:
            ValueError: another shape or dtype, a value that is not finite, or k < 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        queries = self._checked_queries(queries, live)
        quantised = self._quantised
        n_allowed = self.n_rows if live is None else int(np.count_nonzero(live))
        n_candidates = _CANDIDATES + self.refine_factor * min(k, _FIRST_HITS)
        n_candidates += _CANDIDATES_A_FURTHER_HIT * max(k - _FIRST_HITS, 0)
        exact_is_cheap = n_allowed <= max(
            _ROWS_PER_CANDIDATE * n_candidates, self.n_rows // _EXACT_SHARE
        )
        if quantised is None or exact_is_cheap:
            return self._exact.search(queries, k, live)
        rows = np.empty((len(queries), k), dtype=np.int64)
        scores = np.empty((len(queries), k), dtype=np.float32)
        for start in range(0, len(queries), _QUERY_BLOCK):
            block = slice(start, start + _QUERY_BLOCK)
            found = self._refined(quantised, queries[block], k, live, n_candidates, n_sure or k)
            rows[block], scores[block], is_sure = found
            doubtful = start + np.flatnonzero(~is_sure)
            if len(doubtful):
                rows[doubtful], scores[doubtful] = self._exact.search(queries[doubtful], k, live)
        return rows, scores

    def _refined(
        self,
        quantised: RabitqIndex,
        queries: FloatMatrix,
        k: int,
        live: BoolMask | None,
        n_candidates: int,
        n_sure: int,
    ) -> tuple[RowArray, SimilarityArray, BoolMask]:
        """Rank the candidates exactly; the mask says which queries hardly missed one of `n_sure`.

        A row left out is estimated no better than the last candidate. It belongs among the best
        only if its estimate is off by more than the distance between the two, and how far
        estimates are off is seen on the candidates.
        """
        candidates, estimates = quantised.candidates(queries, n_candidates, live)
        exact = self._exact.similarities(queries, candidates)
        rows, scores = ranked(candidates, exact, k)
        error = np.std(exact - estimates, axis=1)
        return rows, scores, scores[:, n_sure - 1] - estimates[:, -1] >= _SURE_ERRORS * error

    def nearest(
        self, queries: FloatMatrix, k: int, at_least: float, live: BoolMask | None = None
    ) -> tuple[RowArray, SimilarityArray]:
        """Return the best rows of each query among those whose inner product reaches a bound.

        From a bound of 0.9 on, which is what near duplicates have, this costs a part of a search.

        Args:
            queries: shape (q, dim), float32, L2-normalised.
            k: rows wanted for each, >= 1.
            at_least: the bound.
            live: shape (n_rows,), bool, the rows allowed; None allows all.

        Returns:
            Rows and exact inner products, both (q, k), best first. Where fewer reach the bound:
            others that do not, or -1 and -inf. A `rabitq` index may miss the best row (of one
            query in a thousand at most) and some of the others.

        Raises:
            ValueError: another shape or dtype, or a value that is not finite.
        """
        queries = self._checked_queries(queries, live)
        if self._quantised is None:
            if k == 1:
                return self._exact.nearest(queries, at_least, live)
            return self._exact.search(queries, k, live)
        if at_least < NEAR_FROM:
            return self.search(queries, k, live)
        rows, scores, is_sure = self._near(self._quantised, queries, k, at_least, live)
        doubtful = np.flatnonzero(~is_sure)
        if len(doubtful):
            rows[doubtful], scores[doubtful] = self.search(queries[doubtful], k, live)
        return rows, scores

    def _near(
        self,
        quantised: RabitqIndex,
        queries: FloatMatrix,
        k: int,
        at_least: float,
        live: BoolMask | None,
    ) -> tuple[RowArray, SimilarityArray, BoolMask]:
        """Rank what is in the cells around each query; the mask says which answers are settled.

        One is when a row reaches the bound, or when those left out do not: they are estimated no
        better than the last candidate.
        """
        candidates, estimates = quantised.candidates(
            queries, _NEAR_CANDIDATES, live, near_only=True
        )
        exact = self._exact.similarities(queries, candidates)
        rows, scores = ranked(candidates, exact, k)
        missing = candidates < 0
        error = np.std(np.where(missing, 0, exact) - np.where(missing, 0, estimates), axis=1)
        is_none = estimates[:, -1] + SURE_THAT_NONE_ERRORS * error < at_least
        return rows, scores, is_none | missing[:, -1] | (scores[:, 0] >= at_least)

    def similarities(self, query: FloatVector, rows: RowArray) -> SimilarityArray:
        """Return the exact inner products of a query, shape (dim,), with rows, shape (c,).

        Raises:
            ValueError: another shape or dtype, or a row that does not exist.
        """
        self._check_matrix(query[None], "query")
        self._check_rows(rows)
        scores: SimilarityArray
        (scores,) = self._exact.similarities(np.ascontiguousarray(query[None]), rows[None])
        return scores

    def vectors(self, rows: RowArray) -> FloatMatrix:
        """Return a copy of rows, shape (c,), as a matrix (c, dim).

        Raises:
            ValueError: a row that does not exist.
        """
        self._check_rows(rows)
        chosen: FloatMatrix = self._exact.vectors[rows]
        return chosen

    def sum(self) -> npt.NDArray[np.float64]:
        """The sum of all rows, shape (dim,)."""
        total: npt.NDArray[np.float64] = self._exact.vectors.sum(axis=0, dtype=np.float64)
        return total

    def needs_switch(self) -> bool:
        """Whether `build_quantised` is due: too many rows for exact search, or for old codes."""
        if self._quantised is None:
            return self.n_rows >= self.exact_below
        return self.n_rows >= self.retrain_growth * self._quantised.n_trained

    def build_quantised(self) -> RabitqIndex:
        """Make codes of the rows there are now. Changes nothing; any thread may call it."""
        use_one_thread()
        vectors = self._exact.vectors
        built = RabitqIndex(vectors)
        built.add(vectors)
        return built

    def adopt(self, built: RabitqIndex) -> None:
        """Search with `built` from now on, after the rows added since are encoded too.

        For the thread that adds. Searches may go on: the last step is one assignment.
        """
        use_one_thread()
        built.add(self._exact.vectors[built.n_rows :])
        self._quantised = built

    def compacted(self, keep: BoolMask) -> VectorIndex:
        """Return a new index of the kept rows, renumbered in order; this one stays as it is.

        Args:
            keep: shape (n,) with n <= `n_rows`; rows past its end are left for the caller to add.
        """
        smaller = VectorIndex(
            self.dim,
            exact_below=self.exact_below,
            refine_factor=self.refine_factor,
            retrain_growth=self.retrain_growth,
        )
        smaller.add(self._exact.vectors[: len(keep)][keep])
        if self._quantised is not None and smaller.needs_switch():
            smaller.adopt(smaller.build_quantised())
        return smaller

    def _checked_queries(self, queries: FloatMatrix, live: BoolMask | None) -> FloatMatrix:
        """The queries, C-contiguous, and this thread ready to search for them."""
        self._check_matrix(queries, "queries")
        if live is not None and (live.shape != (self.n_rows,) or live.dtype != np.bool_):
            raise ValueError(
                f"live must be bool of shape ({self.n_rows},), not {live.dtype} of {live.shape}"
            )
        use_one_thread()
        return np.ascontiguousarray(queries)

    def _check_matrix(self, matrix: FloatMatrix, name: str) -> None:
        if matrix.dtype != np.float32 or matrix.ndim != 2 or matrix.shape[1] != self.dim:
            raise ValueError(
                f"{name} must be float32 of shape (n, {self.dim}),"
                f" not {matrix.dtype} of {matrix.shape}"
            )
        if not np.isfinite(matrix).all():
            raise ValueError(f"{name} hold a value that is not finite")

    def _check_rows(self, rows: RowArray) -> None:
        # faiss reads the address a row number leads to, whether a vector is there or not
        if rows.dtype != np.int64 or rows.ndim != 1:
            raise ValueError(f"rows must be int64 of shape (c,), not {rows.dtype} of {rows.shape}")
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.n_rows:
            raise ValueError(f"rows must be in 0..{self.n_rows - 1}")
