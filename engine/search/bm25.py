"""Okapi BM25 over an inverted index that grows and shrinks one document at a time.

The numbers are those of `rank_bm25.BM25Okapi` over the documents now in the index: its defaults
of k1, b and epsilon, its idf (negative ones become epsilon times the average over all terms), its
way of counting a repeated query term. See Trotman, Puurula, Burgess, "Improvements to BM25 and
Language Models Examined", ADCS 2014.

A write touches the terms of its document and nothing else. A removed document keeps its postings,
masked, until `compacted`. Loading or compacting packs all posting lists.
"""

from __future__ import annotations

import inspect
import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rank_bm25 import BM25Okapi

from engine.records import BoolMask, RowArray, ScoreArray
from engine.search.posting_lists import ROW_DTYPE, PostingLists, RowNumbers, TermFrequencies

_OKAPI: Final = inspect.signature(BM25Okapi).parameters
K1: Final[float] = _OKAPI["k1"].default
B: Final[float] = _OKAPI["b"].default
EPSILON: Final[float] = _OKAPI["epsilon"].default

_TERM_BYTES: Final = 150  # dict entry, id, df and a string of average length


class BM25Index:
    """An incremental BM25 index over numbered rows.

    Not thread-safe: the caller keeps writes apart from everything else. Searches may run side by
    side; all they change is a cached float.
    """

    def __init__(self) -> None:
        self._term_ids: dict[str, int] = {}
        self._df = array("I")
        self._df_counts: dict[int, int] = {}  # how many terms have a df; idf needs no more
        self._average_idf: float | None = None
        self._postings = PostingLists()
        self._n_rows = 0
        self._doc_lens: npt.NDArray[np.uint32] = np.zeros(0, dtype=np.uint32)  # with room to grow
        self._live: BoolMask = np.zeros(0, dtype=np.bool_)
        self._n_documents = 0
        self._total_len = 0

    @property
    def n_documents(self) -> int:
        """Documents in the index, removed ones excluded."""
        return self._n_documents

    @property
    def n_rows(self) -> int:
        """Rows, those of removed documents included."""
        return self._n_rows

    @property
    def n_terms(self) -> int:
        """Distinct terms of the documents in the index."""
        return sum(self._df_counts.values())

    @property
    def n_bytes(self) -> int:
        """Memory held, an estimate."""
        documents = 5 * len(self._live)
        return self._postings.n_bytes + _TERM_BYTES * len(self._term_ids) + documents

    @property
    def average_length(self) -> float:
        """Terms of a document on average, repetitions included; 0.0 without documents."""
        return self._total_len / max(self._n_documents, 1)

    @property
    def doc_lens(self) -> npt.NDArray[np.uint32]:
        """Terms of each row, shape (n_rows,)."""
        return self._doc_lens[: self._n_rows]

    @property
    def live(self) -> BoolMask:
        """Which rows hold a document, shape (n_rows,)."""
        return self._live[: self._n_rows]

    def df(self, term: str) -> int:
        """Documents that hold a term."""
        term_id = self._term_ids.get(term)
        return 0 if term_id is None else self._df[term_id]

    def holds(self, term: str, rows: RowArray) -> BoolMask:
        """Which of some rows hold a term."""
        term_id = self._term_ids.get(term)
        if term_id is None:
            return np.zeros(len(rows), dtype=np.bool_)
        return self._postings.tfs_at(term_id, rows.astype(ROW_DTYPE)) > 0

    def postings(self, term: str) -> Iterator[tuple[RowArray, npt.NDArray[Any]]]:
        """Rows and tfs of a term, in parts; removed documents included."""
        term_id = self._term_ids.get(term)
        if term_id is not None:
            for rows, tfs in self._postings.of(term_id):
                yield rows.astype(np.intp), tfs

    def add(self, row: int, tokens: Sequence[str]) -> None:
        """Add a document. Costs its own terms.

        Args:
            row: above every row added before.
            tokens: the analysed text, repetitions included; may be empty.

        Raises:
            ValueError: the row is not above the last one.
        """
        if row < self._n_rows:
            raise ValueError(f"row {row} is not above the last row, {self._n_rows - 1}")
        if row >= len(self._live):
            room = max(64, row // 2)
            self._doc_lens = np.pad(self._doc_lens, (0, row + room - len(self._live)))
            self._live = np.pad(self._live, (0, row + room - len(self._live)))
        self._n_rows = row + 1
        self._doc_lens[row] = len(tokens)
        self._live[row] = True
        tfs = {self._id_of(term): tf for term, tf in Counter(tokens).items()}
        for term_id in tfs:
            self._change_df(term_id, 1)
        self._postings.append(row, tfs)
        self._n_documents += 1
        self._total_len += len(tokens)
        self._average_idf = None

    def remove(self, row: int, tokens: Sequence[str]) -> None:
        """Remove a document. Costs its own terms; its postings stay, masked, until `compacted`.

        The tokens are checked: others would leave wrong counts behind for good.

        Args:
            row: a row that holds a document.
            tokens: as they were added, in any order.

        Raises:
            ValueError: no document is at this row, or it has other tokens. Nothing was changed.
        """
        if not (0 <= row < self._n_rows and self._live[row]):
            raise ValueError(f"no document at row {row}")
        tfs = {self._term_ids.get(term, -1): tf for term, tf in Counter(tokens).items()}
        at = np.array([row], dtype=ROW_DTYPE)
        if (
            len(tokens) != self._doc_lens[row]
            or -1 in tfs
            or any(self._postings.tfs_at(term_id, at)[0] != tf for term_id, tf in tfs.items())
        ):
            raise ValueError(f"the document at row {row} has other tokens")
        for term_id in tfs:
            self._change_df(term_id, -1)
        self._live[row] = False
        self._n_documents -= 1
        self._total_len -= len(tokens)
        self._average_idf = None

    def search(
        self, tokens: Sequence[str], k: int, allowed: BoolMask | None = None
    ) -> tuple[RowArray, ScoreArray]:
        """Return the best documents among those that hold at least one query term.

        Args:
            tokens: the analysed query; a repeated term counts as often as it is given.
            k: documents wanted; fewer come back when fewer match.
            allowed: shape (n_rows,); None allows every row.

        Returns:
            Rows, shape (≤ k,), int64, and their scores, best first, ties by lower row. Scores may
            be zero or negative: in a small corpus the idf is.
        """
        weights = self._weights(tokens)
        if k < 1 or not weights:
            return np.zeros(0, dtype=np.int64), np.zeros(0)
        scores, hits = self._score_all(weights)
        if self._n_documents < self._n_rows:
            hits &= self._live[: self._n_rows]
        if allowed is not None:
            hits &= allowed
        rows = np.flatnonzero(hits)
        return top_rows(rows, scores[rows], k)

    def scores(self, tokens: Sequence[str], rows: RowArray) -> ScoreArray:
        """Return the scores of given rows, in order; 0.0 without a matching term or document."""
        known = (rows >= 0) & (rows < self._n_rows)
        rows = np.where(known, rows, 0)
        scores = np.zeros(len(rows))
        if not known.any():
            return scores
        doc_lens = self._doc_lens[rows]
        for term_id, weight in self._weights(tokens):
            scores += self._impacts(
                weight, self._postings.tfs_at(term_id, rows.astype(ROW_DTYPE)), doc_lens
            )
        return np.where(known & self._live[rows], scores, 0.0)

    def compacted(self, keep: BoolMask) -> BM25Index:
        """Return an index of the kept rows, renumbered densely in order, its postings packed.

        Costs a few passes over the postings; this index is left as it is.

        Args:
            keep: shape (n_rows,). A kept row whose document was removed stays an empty row.
        """
        arrays = self.to_arrays()
        kept = keep[arrays["rows"]]
        ends = np.concatenate(([0], np.cumsum(kept)))[arrays["offsets"]]
        new_rows = (np.cumsum(keep) - 1).astype(ROW_DTYPE)
        index = BM25Index()
        index._set_documents(arrays["doc_lens"][keep], arrays["live"][keep])
        index._set_postings(
            [term for term, n in zip(_unpack_terms(arrays), np.diff(ends), strict=True) if n],
            np.unique(ends),
            new_rows[arrays["rows"][kept]],
            arrays["tfs"][kept],
        )
        return index

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the index as plain arrays, removed documents' postings left out.

        `terms` (uint8, UTF-8) and `term_ends` (in characters) hold the terms; the postings of
        term i are `rows` and `tfs` from `offsets[i]` to `offsets[i + 1]`, rows ascending;
        `doc_lens` and `live` have one entry per row.
        """
        live = self._live[: self._n_rows].copy()
        offsets, rows, tfs = self._postings.merged(len(self._df))
        kept = live[rows]
        ends = np.concatenate(([0], np.cumsum(kept)))[offsets]
        terms = [term for term, df in zip(self._term_ids, self._df, strict=True) if df]
        blob = "".join(terms).encode("utf-8", "surrogatepass")
        return {
            "terms": np.frombuffer(blob, dtype=np.uint8),
            "term_ends": np.cumsum([0, *map(len, terms)], dtype=np.int64),
            "offsets": np.unique(ends).astype(np.int64),
            "rows": rows[kept],
            "tfs": tfs[kept],
            "doc_lens": self._doc_lens[: self._n_rows].copy(),
            "live": live,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> BM25Index:
        """Return the index that `to_arrays` described. Costs a few passes over the arrays.

        Raises:
            ValueError: the arrays do not describe an index.
        """
        try:
            terms = _unpack_terms(arrays)
            _check(arrays, n_terms=len(terms))
        except (KeyError, TypeError, IndexError, UnicodeDecodeError) as exc:
            raise ValueError(f"not the arrays of a BM25 index: {exc!r}") from exc
        index = cls()
        index._set_documents(arrays["doc_lens"], arrays["live"])
        index._set_postings(terms, arrays["offsets"], arrays["rows"], arrays["tfs"])
        if len(index._term_ids) != len(terms):
            raise ValueError("not the arrays of a BM25 index: a term occurs twice")
        return index

    def _id_of(self, term: str) -> int:
        term_id = self._term_ids.get(term)
        if term_id is None:
            term_id = self._term_ids[term] = len(self._df)
            self._df.append(0)
        return term_id

    def _change_df(self, term_id: int, by: int) -> None:
        counts, before = self._df_counts, self._df[term_id]
        after = self._df[term_id] = before + by
        if before:
            counts[before] -= 1
            if not counts[before]:
                del counts[before]
        if after:
            counts[after] = counts.get(after, 0) + 1

    def _weights(self, tokens: Sequence[str]) -> list[tuple[int, float]]:
        """Term ids and their idf times their count in the query, largest first."""
        weights = []
        for term, count in Counter(tokens).items():
            term_id = self._term_ids.get(term)
            if term_id is not None and (df := self._df[term_id]):
                idf = math.log(self._n_documents - df + 0.5) - math.log(df + 0.5)
                weights.append((term_id, count * (idf if idf >= 0 else self._floor_idf())))
        return sorted(weights, key=lambda weight: -weight[1])

    def _floor_idf(self) -> float:
        """Epsilon times the average idf of all terms, computed once between two writes."""
        if self._average_idf is None:
            dfs, counts = np.array(list(self._df_counts.items()), dtype=np.float64).T
            idfs = np.log(self._n_documents - dfs + 0.5) - np.log(dfs + 0.5)
            self._average_idf = float(idfs @ counts) / self.n_terms
        return EPSILON * self._average_idf

    def _score_all(self, weights: Sequence[tuple[int, float]]) -> tuple[ScoreArray, BoolMask]:
        """Scores of all rows, and which rows hold a term; removed documents included."""
        scores = np.zeros(self._n_rows)
        hits = None if weights[-1][1] > 0 else np.zeros(self._n_rows, dtype=np.bool_)
        for term_id, weight in weights:
            for held, tfs in self._postings.of(term_id):
                rows = held.astype(np.intp)
                scores[rows] += self._impacts(weight, tfs, self._doc_lens[rows])
                if hits is not None:
                    hits[rows] = True
        return scores, scores > 0 if hits is None else hits

    def _impacts(
        self,
        weight: float,
        tfs: npt.NDArray[Any],
        doc_lens: npt.NDArray[np.uint32],
    ) -> ScoreArray:
        """What a term adds to documents: Okapi's saturation of tf, by relative length."""
        denominators = doc_lens * (K1 * B * self._n_documents / self._total_len)
        denominators += K1 * (1 - B)
        denominators += tfs
        impacts = tfs * (weight * (K1 + 1))
        impacts /= denominators
        return impacts

    def _set_documents(self, doc_lens: npt.NDArray[np.uint32], live: BoolMask) -> None:
        self._n_rows = len(live)
        self._doc_lens, self._live = doc_lens.astype(np.uint32), live.astype(np.bool_)
        self._n_documents = int(live.sum())
        self._total_len = int(doc_lens[live].sum())

    def _set_postings(
        self,
        terms: Sequence[str],
        offsets: npt.NDArray[np.int64],
        rows: RowNumbers,
        tfs: TermFrequencies,
    ) -> None:
        self._term_ids = dict(zip(terms, range(len(terms)), strict=True))
        self._postings = PostingLists(offsets, rows, tfs)
        dfs = np.diff(offsets)
        self._df = array("I", dfs.astype(np.uint32).tobytes())
        values, counts = np.unique(dfs, return_counts=True)
        self._df_counts = dict(zip(values.tolist(), counts.tolist(), strict=True))


def top_rows(rows: RowArray, scores: ScoreArray, k: int) -> tuple[RowArray, ScoreArray]:
    """The k best of rows given in ascending order, best first, ties by lower row."""
    if len(rows) > k:
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        rows, scores = rows[scores >= least], scores[scores >= least]
    order = np.argsort(-scores, kind="stable")[:k]
    return rows[order].astype(np.int64), scores[order]


def _unpack_terms(arrays: Mapping[str, npt.NDArray[Any]]) -> list[str]:
    text = arrays["terms"].tobytes().decode("utf-8", "surrogatepass")
    ends = arrays["term_ends"].tolist()
    if ends[:1] != [0] or ends[-1] != len(text):
        raise ValueError("not the arrays of a BM25 index: the terms do not end where they should")
    return [text[start:end] for start, end in pairwise(ends)]


def _check(arrays: Mapping[str, npt.NDArray[Any]], *, n_terms: int) -> None:
    """Raise `ValueError` unless postings and documents fit each other."""
    offsets, rows, tfs = arrays["offsets"], arrays["rows"], arrays["tfs"]
    doc_lens, live = arrays["doc_lens"], arrays["live"]
    kinds = "".join(a.dtype.kind for a in (offsets, rows, tfs, doc_lens, live))
    starts = np.zeros(len(rows), dtype=np.bool_)
    if not (
        kinds == "iuuub"
        and rows.dtype == ROW_DTYPE
        and len(offsets) == n_terms + 1
        and offsets[0] == 0
        and offsets[-1] == len(rows) == len(tfs)
        and np.all(np.diff(offsets) > 0)
        and len(doc_lens) == len(live)
        and (len(rows) == 0 or rows.max() < len(live))
    ):
        raise ValueError("not the arrays of a BM25 index: their shapes do not fit each other")
    starts[offsets[:-1]] = True
    ascending = starts[1:] | (rows[1:] > rows[:-1])
    lengths = np.bincount(rows, weights=tfs, minlength=len(live))
    if not (ascending.all() and np.array_equal(lengths, np.where(live, doc_lens, 0))):
        raise ValueError("not the arrays of a BM25 index: postings do not add up to documents")
