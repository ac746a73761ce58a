"""RaBitQ codes: a rough ranking of all rows from one bit a dimension, to be reranked exactly.

RaBitQ: Gao and Long, "RaBitQ: Quantizing High-Dimensional Vectors with a Theoretical Error Bound
for Approximate Nearest Neighbor Search", SIGMOD 2024.
"""

from __future__ import annotations

import faiss
import numpy as np

from engine.exact_index import SimilarityArray
from engine.records import BoolMask, FloatMatrix, RowArray

_QUERY_BITS = 8
_ADD_BLOCK_ROWS = 1 << 14  # bounds faiss's working memory while many rows are encoded
_ROW_ID_BYTES = 8


class RabitqIndex:
    """Codes of rows 0..n-1 around the mean of the vectors it was trained on.

    One thread adds. Searches may run in any number of threads, but not during `add`.

    `IndexRaBitQFastScan` refuses every search parameter, so no row could be masked. The inverted
    file of the same codes takes a selector; with one list it is the same flat scan.
    """

    def __init__(self, training: FloatMatrix) -> None:
        dim = training.shape[1]
        self.n_trained = len(training)
        centre = faiss.IndexFlatIP(dim)
        centre.add(training.mean(axis=0, keepdims=True))
        self._codes = faiss.IndexIVFRaBitQFastScan(centre, dim, 1, faiss.METRIC_INNER_PRODUCT)
        self._codes.qb = _QUERY_BITS
        self._codes.train(training[:1])  # the centre is set already: nothing is learnt from this

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
        self, queries: FloatMatrix, n_candidates: int, live: BoolMask | None
    ) -> tuple[RowArray, SimilarityArray]:
        """Return the rows that look best for each query, and how good they look.

        Args:
            queries: shape (q, dim), C-contiguous.
            n_candidates: rows wanted for each query, >= 1.
            live: shape (n_rows,), the rows allowed; None allows all.

        Returns:
            Rows and estimated inner products, both (q, n_candidates), best estimate first;
            padded with -1 when fewer are allowed.
        """
        parameters = faiss.IVFRaBitQSearchParameters()
        parameters.qb = _QUERY_BITS  # parameters override the index, with a default of their own
        if live is not None:
            bitmap = np.packbits(live, bitorder="little")  # must outlive the search
            parameters.sel = faiss.IDSelectorBitmap(len(bitmap), faiss.swig_ptr(bitmap))
        estimates: SimilarityArray
        rows: RowArray
        estimates, rows = self._codes.search(queries, n_candidates, params=parameters)
        return rows, estimates
