"""The keyword index against `rank_bm25` itself, and a dict of documents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from rank_bm25 import BM25Okapi

from engine.search.bm25 import BM25Index

# Few and unequally common terms, so that negative and zero idfs, ties and shared terms abound.
words = st.sampled_from([*["the"] * 3, *["of"] * 2, "cat", "dog", "sat", "mat", "\n", "été", "猫"])
documents = st.lists(words, max_size=12)
queries = st.lists(words | st.just("absent"), max_size=8)


def index_of(corpus: Sequence[Sequence[str]]) -> BM25Index:
    index = BM25Index()
    for row, tokens in enumerate(corpus):
        index.add(row, tokens)
    return index


def okapi_scores(corpus: Sequence[Sequence[str]], query: Sequence[str]) -> npt.NDArray[np.float64]:
    """What rank_bm25 says; it cannot be built on a corpus without a term."""
    if not any(corpus):
        return np.zeros(len(corpus))
    return np.asarray(BM25Okapi(corpus).get_scores(query), dtype=np.float64)


def assert_searches_as_okapi(
    index: BM25Index,
    corpus: dict[int, list[str]],
    query: list[str],
    k: int,
    allowed: npt.NDArray[np.bool_] | None = None,
) -> None:
    """The k best of the allowed documents with a query term, ordered by score, then by row."""
    scores = dict(zip(corpus, okapi_scores(list(corpus.values()), query).tolist(), strict=True))
    matching = {
        row
        for row, tokens in corpus.items()
        if set(tokens) & set(query) and (allowed is None or allowed[row])
    }
    rows, found = index.search(query, k, allowed)

    assert len(set(rows.tolist())) == len(rows) == min(k, len(matching))
    assert set(rows.tolist()) <= matching
    np.testing.assert_allclose(found, [scores[row] for row in rows.tolist()], atol=1e-9, rtol=0)
    keys = list(zip((-found).tolist(), rows.tolist(), strict=True))
    assert keys == sorted(keys)
    left_out = [scores[row] for row in matching - set(rows.tolist())]
    assert not left_out or not len(rows) or max(left_out) <= found[-1] + 1e-9
    np.testing.assert_allclose(
        index.scores(query, np.array(list(corpus), dtype=np.int64)),
        list(scores.values()),
        atol=1e-9,
        rtol=0,
    )


class IncrementalIndex(RuleBasedStateMachine):
    """Random writes, compactions and reloads; every search agrees with a rebuilt rank_bm25."""

    def __init__(self) -> None:
        super().__init__()
        self.index = BM25Index()
        self.corpus: dict[int, list[str]] = {}

    @rule(tokens=documents, gap=st.sampled_from([0, 0, 0, 0, 2]))
    def add(self, tokens: list[str], gap: int) -> None:
        row = self.index.n_rows + gap
        self.index.add(row, tokens)
        self.corpus[row] = tokens

    @precondition(lambda self: self.corpus)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(sorted(self.corpus)))
        self.index.remove(row, self.corpus.pop(row)[::-1])

    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        n = self.index.n_rows
        kept = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), dtype=bool)
        self.index = self.index.compacted(kept)
        renumbered = {int(row): position for position, row in enumerate(np.flatnonzero(kept))}
        self.corpus = {
            renumbered[row]: tokens for row, tokens in self.corpus.items() if row in renumbered
        }

    @rule()
    def reload(self) -> None:
        self.index = BM25Index.from_arrays(self.index.to_arrays())

    @rule(query=queries, k=st.integers(0, 6), data=st.data())
    def search(self, query: list[str], k: int, data: st.DataObject) -> None:
        n = self.index.n_rows
        mask = data.draw(st.none() | st.lists(st.booleans(), min_size=n, max_size=n))
        allowed = None if mask is None else np.array(mask, dtype=bool)
        assert_searches_as_okapi(self.index, self.corpus, query, k, allowed)

    @invariant()
    def counts_are_those_of_the_documents(self) -> None:
        assert self.index.n_documents == len(self.corpus)
        assert self.index.n_terms == len(set().union(*self.corpus.values()))


TestIncrementalIndex = IncrementalIndex.TestCase
TestIncrementalIndex.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@given(corpus=st.lists(documents, min_size=1, max_size=40), query=queries)
@settings(deadline=None)
def test_scores_are_those_of_rank_bm25(corpus: list[list[str]], query: list[str]) -> None:
    index = index_of(corpus)

    scores = index.scores(query, np.arange(len(corpus)))

    np.testing.assert_allclose(scores, okapi_scores(corpus, query), atol=1e-9, rtol=0)


def test_a_single_document_is_found_though_its_score_is_negative() -> None:
    index = index_of([["red", "fox"]])

    rows, scores = index.search(["fox"], k=5)

    assert rows.tolist() == [0]
    assert scores[0] < 0


def test_equal_scores_come_in_order_of_row() -> None:
    index = index_of([["a", "b"], ["c", "b", "b"], ["c", "d"], ["e", "d"], ["f", "d"]] * 100)

    expected = [*range(1, 500, 5), *range(0, 500, 5)]
    assert index.search(["b"], k=500)[0].tolist() == expected
    assert index.search(["b"], k=130)[0].tolist() == expected[:130]


def test_a_repeated_query_term_counts_each_time() -> None:
    index = index_of([["cat"], ["dog"], ["owl"], ["cow"]])
    row = np.array([0])

    assert index.scores(["cat", "cat"], row) == pytest.approx(2 * index.scores(["cat"], row))


def test_rows_that_hold_no_document_score_zero() -> None:
    index = index_of([["cat"], ["cat"], ["dog"], ["owl"], ["cow"]])
    index.remove(1, ["cat"])

    scores = index.scores(["cat"], np.array([-1, 0, 1, 5]))

    assert scores[1] > 0
    assert scores[[0, 2, 3]].tolist() == [0.0, 0.0, 0.0]


def test_a_term_frequency_of_any_size_survives_packing() -> None:
    corpus = [["a"] * 70_000 + ["b"], ["b"] * 300, ["c"], ["d"], ["e"]]
    packed = BM25Index.from_arrays(index_of(corpus).to_arrays())

    np.testing.assert_allclose(
        packed.scores(["a", "b"], np.arange(5)), okapi_scores(corpus, ["a", "b"]), atol=1e-9
    )


def test_rows_must_ascend() -> None:
    index = index_of([["a"], ["b"]])

    with pytest.raises(ValueError, match="row 1"):
        index.add(1, ["c"])
    assert (index.n_documents, index.n_terms) == (2, 2)


@pytest.mark.parametrize(
    ("row", "tokens"), [(2, ["a"]), (-1, ["a"]), (0, ["a"]), (0, ["a", "c"]), (1, ["a", "d"])]
)
def test_removing_what_was_not_added_is_refused_and_changes_nothing(
    row: int, tokens: list[str]
) -> None:
    index = index_of([["a", "b"], ["a", "c"], ["d"]])
    index.remove(2, ["d"])

    with pytest.raises(ValueError, match="row"):
        index.remove(row, tokens)
    np.testing.assert_allclose(
        index.scores(["a", "b"], np.arange(2)), okapi_scores([["a", "b"], ["a", "c"]], ["a", "b"])
    )


def test_terms_survive_packing_whatever_their_characters() -> None:
    terms = ["line\nbreak", "nul\0", "猫", "😀", "\ud800", "", " "]
    packed = BM25Index.from_arrays(index_of([[term] for term in terms]).to_arrays())

    assert [packed.search([term], k=9)[0].tolist() for term in terms] == [[i] for i in range(7)]


def test_a_loaded_index_keeps_no_view_that_blocks_further_adds() -> None:
    index = BM25Index.from_arrays(index_of([["a"], ["b"]]).to_arrays())
    arrays, hits = index.to_arrays(), index.search(["a"], k=1)

    index.add(2, ["a"])

    assert hits[0].tolist() == [0]
    assert len(arrays["live"]) == 2


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("terms", np.frombuffer(b"aba", dtype=np.uint8)),
        ("terms", np.frombuffer(b"\xff\xfe\xff", dtype=np.uint8)),
        ("term_ends", np.array([0, 1, 2, 9])),
        ("term_ends", np.array([], dtype=np.int64)),
        ("offsets", np.array([0, 1, 2])),
        ("offsets", np.array([0, 2, 1, 3])),
        ("offsets", np.array([0, 1, 2, 8])),
        ("rows", np.array([0, 0, 9], dtype=np.uint32)),
        ("rows", np.array([0, 1, 1], dtype=np.uint32)),
        ("rows", np.array([0.0, 0.0, 1.0])),
        ("tfs", np.array([1, 2, 1], dtype=np.uint8)),
        ("doc_lens", np.array([2], dtype=np.uint32)),
        ("doc_lens", np.array([2, 2], dtype=np.uint32)),
        ("live", np.array([True, False])),
    ],
)
def test_arrays_that_describe_no_index_are_refused(name: str, broken: npt.NDArray[np.void]) -> None:
    arrays = index_of([["a", "b"], ["c"]]).to_arrays()

    with pytest.raises(ValueError, match="not the arrays of a BM25 index"):
        BM25Index.from_arrays({**arrays, name: broken})
    with pytest.raises(ValueError, match="not the arrays of a BM25 index"):
        BM25Index.from_arrays({key: value for key, value in arrays.items() if key != name})
