"""How well one ranking answers one query that has judgements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

K = 10

MEASURES = ("ndcg@10", "recall@10", "recall@5", "mrr")


def measured(ranked_ids: Sequence[str], grades: Mapping[str, int]) -> tuple[float, ...]:
    """The values of `MEASURES` for hits, best first, of which the first ten count.

    Args:
        ranked_ids: documents found.
        grades: of each judged document, at least one above 0.
    """
    ranked = [grades.get(document_id, 0) for document_id in ranked_ids[:K]]
    n_relevant = sum(grade > 0 for grade in grades.values())
    hits = [grade > 0 for grade in ranked]
    return (
        ndcg(ranked, list(grades.values()), K),
        sum(hits) / n_relevant,
        sum(hits[:5]) / n_relevant,
        1 / (hits.index(True) + 1) if any(hits) else 0.0,
    )


def ndcg(ranked_grades: Sequence[int], all_grades: Sequence[int], k: int) -> float:
    """Normalised discounted cumulative gain at k, with the grade as gain, as trec_eval does it.

    Args:
        ranked_grades: grade of each hit, best hit first; 0 for one without a judgement.
        all_grades: every grade that the query's judgements give.
        k: hits that count.
    """

    def dcg(grades: Sequence[int]) -> float:
        gains = np.array([max(grade, 0) for grade in grades[:k]], np.float64)
        return float((gains / np.log2(np.arange(len(gains)) + 2)).sum())

    ideal = dcg(sorted(all_grades, reverse=True))
    return dcg(ranked_grades) / ideal if ideal else 0.0
