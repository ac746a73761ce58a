"""Why a hit is one: its ranks, the words it has, what its score is made of.

Computed for the hits alone, after they were picked, and only when asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.records import HitExplanation, RowArray, ScoreArray, ScoreParts
from engine.search.bm25 import BM25Index
from engine.search.fusion import RRF_K, ranks_of
from engine.search.judge import Judge
from engine.words.analyser import words_of_query

MOST_WORDS: Final = 100
"""Of a query, that are looked for in each hit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasons:
    """For several hits, in order; every array has shape (n,)."""

    vector_ranks: RowArray
    """From 0; -1 for none."""
    bm25_ranks: RowArray
    """Likewise."""
    meaning: ScoreArray
    words: ScoreArray
    neighbours: ScoreArray
    recency: ScoreArray


def by_cosine(similarities: npt.NDArray[np.float32], chosen: RowArray) -> Reasons:
    """Reasons of the candidates at `chosen` in a search by meaning alone."""
    none = np.zeros(len(chosen))
    return Reasons(
        vector_ranks=ranks_of(similarities)[chosen],
        bm25_ranks=np.full(len(chosen), -1),
        meaning=similarities[chosen].astype(np.float64),
        words=none,
        neighbours=none,
        recency=none + 1,
    )


def by_ranks(
    rows: RowArray,
    vector_rows: RowArray,
    bm25_rows: RowArray,
    vector_weight: float,
    chosen: RowArray,
) -> Reasons:
    """Likewise, in a fusion of these two rankings; a side of weight 0 has no say."""
    sides = []
    for ranked, weight in ((vector_rows, vector_weight), (bm25_rows, 1 - vector_weight)):
        place_of = {int(row): place for place, row in enumerate(ranked) if row >= 0 and weight > 0}
        ranks = np.array([place_of.get(int(row), -1) for row in rows[chosen]], dtype=np.int64)
        sides.append((ranks, np.where(ranks >= 0, weight / (RRF_K + ranks), 0.0)))
    none = np.zeros(len(chosen))
    (vector_ranks, meaning), (bm25_ranks, words) = sides
    return Reasons(
        vector_ranks=vector_ranks,
        bm25_ranks=bm25_ranks,
        meaning=meaning,
        words=words,
        neighbours=none,
        recency=none + 1,
    )


def by_score(
    judge: Judge,
    rows: RowArray,
    similarities: npt.NDArray[np.float32],
    scores: ScoreArray,
    recency: ScoreArray,
    chosen: RowArray,
) -> Reasons:
    """Likewise, where a judge's `scores`, not bounded yet, and then `recency` ranked."""
    shares = judge.lexical.shares(rows)
    cosines, lex, weights = judge.parts(rows[chosen])
    meaning, words = weights * cosines, (1 - weights) * lex
    return Reasons(
        vector_ranks=np.where(similarities != 0.0, ranks_of(similarities), -1)[chosen],
        bm25_ranks=np.where(shares > 0, ranks_of(shares), -1)[chosen],
        meaning=meaning,
        words=words,
        neighbours=np.maximum(scores[chosen] - meaning - words, 0.0),
        recency=recency[chosen],
    )


def explained(
    keywords: BM25Index, text: str, rows: RowArray, reasons: Reasons
) -> list[HitExplanation]:
    """The explanation of each hit of a query, given their rows."""
    return [
        HitExplanation(
            vector_rank=_rank(reasons.vector_ranks[at]),
            bm25_rank=_rank(reasons.bm25_ranks[at]),
            matched=matched,
            score=ScoreParts(
                meaning=float(reasons.meaning[at]),
                words=float(reasons.words[at]),
                neighbours=float(reasons.neighbours[at]),
                recency=float(reasons.recency[at]),
            ),
        )
        for at, matched in enumerate(_matched(keywords, text, rows))
    ]


def _rank(rank: np.int64) -> int | None:
    return int(rank) if rank >= 0 else None


def _matched(keywords: BM25Index, text: str, rows: RowArray) -> list[list[str]]:
    """Which words of a query each row has: whole as they are written, or those of their terms."""
    found: list[dict[str, None]] = [{} for _ in rows]
    for word, terms in islice(words_of_query(text).items(), MOST_WORDS):
        has = {term: keywords.holds(term, rows) for term in terms}
        whole = np.logical_and.reduce([*has.values()])
        for at in np.flatnonzero(whole).tolist():
            found[at][word] = None
        for term, holds in has.items() if len(has) > 1 else ():
            for at in np.flatnonzero(holds & ~whole).tolist():
                found[at][term] = None
    return [list(matched) for matched in found]
