"""RaBitQ codes in an inverted file: a rough ranking of rows from one bit a dimension.

Rows are kept by cell, the nearest of some centroids; a code says how a row differs from its own.
A search scans the codes of every cell; who looks for a near duplicate, of the nearest cells alone.

RaBitQ: Gao and Long, "RaBitQ: Quantizing High-Dimensional Vectors with a Theoretical Error Bound
for Approximate Nearest Neighbor Search", SIGMOD 2024. Inverted file: Sivic and Zisserman, "Video
Google: A Text Retrieval Approach to Object Matching in Videos", ICCV 2003.
"""

from __future__ import annotations

import math

import faiss
import numpy as np

from engine.records import BoolMask, FloatMatrix, RowArray
from engine.search.vectors.exact_index import SimilarityArray

_QUERY_BITS = 8
_ADD_BLOCK_ROWS = 1 << 14  # bounds faiss's working memory while many rows are encoded
_ROW_ID_BYTES = 8
_CELL_ROWS = 2_048
_MOST_CELLS = 256  # each costs a search of all of them 2 to 3 microseconds
_LEAST_NEAR_CELLS = 8
_TRAINING_ROWS_A_CELL = 64
_TRAINING_ROUNDS = 8


class RabitqIndex:
    """Codes of rows 0..n-1, in cells around the vectors it was trained on.

    One thread adds. Searches may run in any number of threads, but not during `add`.

    `IndexRaBitQFastScan`, which has no cells, refuses every search parameter: no row could be
    masked.
    """

    def __init__(self, training: FloatMatrix) -> None:
        dim = training.shape[1]
        self.n_trained = len(training)
        self._n_cells = min(max(1, self.n_trained // _CELL_ROWS), _MOST_CELLS)
        cells = faiss.IndexFlatIP(dim)
        cells.add(_centroids(training, self._n_cells))
        self._codes = faiss.IndexIVFRaBitQFastScan(
            cells, dim, self._n_cells, faiss.METRIC_INNER_PRODUCT
        )
        self._codes.qb = _QUERY_BITS
        self._codes.train(training[:1])  # the centroids are set: nothing is learnt from this
        # Of 3,300 noisy copies with a cosine of 0.90 to 0.915 to one of 20,000, 80,000 or 340,000
        # rows so many cells held every original; 4 cells missed up to 0.24 %.
        n_near = max(_LEAST_NEAR_CELLS, math.ceil(math.sqrt(self._n_cells)))
        self._n_near_cells = min(self._n_cells, n_near)

    @property
    def n_rows(self) -> int:
        """Rows encoded."""
        return int(self._codes.ntotal)

    @property
    def n_bytes(self) -> int:
        """Memory of the codes."""
        return self.n_rows * (int(self._codes.code_size) + _ROW_ID_BYTES)

    def add(self, vectors: FloatMatrix) -> None:
        """Encode and append rows, shape (n, dim)."""
        for start in range(0, len(vectors), _ADD_BLOCK_ROWS):
            self._codes.add(vectors[start : start + _ADD_BLOCK_ROWS])

    def candidates(
        self,
        queries: FloatMatrix,
        n_candidates: int,
        live: BoolMask | None,
        *,
        near_only: bool = False,
    ) -> tuple[RowArray, SimilarityArray]:
        """Return the rows that look best for each query, and how good they look.

        Args:
            queries: shape (q, dim), C-contiguous.
            n_candidates: rows wanted for each query, >= 1.
            live: shape (n_rows,), the rows allowed; None allows all.
            near_only: look into the cells around each query alone, where rows with a cosine of
                0.9 and above are; a small part of the work.

        Returns:
            Rows and estimated inner products, both (q, n_candidates), best estimate first;
            padded with -1 when fewer are allowed.
        """
        parameters = faiss.IVFRaBitQSearchParameters()
        parameters.qb = _QUERY_BITS  # parameters override the index, with a default of their own
        parameters.nprobe = self._n_near_cells if near_only else self._n_cells
        if live is not None:
            bitmap = np.packbits(live, bitorder="little")  # must outlive the search
            parameters.sel = faiss.IDSelectorBitmap(len(bitmap), faiss.swig_ptr(bitmap))
        estimates: SimilarityArray
        rows: RowArray
        estimates, rows = self._codes.search(queries, n_candidates, params=parameters)
        return rows, estimates


def _centroids(training: FloatMatrix, n: int) -> FloatMatrix:
    """The centres of n cells, shape (n, dim), by spherical k-means of a sample."""
    if n == 1:
        mean: FloatMatrix = training.mean(axis=0, keepdims=True)
        return mean
    rng = np.random.default_rng(0)
    rows = rng.choice(len(training), min(len(training), n * _TRAINING_ROWS_A_CELL), replace=False)
    kmeans = faiss.Kmeans(training.shape[1], n, niter=_TRAINING_ROUNDS, spherical=True, seed=0)
    kmeans.train(training[np.sort(rows)])
    centroids = kmeans.centroids
    assert centroids is not None, "trained"
    return centroids
