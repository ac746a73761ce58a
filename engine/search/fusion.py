"""Weighted reciprocal rank fusion of the vector and the keyword ranking.

Cormack, Clarke, Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
Learning Methods", SIGIR 2009; weighted, and with ranks from 0.

A search fuses the candidates, computes the similarity of each, and picks the hits:

```python
rows, rrf_scores = fuse(vector_rows, bm25_rows, vector_weight=0.7)
best = pick(rrf_scores, similarities_of(rows), ids[rows], k=5, threshold=0.4)
hits = rows[best]
```
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.records import RowArray, ScoreArray, SearchHit, SearchHits, SearchQuery
from engine.search.by_time import put_in_order

RRF_K: Final = 60


def fuse(
    vector_rows: RowArray, bm25_rows: RowArray, *, vector_weight: float, rrf_k: int = RRF_K
) -> tuple[RowArray, ScoreArray]:
    """Score every candidate `w / (rrf_k + r_vec) + (1 - w) / (rrf_k + r_bm25)`.

    A side that lacks a row adds 0. A side of weight 0 has no say: rows it alone found are left
    out, so that weights of 1 and 0 rank by one side.

    Args:
        vector_rows: the vector side's candidates, best first, each once; -1 pads.
        bm25_rows: the keyword side's, likewise.
        vector_weight: w, 0 to 1.
        rrf_k: the constant that flattens the first ranks.

    Returns:
        The candidates' rows, each once, ascending, and their scores.
    """
    sides = [
        (rows[rows >= 0], weight)
        for rows, weight in ((vector_rows, vector_weight), (bm25_rows, 1 - vector_weight))
        if weight > 0
    ]
    fused = np.unique(np.concatenate([rows for rows, _ in sides]))
    scores = np.zeros(len(fused))
    for rows, weight in sides:
        scores[np.searchsorted(fused, rows)] += weight / (rrf_k + np.arange(len(rows)))
    return fused, scores


def pick(
    scores: ScoreArray,
    similarities: npt.NDArray[np.floating],
    ids: npt.NDArray[np.int64],
    *,
    k: int,
    threshold: float | None = None,
) -> RowArray:
    """Return the positions of the k best candidates, best first.

    Candidates below the threshold are dropped before the cut. Ties are broken by higher
    similarity, then by lower id.

    Args:
        scores: what ranks: fused scores, or the similarities themselves in a vector search.
        similarities: cosine of query and memory, in the order of `scores`.
        ids: memory ids, in the order of `scores`.
        k: positions wanted.
        threshold: least similarity of a hit; None keeps every candidate.
    """
    order = np.lexsort((ids, -similarities, -scores)).astype(np.int64)
    if threshold is not None:
        order = order[similarities[order] >= threshold]
    return order[:k]


def ranks_of(values: npt.NDArray[np.floating]) -> RowArray:
    """From 0, of the highest; equal ones in order."""
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(-values, kind="stable")] = np.arange(len(values))
    return ranks


def best_of(found: Sequence[SearchHits], query: SearchQuery) -> SearchHits:
    """The best hits of several namespaces; scores mean the same whatever else is stored."""
    every = (hit for of_one in found for hit in of_one)
    best = SearchHits(sorted(every, key=lambda h: (-_rank(h), -h.similarity, h.memory.id)))
    del best[query.k :]
    told = [of_one.explanation for of_one in found if of_one.explanation is not None]
    if told:
        best.explanation = reduce(add, told)
    return put_in_order(best, query.order)


def _rank(hit: SearchHit) -> float:
    ranked_by = (hit.score, hit.rrf_score, hit.similarity)
    return next(value for value in ranked_by if value is not None)
