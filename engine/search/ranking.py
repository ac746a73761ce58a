"""What a hybrid search ranks by: how much of the query a memory says, by meaning and by word.

    score = w · cos(q, memory) + (1 - w) · lex + support of the memories beside it

- q weighs the query's word pieces by how rare their words are in the store: its plain embedding
  is vague where a name stands among common words.
- lex is a BM25 for short texts, as a share of the best memory's, times the share of the query
  that this best one holds: it does not promise more than the words found.
- Where one memory's words leave all others far behind, as an exact name does, w shrinks: meaning
  has little to add, and similar memories much to spoil.
- A memory of a source that is told in order (a dialogue, a file) is supported by the one before or
  after it. How far a source is told in order is seen on the candidates.

Scores lie in 0…1 and compare between queries and stores. Figures: docs/recall.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from engine.records import (
    BoolMask,
    FloatMatrix,
    FloatVector,
    QueryPieces,
    RowArray,
    ScoreArray,
)
from engine.search.bm25 import BM25Index, top_rows

LEAST_CANDIDATES: Final = 100
CANDIDATES_A_HIT: Final = 3

_LEAST_PIECE_WEIGHT: Final = 0.05
_K1: Final = 1.5
_PRIOR_LENGTH: Final = 80  # terms; short texts differ in length by chance
_SURE_TERMS: Final = 4  # a query of more is well answered by some of them
MOST_BUT_FOR_THE_SAME: Final = 0.99
"""Of a score: a memory that has all words of a query does not say the same yet."""
_VECTOR_SUPPORT: Final = 0.1
_WORD_SUPPORT: Final = 0.3
_LEADERS: Final = 10
_CLEAR_FROM: Final = 0.3  # lead of the best memory over the second, by the rarity of its words
_CLEAR_WIDTH: Final = 0.3
_LEFT_TO_MEANING: Final = 0.05  # of its weight, where the words are clear: it still finds others
_ORDER_FROM: Final = 0.08  # likeness of memories two places apart, beyond chance
_ORDER_WIDTH: Final = 0.12


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What the memories that take part are like."""

    n: int
    average_length: float
    """In terms."""
    df: Mapping[str, int]
    """By term; of those asked for."""

    def idf(self, term: str) -> float:
        """ln(1 + (n - df + 0.5) / (df + 0.5)), never negative; the largest for an unknown term."""
        df = self.df[term]
        return math.log1p((self.n - df + 0.5) / (df + 0.5))


@dataclass(frozen=True, slots=True, kw_only=True)
class LexicalScores:
    """How well the query's words are found."""

    scores: ScoreArray
    """Shape (n_rows,); 0 without a word."""
    scale: float
    """What makes them a share of the query, 0…1."""

    def shares(self, rows: RowArray) -> ScoreArray:
        """The lexical part of the scores of some rows, 0…1."""
        return self.scores[rows] * self.scale

    def best_rows(self, n: int) -> RowArray:
        """The n best of the rows that hold a word of the query."""
        found = np.flatnonzero(self.scores > 0)
        return top_rows(found, self.scores[found], n)[0]


def statistics(keywords: BM25Index, terms: Sequence[str], allowed: BoolMask | None) -> Statistics:
    """Statistics of all documents, or of the `allowed` ones, shape (n_rows,)."""
    wanted = dict.fromkeys(terms)
    if allowed is None:
        return Statistics(
            n=keywords.n_documents,
            average_length=keywords.average_length,
            df={term: keywords.df(term) for term in wanted},
        )
    n = int(np.count_nonzero(allowed))
    return Statistics(
        n=n,
        average_length=float(keywords.doc_lens[allowed].sum()) / max(n, 1),
        df={
            term: sum(int(allowed[rows].sum()) for rows, _ in keywords.postings(term))
            for term in wanted
        },
    )


