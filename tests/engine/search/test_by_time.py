"""Order by time, recency, timelines: what time has to do with hits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.memory_index import MemoryIndex
from engine.operations.operation import Within
from engine.operations.reads import Timeline
from engine.records import MemoryFilter, Recency, SearchHit, SearchQuery
from engine.search.by_time import recency_of
from engine.store.database import now_us
from tests.support.fakes import embedding_of
from tests.support.index_under_test import add, open_index, search, texts_of

DAY_US = 24 * 3600 * 1_000_000


@pytest.fixture
def index(tmp_path: Path) -> Iterator[MemoryIndex]:
    opened = open_index(tmp_path)
    yield opened
    opened.close()


def add_days_ago(index: MemoryIndex, text: str, days: float, source: str = "notes") -> int:
    [new_id] = add(index, text, source=source, created_us=now_us() - int(days * DAY_US))
    return new_id


def test_the_best_hits_are_listed_by_time(index: MemoryIndex) -> None:
    add_days_ago(index, "tide table of march", 5)
    add_days_ago(index, "tide table of april", 9)
    add_days_ago(index, "tide and more words that dilute what it says of anything", 1)

    best = texts_of(search(index, "tide table of march", k=2))

    assert best == ["tide table of march", "tide table of april"]
    oldest = texts_of(search(index, "tide table of march", k=2, order="oldest"))
    assert oldest == best[::-1]
    assert texts_of(search(index, "tide table of march", k=2, order="newest")) == best


def test_those_of_one_moment_are_listed_by_id(index: MemoryIndex) -> None:
    created_us = now_us()
    ids = add(index, "tide one", "tide two", "tide three", created_us=created_us)

    found = search(index, "tide three", order="oldest")

    assert [hit.memory.id for hit in found] == ids
    found = search(index, "tide three", order="newest")
    assert [hit.memory.id for hit in found] == ids[::-1]


def test_the_best_of_several_namespaces_are_listed_by_time(index: MemoryIndex) -> None:
    add_days_ago(index, "tide table", 1)
    add(index.namespace("other"), "tide table too", created_us=now_us() - 3 * DAY_US)
    query = SearchQuery(text="tide table", order="oldest")

    [hits] = index.several(["default", "other"]).search(embedding_of(query.text)[None], [query])

    assert texts_of(hits) == ["tide table too", "tide table"]


def test_of_equal_memories_the_newer_comes_first_on_request(index: MemoryIndex) -> None:
    old = add_days_ago(index, "the tide table", 300)
    new = add_days_ago(index, "the tide table", 1)
    recency = Recency(half_life_days=30, weight=0.2)

    plain = search(index, "tide table harbour")
    fresh = search(index, "tide table harbour", recency=recency)

    assert [hit.memory.id for hit in plain] == [old, new]
    assert [hit.memory.id for hit in fresh] == [new, old]
    for hit, days in zip(fresh, (1, 300), strict=True):
        expected = _score(plain) * (1 - 0.2 * (1 - 2 ** (-days / 30)))
        assert hit.score == pytest.approx(expected, abs=1e-5)


def _score(hits: list[SearchHit]) -> float:
    score = hits[0].score
    assert score is not None
    return score


def test_what_is_far_better_stays_first_however_old_it_is(index: MemoryIndex) -> None:
    add_days_ago(index, "tide table of the harbour", 3000)
    add_days_ago(index, "harbour lights are red", 0)

    found = search(
        index, "tide table of the harbour", recency=Recency(half_life_days=1, weight=0.2)
    )

    assert texts_of(found)[0] == "tide table of the harbour"


def test_the_least_score_is_compared_with_what_age_left_of_it(index: MemoryIndex) -> None:
    add_days_ago(index, "the tide table", 3000)
    [hit] = search(index, "tide table harbour")
    recency = Recency(half_life_days=1, weight=0.2)

    assert search(index, "tide table harbour", min_score=hit.score)
    assert not search(index, "tide table harbour", min_score=hit.score, recency=recency)


@given(
    st.lists(st.integers(-(2**62), 2**61), min_size=1, max_size=9),
    st.floats(1e-6, 36_500),
    st.floats(0, 0.2),
)
def test_age_takes_at_most_its_weight_and_more_with_age(
    created_us: list[int], half_life_days: float, weight: float
) -> None:
    asked = Recency(half_life_days=half_life_days, weight=weight)

    left = recency_of(np.array(sorted(created_us)), 2**60, asked)

    assert np.all((left >= 1 - weight - 1e-12) & (left <= 1))
    assert np.all(np.diff(left) >= 0)


def test_half_a_weight_is_taken_at_the_half_life() -> None:
    asked = Recency(half_life_days=2, weight=0.2)

    left = recency_of(np.array([4 * DAY_US, 2 * DAY_US, 0, 9 * DAY_US]), 4 * DAY_US, asked)

    assert left.tolist() == pytest.approx([1, 0.9, 0.85, 1])


def timeline(
    index: MemoryIndex, text: str | None = None, **wanted: object
) -> list[tuple[str, ...]]:
    query = SearchQuery(text=text or "", **wanted)  # type: ignore[arg-type]
    embedding = None if text is None else embedding_of(text)
    return [
        (
            entry.memory.text,
            entry.before.text if entry.before else "",
            entry.after.text if entry.after else "",
        )
        for entry in Timeline(query, embedding, within=Within("default")).run(index)
    ]


def test_a_timeline_has_the_best_in_order_of_time_with_what_stands_beside_them(
    index: MemoryIndex,
) -> None:
    for n, text in enumerate(["ships come in", "the tide rises", "x" * 300, "the tide falls"]):
        add_days_ago(index, text, 20 - n, source="log")
    add_days_ago(index, "tide of another source", 30, source="other")

    shown = timeline(index, "tide", k=3, order="oldest")

    assert shown == [
        ("tide of another source", "", ""),
        ("the tide rises", "ships come in", "x" * 200),
        ("the tide falls", "x" * 200, ""),
    ]
    assert timeline(index, "tide", k=3, order="newest") == shown[::-1]


def test_a_timeline_without_a_query_has_the_newest_that_pass_its_filter(index: MemoryIndex) -> None:
    for days in (9, 7, 5, 3):
        add_days_ago(index, f"{days} days ago", days, source="log")
    where = MemoryFilter(until_us=now_us() - 4 * DAY_US)

    shown = [text for text, *_ in timeline(index, where=where, k=2)]

    assert shown == ["7 days ago", "5 days ago"]


def test_a_timeline_shows_nothing_of_another_namespace(index: MemoryIndex) -> None:
    add_days_ago(index, "the tide rises", 2, source="log")
    add(index.namespace("other"), "a tide elsewhere", source="log")

    assert timeline(index, "tide") == [("the tide rises", "", "")]
    assert timeline(index) == [("the tide rises", "", "")]
