"""Searches of one `SearchIndex`: candidates from both sides, scored, the best of them picked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.records import (
    BoolMask,
    FloatVector,
    IdArray,
    MemoryId,
    RowArray,
    ScoreArray,
    SearchQuery,
)
from engine.search.fusion import RRF_K, fuse, pick
from engine.search.ranking import (
    CANDIDATES_A_HIT,
    LEAST_CANDIDATES,
    MOST_BUT_FOR_THE_SAME,
    LexicalScores,
    clearness,
    combined,
    lexical_scores,
    order_gate,
    pooled,
    statistics,
    support,
    weight_of_meaning,
)
from engine.search.search_index import SearchIndex
from engine.search.vectors.later_windows import relevance, similarity_of_best
from engine.words.analyser import analyse, analyse_query

_LEAST_RANKED = 60
_GATE_CANDIDATES = 60
_SURE_CANDIDATES = 30  # more than ever are answers, but for those that the words find too
_SAME_TO_THE_MODEL = 0.9999


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedId:
    """One hit, before its record is fetched. Scores as in `engine.records.SearchHit`."""

    id: MemoryId
    similarity: float
    score: float | None = None
    rrf_score: float | None = None
    bm25_score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Candidates that may be hits, in any order."""

    rows: RowArray
    similarities: npt.NDArray[np.float32]
    ranked_by: ScoreArray
    passes: BoolMask
    """Whether the bounds that were asked for let it through."""
    scores: ScoreArray | None = None
    rrf_scores: ScoreArray | None = None


def search(
    index: SearchIndex,
    embedding: FloatVector,
    query: SearchQuery,
    allowed: IdArray | None = None,
) -> list[RankedId]:
    """The best memories for a query.

    An embedding of zeros says nothing: then the words alone rank, whatever is asked for.

    Args:
        index: not changed meanwhile.
        embedding: shape (dim,), float32, L2-normalised, or all zeros.
        query: what is wanted; its filter is already resolved to `allowed`.
        allowed: the ids that take part; None for all.

    Returns:
        At most k hits, best first; ties by similarity, then by lower id.
    """
    mask = index.mask(allowed)
    if query.hybrid and query.fusion == "rrf":
        found = _by_ranks(index, embedding, query, mask)
    elif query.hybrid or not embedding.any():
        found = _by_score(index, embedding, query, mask, None if allowed is None else mask)
    else:
        found = _by_cosine(index, embedding, query, mask)
    return _hits(index, found, query)


def _by_cosine(
    index: SearchIndex, embedding: FloatVector, query: SearchQuery, mask: BoolMask | None
) -> _Found:
    rows = _nearest_rows(index, embedding, query.k, mask, n_sure=query.k)
    similarities = _similarities(index, embedding, rows)
    return _Found(
        rows=rows,
        similarities=similarities,
        ranked_by=similarities.astype(np.float64),
        passes=_reaches(similarities, query.threshold) & (similarities != 0.0),
    )


def _by_ranks(
    index: SearchIndex, embedding: FloatVector, query: SearchQuery, mask: BoolMask | None
) -> _Found:
    """Candidates in the order of reciprocal ranks."""
    n_candidates = max(_LEAST_RANKED, CANDIDATES_A_HIT * query.k)
    vector_rows = np.empty(0, dtype=np.int64)
    if embedding.any():
        [vector_rows], _ = index.vectors.search(embedding[None], n_candidates, mask)
    tokens = analyse_query(query.text)
    bm25_rows, _ = index.keywords.search(tokens, n_candidates, mask)
    rows, rrf_scores = fuse(vector_rows, bm25_rows, vector_weight=query.vector_weight)
    similarities = index.vectors.similarities(embedding, rows)
    return _Found(
        rows=rows,
        similarities=similarities,
        ranked_by=rrf_scores,
        passes=_reaches(similarities, query.threshold),
        rrf_scores=rrf_scores,
    )


