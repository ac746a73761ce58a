"""Vectors and posting lists over one numbering of rows.

A row is a place in both indexes; it holds one version of one memory. A changed memory gets a new
row and its old one dies; dead rows are masked until compaction numbers the living ones anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.records import BoolMask, FloatMatrix, FloatVector, IdArray, MemoryId, RowArray
from engine.search.bm25 import BM25Index
from engine.search.source_order import SourceOrder
from engine.search.vectors.later_windows import LaterWindows
from engine.search.vectors.vector_index import VectorIndex
from engine.words.analyser import analyse

_FIRST_CAPACITY_ROWS = 64
_COMPACT_DEAD_SHARE = 0.25


def searchable_tokens(text: str, source: str) -> list[str]:
    """What the keyword side knows of a memory: the words of its text in context, of its source."""
    return analyse(text) + analyse(source)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """One memory as the indexes hold it."""

    id: MemoryId
    tokens: list[str]
    vectors: FloatMatrix
    """Shape (windows, dim), the first one first."""
    group: int
    """Of its source; see `engine.search.source_order`."""


class SearchIndex:
    """The derived indexes of one store.

    One thread changes it; any number may search, but not during `apply`: the caller holds a
    `ReadWriteLock`.
    """

    def __init__(
        self,
        vectors: VectorIndex,
        keywords: BM25Index,
        ids: IdArray,
        groups: IdArray,
        later: LaterWindows,
    ) -> None:
        """Join two indexes whose row i is the memory `ids[i]`, of the source group `groups[i]`.

        Args:
            vectors: all of them living.
            keywords: likewise.
            ids: shape (n_rows,).
            groups: shape (n_rows,); see `engine.search.source_order`.
            later: the windows of these rows past the first.
        """
        self.vectors = vectors
        self.later = later
        self.keywords = keywords
        self._n_rows = len(ids)
        self._ids = ids.copy()
        self._live = np.ones(len(ids), dtype=np.bool_)
        self._row_of: dict[int, int] = dict(zip(ids.tolist(), range(len(ids)), strict=True))
        self._vector_sum = vectors.sum()
        self._order = SourceOrder(ids, groups)

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
        later = self.later.vectors.n_bytes if self.later.vectors.n_rows else 0
        return self.vectors.n_bytes + later + self.keywords.n_bytes

    # Changes: the writer thread

    def apply(
        self, entries: Sequence[IndexEntry], removed: Mapping[MemoryId, Sequence[str]]
    ) -> None:
        """Remove memories, given the tokens they were added with, then add entries."""
        # The latest first: they stand at the end of their source's list.
        for memory_id, tokens in sorted(removed.items(), reverse=True):
            row = self._row_of.pop(memory_id)
            self._live[row] = False
            self.keywords.remove(row, tokens)
            self._order.remove(row, memory_id)
            self._vector_sum -= self.vectors.vectors(np.array([row]))[0]
        if not entries:
            return
        self._reserve(self._n_rows + len(entries))
        vectors = np.stack([entry.vectors[0] for entry in entries])
        self.vectors.add(vectors)
        self._vector_sum += vectors.sum(axis=0, dtype=np.float64)
        for row, entry in enumerate(entries, start=self._n_rows):
            self.keywords.add(row, entry.tokens)
            self._ids[row] = entry.id
            self._order.add(row, entry.id, entry.group, self._row_of)
            if len(entry.vectors) > 1:
                self.later.add(row, entry.vectors[1:])
            self._live[row] = True
            self._row_of[entry.id] = row
        self._n_rows += len(entries)

    def _reserve(self, n_rows: int) -> None:
        if n_rows <= len(self._ids):
            return
        capacity = max(_FIRST_CAPACITY_ROWS, 2 * n_rows)
        more = capacity - self._n_rows
        self._ids = np.concatenate([self.ids, np.empty(more, dtype=np.int64)])
        self._live = np.concatenate([self.live, np.zeros(more, dtype=np.bool_)])

    def needs_compaction(self, *, from_dead_rows: int) -> bool:
        """Whether dead rows, at least so many, have come to weigh on memory and searches."""
        n_dead = self._n_rows - len(self)
        return n_dead >= max(from_dead_rows, _COMPACT_DEAD_SHARE * self._n_rows)

    def compacted(self) -> SearchIndex:
        """The living rows as an index of their own; searches of this one may go on meanwhile."""
        keep = self.live
        return SearchIndex(
            self.vectors.compacted(keep),
            self.keywords.compacted(keep),
            self.ids[keep],
            self._order.groups[keep],
            self.later.compacted(keep),
        )

    # Searches: any thread

    def vector_of(self, memory_id: MemoryId) -> FloatVector:
        """The vector of the first window of a memory that is in the index, shape (dim,)."""
        vector: FloatVector
        (vector,) = self.vectors.vectors(np.array([self._row_of[memory_id]], dtype=np.int64))
        return vector

    def vectors_of(self, memory_id: MemoryId) -> FloatMatrix:
        """The vectors of a memory that is in the index, shape (windows, dim)."""
        row = self._row_of[memory_id]
        first = self.vectors.vectors(np.array([row], dtype=np.int64))
        windows = self.later.of(row)
        return np.concatenate([first, self.later.vectors.vectors(windows)])

    def nearest(
        self, vectors: FloatMatrix, k: int, *, at_least: float, excluded: Sequence[MemoryId] = ()
    ) -> tuple[IdArray, npt.NDArray[np.float32]]:
        """The most similar memories of each vector among those whose cosine reaches `at_least`.

        Returns:
            Ids and cosines, both shape (len(vectors), k), best first. Where fewer reach it: others
            that do not, or -1 and -inf.
        """
        mask = self.mask(None)
        rows_out = [self._row_of[i] for i in excluded if i in self._row_of]
        if rows_out:
            mask = self.live.copy()
            mask[rows_out] = False
        rows, similarities = self.vectors.nearest(vectors, k, at_least, mask)
        ids = np.full(rows.shape, -1, dtype=np.int64)
        ids[rows >= 0] = self.ids[rows[rows >= 0]]
        return ids, similarities

    def rows_beside(self, rows: RowArray, distance: int) -> RowArray:
        """The rows of the memories so many places after (or before) in the same source; or -1."""
        return self._order.at_distance(rows, distance)

    def beside(self, memory_id: MemoryId) -> tuple[MemoryId | None, MemoryId | None]:
        """The memories before and after one in its source."""
        row = self._row_of.get(memory_id)
        if row is None:
            return None, None
        before, after = (int(self.rows_beside(np.array([row]), places)[0]) for places in (-1, 1))
        return self._id_at(before), self._id_at(after)

    def _id_at(self, row: int) -> MemoryId | None:
        return None if row < 0 else MemoryId(int(self.ids[row]))

    @property
    def mean_vector(self) -> FloatVector:
        """The mean of all vectors, shape (dim,)."""
        mean: FloatVector = (self._vector_sum / max(len(self), 1)).astype(np.float32)
        return mean

    def mask(self, allowed: IdArray | None) -> BoolMask | None:
        """Which rows take part, shape (n_rows,); None for all of them."""
        if allowed is not None:
            return self.live & np.isin(self.ids, allowed)
        return None if len(self) == self._n_rows else self.live
