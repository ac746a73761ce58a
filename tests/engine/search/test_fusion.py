from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.records import RowArray
from engine.search.fusion import fuse, pick

rankings = st.lists(st.integers(0, 40), unique=True, max_size=20)


def rows_of(values: Sequence[int]) -> RowArray:
    return np.array(values, dtype=np.int64)


def ranked(vector: Sequence[int], bm25: Sequence[int], weight: float) -> list[int]:
    """The fused rows, best first, where similarity falls as the row rises."""
    rows, scores = fuse(rows_of(vector), rows_of(bm25), vector_weight=weight)
    best = pick(scores, -rows.astype(np.float64), rows, k=100)
    return [int(row) for row in rows[best]]


def test_scores_are_those_of_the_formula_with_ranks_from_zero() -> None:
    rows, scores = fuse(rows_of([7, 3]), rows_of([3, 9]), vector_weight=0.7)

    assert rows.tolist() == [3, 7, 9]
    np.testing.assert_allclose(scores, [0.7 / 61 + 0.3 / 60, 0.7 / 60, 0.3 / 61], rtol=1e-12)


@given(vector=rankings, bm25=rankings, weight=st.floats(0.01, 0.99), rrf_k=st.integers(1, 100))
def test_every_candidate_of_either_side_is_scored_once(
    vector: list[int], bm25: list[int], weight: float, rrf_k: int
) -> None:
    expected: dict[int, float] = {}
    for side, side_weight in ((vector, weight), (bm25, 1 - weight)):
        for rank, row in enumerate(side):
            expected[row] = expected.get(row, 0.0) + side_weight / (rrf_k + rank)

    rows, scores = fuse(rows_of(vector), rows_of(bm25), vector_weight=weight, rrf_k=rrf_k)

    assert dict(zip(rows.tolist(), scores.tolist(), strict=True)) == pytest.approx(expected)


@given(vector=rankings, bm25=rankings)
def test_a_weight_of_one_or_zero_ranks_by_one_side_alone(
    vector: list[int], bm25: list[int]
) -> None:
    assert ranked(vector, bm25, 1.0) == vector
    assert ranked(vector, bm25, 0.0) == bm25


def test_padding_is_no_candidate() -> None:
    assert ranked([5, -1, -1], [-1], 0.7) == [5]


def test_two_empty_sides_fuse_to_nothing() -> None:
    rows, scores = fuse(rows_of([]), rows_of([]), vector_weight=0.7)

    assert rows.size == scores.size == pick(scores, scores, rows, k=5, threshold=0.5).size == 0


def test_ties_go_to_the_higher_similarity_then_to_the_lower_id() -> None:
    scores = np.array([0.5, 0.5, 0.5, 0.9])
    similarities = np.array([0.2, 0.8, 0.8, 0.1], dtype=np.float32)

    assert pick(scores, similarities, rows_of([1, 9, 4, 7]), k=4).tolist() == [3, 2, 1, 0]


def test_the_threshold_drops_candidates_before_the_cut() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    similarities = np.array([0.1, 0.5, 0.49, 0.7])

    assert pick(scores, similarities, np.arange(4), k=2, threshold=0.5).tolist() == [1, 3]
