"""Posting lists of an inverted index: a packed part that never changes, and what came since.

```
term id ─┬─► packed postings   rows and tfs of all terms end to end, immutable numpy arrays
         └─► recent postings   one array per term, [row, tf, row, tf, …], since the last packing
```

Packed postings take 5 bytes each, recent ones 8 and an array object per term.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.records import ScoreArray

RowNumbers = npt.NDArray[np.uint32]
TermFrequencies = npt.NDArray[np.unsignedinteger[Any]]
ROW_DTYPE: Final = np.uint32

_RECENT_ARRAY_BYTES: Final = sys.getsizeof(array("I")) + 100  # with its dict entry, id, slack


class PostingLists:
    """Rows, ascending, and tfs of each term, by term id.

    Not thread-safe: the caller keeps `append` apart from everything else.
    """

    def __init__(
        self,
        offsets: npt.NDArray[np.int64] | None = None,
        rows: RowNumbers | None = None,
        tfs: TermFrequencies | None = None,
    ) -> None:
        """Begin with packed postings, or with none.

        Args:
            offsets: shape (n_terms + 1,); term i has the postings `offsets[i]:offsets[i + 1]`.
            rows: of all postings.
            tfs: of all postings, any unsigned dtype.
        """
        self._offsets = np.zeros(1, dtype=np.int64) if offsets is None else offsets
        self._rows = np.zeros(0, dtype=ROW_DTYPE) if rows is None else rows
        self._tfs: TermFrequencies = np.zeros(0, dtype=np.uint8) if tfs is None else tfs
        self._recent: dict[int, array[int]] = {}
        self._n_recent = 0

    @property
    def n_bytes(self) -> int:
        """Memory held, an estimate."""
        packed = self._offsets.nbytes + self._rows.nbytes + self._tfs.nbytes
        return packed + 8 * self._n_recent + _RECENT_ARRAY_BYTES * len(self._recent)

    def append(self, row: int, tfs: Mapping[int, int]) -> None:
        """Add the postings of a document, tf by term id, at a row above every other."""
        for term_id, tf in tfs.items():
            postings = self._recent.get(term_id)
            if postings is None:
                postings = self._recent[term_id] = array("I")
            postings.append(row)
            postings.append(tf)
        self._n_recent += len(tfs)

    def of(self, term_id: int) -> Iterator[tuple[RowNumbers, npt.NDArray[Any]]]:
        """A term's rows and tfs: the packed ones, then the recent ones."""
        if term_id < len(self._offsets) - 1:
            part = slice(self._offsets[term_id], self._offsets[term_id + 1])
            yield self._rows[part], self._tfs[part]
        if term_id in self._recent:
            recent = np.array(self._recent[term_id], dtype=ROW_DTYPE)  # a view forbids appending
            yield recent[0::2], recent[1::2]

    def tfs_at(self, term_id: int, rows: RowNumbers) -> ScoreArray:
        """A term's tf at each of `rows`; 0.0 where it does not occur."""
        tfs = np.zeros(len(rows))
        for held, held_tfs in self.of(term_id):
            at = np.minimum(np.searchsorted(held, rows), len(held) - 1)
            found = held[at] == rows
            tfs[found] = held_tfs[at[found]]
        return tfs

    def merged(self, n_terms: int) -> tuple[npt.NDArray[np.int64], RowNumbers, TermFrequencies]:
        """Offsets, rows and tfs of all postings, each term's recent ones after its packed ones."""
        padded = np.pad(self._offsets, (0, n_terms - len(self._offsets) + 1), mode="edge")
        n_packed = padded[1:] - padded[:-1]
        term_ids = sorted(self._recent)
        recent = np.frombuffer(b"".join(self._recent[i] for i in term_ids), dtype=ROW_DTYPE)
        n_recent = np.zeros_like(n_packed)
        n_recent[term_ids] = [len(self._recent[i]) // 2 for i in term_ids]
        runs = np.column_stack((n_packed, n_recent)).ravel()
        is_recent = np.repeat(np.tile([False, True], len(n_packed)), runs)
        rows = np.empty(len(is_recent), dtype=ROW_DTYPE)
        rows[~is_recent], rows[is_recent] = self._rows, recent[0::2]
        largest_tf = recent[1::2].max(initial=0)
        tf_dtype = np.promote_types(self._tfs.dtype, np.min_scalar_type(largest_tf))
        tfs = np.empty(len(is_recent), dtype=tf_dtype)
        tfs[~is_recent], tfs[is_recent] = self._tfs, recent[1::2]
        return np.concatenate(([0], np.cumsum(n_packed + n_recent))), rows, tfs
