"""What one hybrid search thinks of any memory: its candidates and their scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from engine.records import BoolMask, FloatVector, RowArray, ScoreArray, SearchQuery
from engine.search.ranking import (
    CANDIDATES_A_HIT,
    LEAST_CANDIDATES,
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
from engine.search.vectors.later_windows import relevance
from engine.words.analyser import analyse

_GATE_CANDIDATES: Final = 60
_SURE_CANDIDATES: Final = 30  # more than ever are answers, but for those that the words find too


@dataclass(frozen=True, slots=True)
class Judge:
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
    ) -> Judge:
        """Weigh the query and its words; `filtered` is a filter's mask alone, None without one."""
        # A weight of 1 is the vectors' side alone: no word counts, nor how rare it is.
        says_both = embedding.any() and 0 < query.vector_weight < 1
        pieces = query.pieces if says_both else None
        terms_of = {word: analyse(word) for word in pieces.words} if pieces else {}
        first_terms = [terms[0] for terms in terms_of.values() if terms]
        known = statistics(index.keywords, tokens + first_terms, filtered)
        meant = embedding if pieces is None else pooled(pieces, terms_of, known)
        lexical = lexical_scores(index.keywords, tokens, known, filtered)
        by_words = lexical.best_rows(n_candidates(query.k))
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
            n, n_sure = n_candidates(k), max(_SURE_CANDIDATES, k)
            sides.append(nearest_rows(self.index, self.meant, n, mask, n_sure=n_sure))
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


def n_candidates(k: int) -> int:
    """Of each side."""
    return max(LEAST_CANDIDATES, CANDIDATES_A_HIT * k)


def nearest_rows(
    index: SearchIndex, embedding: FloatVector, n: int, mask: BoolMask | None, *, n_sure: int
) -> RowArray:
    """The rows of the n most similar first windows and the n most similar later ones."""
    [rows], _ = index.vectors.search(embedding[None], n, mask, n_sure=n_sure)
    return np.union1d(rows[rows >= 0], index.later.nearest_rows(embedding, n, mask, n_sure))