def _by_score(
    index: SearchIndex,
    embedding: FloatVector,
    query: SearchQuery,
    mask: BoolMask | None,
    filtered: BoolMask | None,
) -> _Found:
    """Candidates ordered as `engine.search.ranking` says; `filtered` is a filter's mask alone."""
    tokens = analyse_query(query.text)
    judge = _Judge.of(index, embedding, query, tokens, filtered)
    rows = judge.candidates(query.k, mask)
    scores = judge.scores(rows)
    gate = judge.order_gate(rows, scores) if query.neighbours and judge.hears_both else 0.0
    if gate > 0:
        rows, scores = judge.supported(rows, gate, mask)
    similarities = _similarities(index, embedding, rows)
    shares = judge.lexical.shares(rows)
    # A vector of zeros has no say: there the words decide.
    certainty = np.where(similarities == 0.0, shares, similarities)
    says_something = (similarities != 0.0) | (scores > 0.0)
    most = np.where(similarities >= _SAME_TO_THE_MODEL, 1.0, MOST_BUT_FOR_THE_SAME)
    scores = np.minimum(scores, most)
    return _Found(
        rows=rows,
        similarities=similarities,
        ranked_by=scores,
        passes=says_something
        & _reaches(certainty, query.threshold)
        & _reaches(scores, query.min_score),
        scores=np.maximum(scores, 0.0),
        rrf_scores=_reciprocal(similarities, shares, query.vector_weight),
    )


@dataclass(frozen=True, slots=True)
class _Judge:
    """What one query thinks of any row."""

    index: SearchIndex
    meant: FloatVector
    """The query's vector, its rare words weighing more; all zeros when it says nothing."""
    lexical: LexicalScores
    by_words: RowArray
    """The best rows by their words, best first."""
    vector_weight: float

    @classmethod
    def of(
        cls,
        index: SearchIndex,
        embedding: FloatVector,
        query: SearchQuery,
        tokens: list[str],
        filtered: BoolMask | None,
    ) -> _Judge:
        # A weight of 1 is the vectors' side alone: no word counts, nor how rare it is.
        says_both = embedding.any() and 0 < query.vector_weight < 1
        pieces = query.pieces if says_both else None
        terms_of = {word: analyse(word) for word in pieces.words} if pieces else {}
        first_terms = [terms[0] for terms in terms_of.values() if terms]
        known = statistics(index.keywords, tokens + first_terms, filtered)
        meant = embedding if pieces is None else pooled(pieces, terms_of, known)
        lexical = lexical_scores(index.keywords, tokens, known, filtered)
        by_words = lexical.best_rows(_n_candidates(query.k))
        clear = clearness(index.keywords, tokens, known, by_words)
        weight = weight_of_meaning(query.vector_weight, clear)
        return cls(
            index=index,
            meant=meant,
            lexical=lexical,
            by_words=by_words,
            vector_weight=weight if meant.any() else 0.0,
        )

    @property
    def hears_both(self) -> bool:
        """Whether meaning and words both have a say."""
        return 0 < self.vector_weight < 1

    def candidates(self, k: int, mask: BoolMask | None) -> RowArray:
        """The best rows of each side that has a say, each once, ascending."""
        sides = []
        if self.vector_weight > 0:
            n, n_sure = _n_candidates(k), max(_SURE_CANDIDATES, k)
            sides.append(_nearest_rows(self.index, self.meant, n, mask, n_sure=n_sure))
        if self.vector_weight < 1:
            sides.append(self.by_words)
        return np.unique(np.concatenate(sides))

    def parts(self, rows: RowArray) -> tuple[ScoreArray, ScoreArray, ScoreArray]:
        """Cosines, lexical shares and the weights of the cosines, each shape (len(rows),)."""
        cosines = np.zeros(len(rows))
        if self.vector_weight > 0:
            firsts = self.index.vectors.similarities(self.meant, rows)
            best = self.index.later.best(self.meant, rows)
            cosines = relevance(firsts, *best).astype(np.float64)
        weights = np.where(cosines == 0.0, 0.0, self.vector_weight)
        return cosines, self.lexical.shares(rows), weights

    def scores(self, rows: RowArray) -> ScoreArray:
        """Scores of rows by themselves."""
        return combined(*self.parts(rows))

    def order_gate(self, rows: RowArray, scores: ScoreArray) -> float:
        """How far the best of these rows stand in a meaningful order, 0…1."""
        best = rows[np.argsort(-scores, kind="stable")[:_GATE_CANDIDATES]]
        further = np.concatenate([self.index.rows_beside(best, places) for places in (-2, 2)])
        of, further = np.tile(best, 2)[further >= 0], further[further >= 0]
        vectors = self.index.vectors
        return order_gate(vectors.vectors(of), vectors.vectors(further), self.index.mean_vector)

    def supported(
        self, rows: RowArray, gate: float, mask: BoolMask | None
    ) -> tuple[RowArray, ScoreArray]:
        """These rows and those beside them, ascending, and their scores with support."""
        rows = _with_neighbours(rows, *self._beside(rows, mask))
        before, after = self._beside(rows, mask)
        heard = _with_neighbours(rows, before, after)
        cosines, shares, weights = self.parts(heard)
        given = np.append(support(cosines, shares, weights), 0.0)  # the last one: of none
        own = combined(cosines, shares, weights)[np.searchsorted(heard, rows)]
        best = np.maximum(*(given[_positions(heard, beside)] for beside in (before, after)))
        return rows, own + gate * best

    def _beside(self, rows: RowArray, mask: BoolMask | None) -> tuple[RowArray, RowArray]:
        """The rows before and after each; -1 where there is none that takes part."""
        before, after = self.index.rows_beside(rows, -1), self.index.rows_beside(rows, 1)
        if mask is not None:
            before, after = (np.where((r >= 0) & mask[r], r, -1) for r in (before, after))
        return before, after