def lexical_scores(
    keywords: BM25Index, tokens: Sequence[str], known: Statistics, allowed: BoolMask | None
) -> LexicalScores:
    """Score every row by the query's words.

    L = Σ count · idf · (k1 + 1) tf / (tf + k1 (length + 80) / (average length + 80)), made a share
    of the best L, times how much of the query's idf the best L amounts to.

    Args:
        keywords: the index.
        tokens: the analysed query.
        known: statistics that have every token.
        allowed: shape (n_rows,), the rows that take part; None for all that hold a document.
    """
    scores = np.zeros(keywords.n_rows)
    counts = Counter(tokens)
    norms = _K1 / (known.average_length + _PRIOR_LENGTH)
    for term, count in counts.items():
        weight = count * known.idf(term) * (_K1 + 1)
        for rows, tfs in keywords.postings(term):
            lengths = keywords.doc_lens[rows].astype(np.float64) + _PRIOR_LENGTH
            scores[rows] += weight * tfs / (tfs + norms * lengths)
    if allowed is not None or keywords.n_documents < keywords.n_rows:
        scores *= keywords.live if allowed is None else allowed
    best = float(scores.max(initial=0.0))
    if best == 0.0:
        return LexicalScores(scores=scores, scale=0.0)
    mass = sum(known.idf(term) for term in counts) * min(1.0, _SURE_TERMS / len(counts))
    return LexicalScores(scores=scores, scale=MOST_BUT_FOR_THE_SAME * min(1.0, best / mass) / best)


def clearness(
    keywords: BM25Index, tokens: Sequence[str], known: Statistics, by_words: RowArray
) -> float:
    """How clearly one memory answers by its words, 0…1: an exact name leaves all others far behind.

    By the squared idf of the query's words that it has: one rare word outweighs several common
    ones, which others may have together.

    Args:
        keywords: the index.
        tokens: the analysed query.
        known: statistics that have every token.
        by_words: the best rows by their words, best first.
    """
    rows = by_words[:_LEADERS]
    if not len(rows):
        return 0.0
    masses, total = np.zeros(max(len(rows), 2)), 0.0
    for term in dict.fromkeys(tokens):
        mass = known.idf(term) ** 2
        total += mass
        masses[: len(rows)] += mass * keywords.holds(term, rows)
    second, first = np.sort(masses)[-2:] / total
    return min(1.0, max(0.0, (float(first - second) - _CLEAR_FROM) / _CLEAR_WIDTH))


def pooled(
    pieces: QueryPieces, terms_of: Mapping[str, Sequence[str]], known: Statistics
) -> FloatVector:
    """The query's hidden rows, weighted by the rarity of their words, normalised; shape (dim,).

    Args:
        pieces: of the query.
        terms_of: the terms of each of its words.
        known: statistics that have the first term of each word.
    """
    idfs = np.array([_word_idf(terms_of[word], known) for word in pieces.words] + [0.0])
    of_piece = idfs[pieces.word_of]  # -1, of no word, is the last one
    mean = float(of_piece.mean())
    weights = of_piece / mean + _LEAST_PIECE_WEIGHT if mean > 0 else np.ones(len(of_piece))
    total = weights.astype(np.float32) @ pieces.rows.astype(np.float32)
    vector: FloatVector = total / np.linalg.norm(total)
    return vector


def _word_idf(terms: Sequence[str], known: Statistics) -> float:
    """Of a word as a whole; 0 for punctuation."""
    if not terms:
        return 0.0
    return max(0.0, math.log((known.n + 1) / (known.df[terms[0]] + 0.5)))


def order_gate(vectors: FloatMatrix, further: FloatMatrix, mean_vector: FloatVector) -> float:
    """How far the candidates stand in an order that means something, 0…1.

    Args:
        vectors: shape (n, dim), of candidates.
        further: shape (n, dim), of the memories two places away from them: one place away would
            be alike already where a text was cut in its middle.
        mean_vector: shape (dim,), of the store: what two memories have in common by chance.
    """
    if not len(vectors):
        return 0.0
    by_chance = float(mean_vector @ mean_vector)
    cosines = np.einsum("nd,nd->n", vectors, further)
    likeness = (float(cosines.mean()) - by_chance) / max(1e-6, 1 - by_chance)
    return min(1.0, max(0.0, (likeness - _ORDER_FROM) / _ORDER_WIDTH))


def weight_of_meaning(asked: float, clear: float) -> float:
    """The weight of the cosine: what was asked for, less where the words leave no doubt."""
    return asked * (1 - (1 - _LEFT_TO_MEANING) * clear) if asked < 1 else asked


def support(cosines: ScoreArray, shares: ScoreArray, vector_weights: ScoreArray) -> ScoreArray:
    """What a memory gives to the one beside it, before the gate."""
    given = _VECTOR_SUPPORT * vector_weights * cosines
    given += _WORD_SUPPORT * (1 - vector_weights) * shares
    return np.maximum(given, 0.0)


def combined(cosines: ScoreArray, shares: ScoreArray, vector_weights: ScoreArray) -> ScoreArray:
    """The score without support: w · cosine + (1 - w) · lex."""
    return vector_weights * cosines + (1 - vector_weights) * shares
