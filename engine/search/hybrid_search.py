"""Searches of one `SearchIndex`: candidates from both sides, scored, the best of them picked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from engine.records import (
    BoolMask,
    Dropped,
    FloatVector,
    HitExplanation,
    IdArray,
    MemoryId,
    RowArray,
    ScoreArray,
    SearchExplanation,
    SearchQuery,
)
from engine.search import explanation
from engine.search.explanation import Reasons
from engine.search.fusion import RRF_K, fuse, pick, ranks_of
from engine.search.judge import Judge, nearest_rows
from engine.search.ranking import (
    CANDIDATES_A_HIT,
    MOST_BUT_FOR_THE_SAME,
)
from engine.search.search_index import SearchIndex
from engine.search.vectors.later_windows import similarity_of_best
from engine.words.analyser import analyse_query

_LEAST_RANKED = 60
_SAME_TO_THE_MODEL = 0.9999


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedId:
    """One hit, before its record is fetched. Scores as in `engine.records.SearchHit`."""

    id: MemoryId
    similarity: float
    score: float | None = None
    rrf_score: float | None = None
    bm25_score: float | None = None
    explanation: HitExplanation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedIds:
    """The hits of one search, best first."""

    hits: list[RankedId]
    explanation: SearchExplanation | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Candidates that may be hits, in any order."""

    rows: RowArray
    similarities: npt.NDArray[np.float32]
    ranked_by: ScoreArray
    says_something: BoolMask
    """Whether it can be a hit at all."""
    reaches: BoolMask
    """Whether the bounds that were asked for let it through."""
    reasons: Callable[[RowArray], Reasons]
    """What explains the candidates at these positions."""
    scores: ScoreArray | None = None
    rrf_scores: ScoreArray | None = None


def search(
    index: SearchIndex,
    embedding: FloatVector,
    query: SearchQuery,
    allowed: IdArray | None = None,
    recency: Callable[[IdArray], ScoreArray] | None = None,
) -> RankedIds:
    """The best memories for a query.

    An embedding of zeros says nothing: then the words alone rank, whatever is asked for.

    Args:
        index: not changed meanwhile.
        embedding: shape (dim,), float32, L2-normalised, or all zeros.
        query: what is wanted; its filter is already resolved to `allowed`.
        allowed: the ids that take part; None for all.
        recency: what the scores of these ids are multiplied by; None: by 1.

    Returns:
        At most k hits, best first, whatever order is asked for; ties by similarity, then by lower
        id.
    """
    mask = index.mask(allowed)
    if query.hybrid and query.fusion == "rrf":
        found = _by_ranks(index, embedding, query, mask)
    elif query.hybrid or not embedding.any():
        filtered = None if allowed is None else mask
        found = _by_score(index, embedding, query, mask, filtered, recency)
    else:
        found = _by_cosine(index, embedding, query, mask)
    hits = _hits(index, found, query)
    told = _explanation(index, found, mask) if query.explain else None
    return RankedIds(hits=hits, explanation=told)


def _by_cosine(
    index: SearchIndex, embedding: FloatVector, query: SearchQuery, mask: BoolMask | None
) -> _Found:
    rows = nearest_rows(index, embedding, query.k, mask, n_sure=query.k)
    similarities = _similarities(index, embedding, rows)
    return _Found(
        rows=rows,
        similarities=similarities,
        ranked_by=similarities.astype(np.float64),
        says_something=similarities != 0.0,
        reaches=_reaches(similarities, query.threshold),
        reasons=partial(explanation.by_cosine, similarities),
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
        says_something=np.ones(len(rows), dtype=np.bool_),
        reaches=_reaches(similarities, query.threshold),
        reasons=partial(explanation.by_ranks, rows, vector_rows, bm25_rows, query.vector_weight),
        rrf_scores=rrf_scores,
    )


def _by_score(
    index: SearchIndex,
    embedding: FloatVector,
    query: SearchQuery,
    mask: BoolMask | None,
    filtered: BoolMask | None,
    recency: Callable[[IdArray], ScoreArray] | None,
) -> _Found:
    """Candidates ordered as `engine.search.ranking` says; `filtered` is a filter's mask alone."""
    tokens = analyse_query(query.text)
    judge = Judge.of(index, embedding, query, tokens, filtered)
    rows = judge.candidates(query.k, mask)
    scores = judge.scores(rows)
    gate = judge.order_gate(rows, scores) if query.neighbours and judge.hears_both else 0.0
    if gate > 0:
        rows, scores = judge.supported(rows, gate, mask)
    similarities = _similarities(index, embedding, rows)
    shares = judge.lexical.shares(rows)
    # A vector of zeros has no say: there the words decide.
    certainty = np.where(similarities == 0.0, shares, similarities)
    most = np.where(similarities >= _SAME_TO_THE_MODEL, 1.0, MOST_BUT_FOR_THE_SAME)
    fresh = np.ones(len(rows)) if recency is None else recency(index.ids[rows])
    bounded = np.minimum(scores, most) * fresh
    return _Found(
        rows=rows,
        similarities=similarities,
        ranked_by=bounded,
        says_something=(similarities != 0.0) | (scores > 0.0),
        reaches=_reaches(certainty, query.threshold) & _reaches(bounded, query.min_score),
        reasons=partial(explanation.by_score, judge, rows, similarities, scores, fresh),
        scores=np.maximum(bounded, 0.0),
        rrf_scores=_reciprocal(similarities, shares, query.vector_weight),
    )


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
    scores: ScoreArray = vector_weight / (RRF_K + ranks_of(similarities))
    scores += np.where(shares > 0, (1 - vector_weight) / (RRF_K + ranks_of(shares)), 0.0)
    return scores


def _hits(index: SearchIndex, found: _Found, query: SearchQuery) -> list[RankedId]:
    passing = np.flatnonzero(found.says_something & found.reaches)
    ids = index.ids[found.rows]
    best = pick(found.ranked_by[passing], found.similarities[passing], ids[passing], k=query.k)
    chosen = passing[best]
    rows = found.rows[chosen]
    bm25_scores = None
    if query.hybrid:
        bm25_scores = index.keywords.scores(analyse_query(query.text), rows)
    told: list[HitExplanation | None] = [None] * len(chosen)
    if query.explain:
        told[:] = explanation.explained(index.keywords, query.text, rows, found.reasons(chosen))
    return [
        RankedId(
            id=MemoryId(int(ids[at])),
            similarity=float(found.similarities[at]),
            score=_at(found.scores, at),
            rrf_score=_at(found.rrf_scores, at),
            bm25_score=_at(bm25_scores, number),
            explanation=told[number],
        )
        for number, at in enumerate(chosen)
    ]


def _explanation(index: SearchIndex, found: _Found, mask: BoolMask | None) -> SearchExplanation:
    taking_part = len(index) if mask is None else int(np.count_nonzero(mask))
    return SearchExplanation(
        candidates=int(np.count_nonzero(found.says_something)),
        dropped=Dropped(
            threshold=int(np.count_nonzero(found.says_something & ~found.reaches)),
            filter=len(index) - taking_part,
        ),
    )


def _at(scores: ScoreArray | None, at: int) -> float | None:
    return None if scores is None else float(scores[at])
