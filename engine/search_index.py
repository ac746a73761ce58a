"""Vectors and posting lists over one numbering of rows, searched together.

A row is a place in both indexes; it holds one version of one memory. A changed memory gets a new
row and its old one dies; dead rows are masked until compaction numbers the living ones anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.analyser import analyse, analyse_query
from engine.bm25 import BM25Index
from engine.fusion import fuse, pick
from engine.records import BoolMask, FloatMatrix, FloatVector, MemoryId, RowArray, SearchQuery
from engine.vector_index import VectorIndex

IdArray = npt.NDArray[np.int64]

_LEAST_CANDIDATES = 60
_CANDIDATES_A_HIT = 3
_FIRST_CAPACITY_ROWS = 1024
_COMPACT_DEAD_SHARE = 0.25


def searchable_tokens(text: str, source: str) -> list[str]:
    """What the keyword side knows of a memory: the words of its text and of its source."""
    return analyse(text) + analyse(source)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """One memory as the indexes hold it."""

    id: MemoryId
    tokens: list[str]
    vector: FloatVector


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedId:
    """One hit, before its record is fetched. Scores as in `engine.records.SearchHit`."""

    id: MemoryId
    similarity: float
    rrf_score: float | None = None
    bm25_score: float | None = None


class SearchIndex:
    """The derived indexes of one store.

    One thread changes it; any number may search, but not during `apply`: the caller holds a
    `ReadWriteLock`.
    """

    def __init__(self, vectors: VectorIndex, keywords: BM25Index, ids: IdArray) -> None:
        """Join two indexes whose row i is the memory `ids[i]`."""
        self.vectors = vectors
        self.keywords = keywords
        self._n_rows = len(ids)
        self._ids = ids.copy()
        self._live = np.ones(len(ids), dtype=np.bool_)
        self._row_of: dict[int, int] = dict(zip(ids.tolist(), range(len(ids)), strict=True))

    @classmethod
    def empty(cls, dim: int, *, exact_below: int) -> SearchIndex:
        """An index of no memories."""
        return cls(
            VectorIndex(dim, exact_below=exact_below), BM25Index(), np.empty(0, dtype=np.int64)
        )

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, memory_id: MemoryId) -> bool:
        return memory_id in self._row_of

    @property
    def n_rows(self) -> int:
        """Rows, dead ones included."""
        return self._n_rows

    @property
    def ids(self) -> IdArray:
        """The memory of each row, shape (n_rows,)."""
        return self._ids[: self._n_rows]

    @property
    def live(self) -> BoolMask:
        """Which rows are living, shape (n_rows,)."""
        return self._live[: self._n_rows]

    @property
    def n_vectors(self) -> int:
        """Rows of the vector index that a search may return."""
        return self.vectors.n_rows - int(np.count_nonzero(~self.live))

    @property
    def n_bytes(self) -> int:
        """Memory of vectors, codes and posting lists."""
        return self.vectors.n_bytes + self.keywords.n_bytes

    # Changes: the writer thread

    def apply(
        self, entries: Sequence[IndexEntry], removed: Mapping[MemoryId, Sequence[str]]
    ) -> None:
        """Remove memories, given the tokens they were added with, then add entries."""
        for memory_id, tokens in removed.items():
            row = self._row_of.pop(memory_id)
            self._live[row] = False
            self.keywords.remove(row, tokens)
        if not entries:
            return
        self._reserve(self._n_rows + len(entries))
        self.vectors.add(np.stack([entry.vector for entry in entries]))
        for row, entry in enumerate(entries, start=self._n_rows):
            self.keywords.add(row, entry.tokens)
            self._ids[row] = entry.id
            self._live[row] = True
            self._row_of[entry.id] = row
        self._n_rows += len(entries)

    def _reserve(self, n_rows: int) -> None:
        if n_rows <= len(self._ids):
            return
        capacity = max(_FIRST_CAPACITY_ROWS, 2 * n_rows)
        self._ids = np.concatenate([self.ids, np.empty(capacity - self._n_rows, dtype=np.int64)])
        self._live = np.concatenate([self.live, np.zeros(capacity - self._n_rows, dtype=np.bool_)])

    def needs_compaction(self, *, from_dead_rows: int) -> bool:
        """Whether dead rows, at least so many, have come to weigh on memory and searches."""
        n_dead = self._n_rows - len(self)
        return n_dead >= max(from_dead_rows, _COMPACT_DEAD_SHARE * self._n_rows)

    def compacted(self) -> SearchIndex:
        """The living rows as an index of their own; searches of this one may go on meanwhile."""
        keep = self.live
        return SearchIndex(
            self.vectors.compacted(keep), self.keywords.compacted(keep), self.ids[keep]
        )

    # Searches: any thread

    def vector_of(self, memory_id: MemoryId) -> FloatVector:
        """The vector of a memory that is in the index, shape (dim,)."""
        vector: FloatVector
        (vector,) = self.vectors.vectors(np.array([self._row_of[memory_id]], dtype=np.int64))
        return vector

    def nearest(
        self, vectors: FloatMatrix, *, at_least: float, excluded: Sequence[MemoryId] = ()
    ) -> tuple[IdArray, npt.NDArray[np.float32]]:
        """The most similar memory of each vector if its cosine reaches `at_least`.

        Returns:
            Ids and cosines, both shape (len(vectors),). Where none reaches it: of one that does
            not, or -1 and -inf.
        """
        mask = self._mask(None)
        rows_out = [self._row_of[i] for i in excluded if i in self._row_of]
        if rows_out:
            mask = self.live.copy()
            mask[rows_out] = False
        rows, similarities = self.vectors.nearest(vectors, at_least, mask)
        ids = np.full(len(rows), -1, dtype=np.int64)
        ids[rows >= 0] = self.ids[rows[rows >= 0]]
        return ids, similarities

    def search(
        self, embedding: FloatVector, query: SearchQuery, allowed: IdArray | None = None
    ) -> list[RankedId]:
        """The best memories for a query, fusing the vector and the BM25 ranking.

        Args:
            embedding: shape (dim,), float32, L2-normalised.
            query: what is wanted; its filter is already resolved to `allowed`.
            allowed: the ids that take part; None for all.

        Returns:
            At most k hits, best first; ties by similarity, then by lower id.
        """
        mask = self._mask(allowed)
        n_candidates = max(_LEAST_CANDIDATES, _CANDIDATES_A_HIT * query.k)
        vector_rows, similarities = self.vectors.search(embedding[None], n_candidates, mask)
        vector_rows, similarities = vector_rows[0], similarities[0]
        found = vector_rows >= 0
        vector_rows, similarities = vector_rows[found], similarities[found]
        if not query.hybrid:
            return self._ranked(vector_rows, similarities, query)
        tokens = analyse_query(query.text)
        bm25_rows, _ = self.keywords.search(tokens, n_candidates, mask)
        rows, rrf_scores = fuse(vector_rows, bm25_rows, vector_weight=query.vector_weight)
        return self._ranked(
            rows,
            self.vectors.similarities(embedding, rows),
            query,
            rrf_scores=rrf_scores,
            bm25_scores=self.keywords.scores(tokens, rows),
        )

    def _mask(self, allowed: IdArray | None) -> BoolMask | None:
        if allowed is not None:
            return self.live & np.isin(self.ids, allowed)
        return None if len(self) == self._n_rows else self.live

    def _ranked(
        self,
        rows: RowArray,
        similarities: npt.NDArray[np.float32],
        query: SearchQuery,
        *,
        rrf_scores: npt.NDArray[np.float64] | None = None,
        bm25_scores: npt.NDArray[np.float64] | None = None,
    ) -> list[RankedId]:
        ids = self.ids[rows]
        scores = similarities.astype(np.float64) if rrf_scores is None else rrf_scores
        best = pick(scores, similarities, ids, k=query.k, threshold=query.threshold)
        return [
            RankedId(
                id=MemoryId(int(ids[at])),
                similarity=float(similarities[at]),
                rrf_score=None if rrf_scores is None else float(rrf_scores[at]),
                bm25_score=None if bm25_scores is None else float(bm25_scores[at]),
            )
            for at in best
        ]