def _with_neighbours(rows: RowArray, before: RowArray, after: RowArray) -> RowArray:
    every = np.unique(np.concatenate([rows, before, after]))
    return every[every >= 0]


def _positions(heard: RowArray, rows: RowArray) -> RowArray:
    """Where each row stands in `heard`; one past its end for -1."""
    return np.where(rows >= 0, np.searchsorted(heard, rows), len(heard))


def _n_candidates(k: int) -> int:
    """Of each side."""
    return max(LEAST_CANDIDATES, CANDIDATES_A_HIT * k)


def _nearest_rows(
    index: SearchIndex, embedding: FloatVector, n: int, mask: BoolMask | None, *, n_sure: int
) -> RowArray:
    """The rows of the n most similar first windows and the n most similar later ones."""
    [rows], _ = index.vectors.search(embedding[None], n, mask, n_sure=n_sure)
    return np.union1d(rows[rows >= 0], index.later.nearest_rows(embedding, n, mask, n_sure))


def _similarities(
    index: SearchIndex, embedding: FloatVector, rows: RowArray
) -> npt.NDArray[np.float32]:
    """Cosines of an embedding with memories, each by its best window."""
    firsts = index.vectors.similarities(embedding, rows)
    at, best, _ = index.later.best(embedding, rows)
    return similarity_of_best(firsts, at, best)


def _reaches(values: npt.NDArray[np.floating], bound: float | None) -> BoolMask:
    return np.ones(len(values), dtype=np.bool_) if bound is None else values >= bound


def _reciprocal(
    similarities: npt.NDArray[np.float32], shares: ScoreArray, vector_weight: float
) -> ScoreArray:
    """The reciprocal rank scores that candidates have among themselves."""
    scores = vector_weight / (RRF_K + _ranks(similarities))
    scores += np.where(shares > 0, (1 - vector_weight) / (RRF_K + _ranks(shares)), 0.0)
    return scores


def _ranks(values: npt.NDArray[np.floating]) -> ScoreArray:
    """From 0, of the highest; equal ones in order."""
    ranks = np.empty(len(values))
    ranks[np.argsort(-values, kind="stable")] = np.arange(len(values))
    return ranks


def _hits(index: SearchIndex, found: _Found, query: SearchQuery) -> list[RankedId]:
    passing = np.flatnonzero(found.passes)
    ids = index.ids[found.rows]
    best = pick(found.ranked_by[passing], found.similarities[passing], ids[passing], k=query.k)
    chosen = passing[best]
    bm25_scores = None
    if query.hybrid:
        bm25_scores = index.keywords.scores(analyse_query(query.text), found.rows[chosen])
    return [
        RankedId(
            id=MemoryId(int(ids[at])),
            similarity=float(found.similarities[at]),
            score=_at(found.scores, at),
            rrf_score=_at(found.rrf_scores, at),
            bm25_score=_at(bm25_scores, number),
        )
        for number, at in enumerate(chosen)
    ]


def _at(scores: ScoreArray | None, at: int) -> float | None:
    return None if scores is None else float(scores[at])
