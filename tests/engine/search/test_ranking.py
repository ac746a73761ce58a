from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.records import BoolMask, QueryPieces
from engine.search.bm25 import BM25Index
from engine.search.ranking import (
    clearness,
    combined,
    lexical_scores,
    order_gate,
    pooled,
    statistics,
    support,
    weight_of_meaning,
)

TERMS = "abcdef"
documents = st.lists(st.lists(st.sampled_from(TERMS), max_size=12), min_size=1, max_size=12)


def index_of(texts: list[list[str]]) -> BM25Index:
    index = BM25Index()
    for row, tokens in enumerate(texts):
        index.add(row, tokens)
    return index


def expected_scores(texts: list[list[str]], query: list[str]) -> list[float]:
    """Okapi for short texts and its confidence, term by term as RECALL.md writes them."""
    n, average = len(texts), sum(map(len, texts)) / len(texts)
    terms = sorted(set(query))
    dfs = {term: sum(term in text for text in texts) for term in terms}
    idf = {t: math.log(1 + (n - dfs[t] + 0.5) / (dfs[t] + 0.5)) for t in terms}
    raw = [
        sum(
            query.count(t) * idf[t] * 2.5 * tf / (tf + 1.5 * (len(text) + 80) / (average + 80))
            for t in terms
            if (tf := text.count(t))
        )
        for text in texts
    ]
    best = max(raw)
    confidence = 0.99 * min(1.0, best / (sum(idf.values()) * min(1, 4 / len(terms))))
    return [confidence * value / best if best else 0.0 for value in raw]


@given(
    texts=documents,
    query=st.lists(st.sampled_from(TERMS + "xy"), min_size=1, max_size=6),
    mask=st.lists(st.booleans(), min_size=12, max_size=12),
    filtered=st.booleans(),
)
def test_the_lexical_part_is_that_of_the_formula_over_what_takes_part(
    texts: list[list[str]], query: list[str], mask: list[bool], filtered: bool
) -> None:
    allowed: BoolMask | None = np.array(mask[: len(texts)]) if filtered else None
    index = index_of(texts)
    taking_part = np.flatnonzero(np.ones(len(texts)) if allowed is None else allowed)

    found = lexical_scores(index, query, statistics(index, query, allowed), allowed)

    shares = found.shares(np.arange(len(texts)))
    expected = np.zeros(len(texts))
    if len(taking_part):
        expected[taking_part] = expected_scores([texts[i] for i in taking_part], query)
    np.testing.assert_allclose(shares, expected, atol=1e-12)
    assert set(found.best_rows(99).tolist()) == set(np.flatnonzero(expected).tolist())


def test_a_removed_document_has_no_part_in_it() -> None:
    index = index_of([["a", "b"], ["a", "a", "c"], ["b"]])
    index.remove(1, ["a", "a", "c"])

    found = lexical_scores(index, ["a", "c"], statistics(index, ["a", "c"], None), None)

    expected = expected_scores([["a", "b"], ["b"]], ["a", "c"])
    np.testing.assert_allclose(found.shares(np.arange(3)), [expected[0], 0, expected[1]])


def test_a_rare_word_turns_the_query_towards_itself() -> None:
    pieces = QueryPieces(
        rows=np.eye(4, dtype=np.float16),
        word_of=np.array([-1, 0, 1, 2], np.int16),
        words=["where", "lisbon", "?"],
    )
    index = index_of([["where"], ["where"], ["where"], ["lisbon"]])
    known = statistics(index, ["where", "lisbon"], None)

    vector = pooled(pieces, {"where": ["where"], "lisbon": ["lisbon"], "?": []}, known)

    rare, common = math.log(5 / 1.5), math.log(5 / 3.5)
    weights = np.array([0, common, rare, 0]) / ((rare + common) / 4) + 0.05
    np.testing.assert_allclose(vector, weights / np.linalg.norm(weights), rtol=1e-6)


def test_words_that_every_memory_has_leave_the_plain_mean() -> None:
    pieces = QueryPieces(
        rows=np.eye(2, dtype=np.float16), word_of=np.array([0, 0], np.int16), words=["a"]
    )
    known = statistics(index_of([["a"]] * 9), ["a"], None)

    np.testing.assert_allclose(pooled(pieces, {"a": ["a"]}, known), [math.sqrt(0.5)] * 2)


@pytest.mark.parametrize(("cosine", "gate"), [(0.0, 0.0), (0.08, 0.0), (0.14, 0.5), (0.9, 1.0)])
def test_the_gate_opens_with_the_likeness_of_what_stands_apart(cosine: float, gate: float) -> None:
    vectors = np.tile(np.array([1, 0], np.float32), (5, 1))
    further = np.tile(np.array([cosine, math.sqrt(1 - cosine**2)], np.float32), (5, 1))

    assert order_gate(vectors, further, np.zeros(2, np.float32)) == pytest.approx(gate, abs=1e-5)
    assert order_gate(vectors, further, np.array([1, 0], np.float32)) == 0.0
    assert order_gate(vectors[:0], further[:0], np.zeros(2, np.float32)) == 0.0


def test_score_and_support_are_those_of_the_formulas() -> None:
    cosines, shares, weights = (
        np.array([0.5, -0.4, 0.0]),
        np.array([0.2, 0, 1]),
        np.array([0.7, 0.7, 0]),
    )

    np.testing.assert_allclose(combined(cosines, shares, weights), [0.41, -0.28, 1.0])
    np.testing.assert_allclose(support(cosines, shares, weights), [0.053, 0.0, 0.3])


def test_a_name_that_one_document_has_leaves_little_to_meaning() -> None:
    index = index_of([["ticket", "ops41"], *([["ticket", f"ops{n}"] for n in range(50, 60)])])

    def clear(*query: str) -> float:
        known = statistics(index, query, None)
        return clearness(
            index, query, known, lexical_scores(index, query, known, None).best_rows(99)
        )

    assert clear("ticket", "ops41") == 1.0
    assert clear("ticket") == 0.0
    assert clear("unseen") == 0.0
    assert clear("ticket", "ops41", "ops50") == 0.0, "two names, of two documents"
    assert weight_of_meaning(0.7, 1.0) == pytest.approx(0.035)
    assert weight_of_meaning(0.7, 0.0) == 0.7
    assert weight_of_meaning(1.0, 1.0) == 1.0
