"""Why a hit came: ranks, words, the parts of its score, and what was dropped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.memory_index import MemoryIndex
from engine.records import Dropped, HitExplanation, MemoryFilter, SearchHits, SearchQuery
from engine.search.fusion import RRF_K
from tests.support.fakes import embedding_of, query_of
from tests.support.index_under_test import add, open_index

TALK = [f"harbour crane ropes {word}" for word in ["a1", "b1", "c1", "tide", "answer", "e1", "f1"]]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[MemoryIndex]:
    opened = open_index(tmp_path)
    add(opened, *TALK, source="talk")
    for n in range(30):
        add(opened, f"unrelated words here {n}", source=f"other {n}")
    yield opened
    opened.close()


def ask(index: MemoryIndex, text: str, *, known: bool = True, **wanted: object) -> SearchHits:
    asked = query_of(text)
    vector = asked.vector if known else np.zeros_like(asked.vector)
    query = SearchQuery(text=text, pieces=asked.pieces, **wanted)  # type: ignore[arg-type]
    [hits] = index.search(vector[None], [query])
    return hits


def reasons(hits: SearchHits) -> list[HitExplanation]:
    told = [hit.explanation for hit in hits if hit.explanation is not None]
    assert len(told) == len(hits) > 0
    return told


@pytest.mark.parametrize("text", ["harbour crane ropes answer", "unrelated answer 7"])
@pytest.mark.parametrize("neighbours", [True, False])
def test_the_parts_of_a_score_add_up_to_it(index: MemoryIndex, text: str, neighbours: bool) -> None:
    hits = ask(index, text, k=20, explain=True, neighbours=neighbours)

    for hit, why in zip(hits, reasons(hits), strict=True):
        parts = why.score
        assert hit.score is not None
        total = parts.meaning + parts.words + parts.neighbours
        assert min(total, 0.99) * parts.recency == pytest.approx(min(hit.score, 0.99), abs=1e-6)


def test_what_stands_beside_a_hit_is_told_apart_from_what_it_says(index: MemoryIndex) -> None:
    query = "harbour crane ropes answer"
    with_it = {h.memory.text: h.explanation for h in ask(index, query, k=9, explain=True)}
    beside = with_it["harbour crane ropes tide"]

    assert beside is not None
    assert beside.score.neighbours > 0
    without = reasons(ask(index, query, k=9, explain=True, neighbours=False))
    assert all(why.score.neighbours == 0 for why in without)


def test_ranks_are_those_that_the_reciprocal_rank_score_is_made_of(index: MemoryIndex) -> None:
    for fusion in ("score", "rrf"):
        hits = ask(index, "harbour tide", k=9, explain=True, fusion=fusion)
        for hit, why in zip(hits, reasons(hits), strict=True):
            expected = 0.0
            for rank, weight in ((why.vector_rank, 0.7), (why.bm25_rank, 0.3)):
                expected += 0.0 if rank is None else weight / (RRF_K + rank)
            assert hit.rrf_score == pytest.approx(expected)
            if fusion == "rrf":
                assert why.score.meaning + why.score.words == pytest.approx(hit.rrf_score)


def test_a_search_by_meaning_alone_explains_with_meaning_alone(index: MemoryIndex) -> None:
    hits = ask(index, "harbour tide", k=3, hybrid=False, explain=True)

    told = reasons(hits)
    assert [why.vector_rank for why in told] == [0, 1, 2]
    assert [why.bm25_rank for why in told] == [None] * 3
    assert [why.score.meaning for why in told] == [hit.similarity for hit in hits]


def test_words_that_matched_are_told_as_the_query_writes_them(index: MemoryIndex) -> None:
    add(index, "She answers tickets in src/user_service.py", source="work")

    hits = ask(index, "Which Tickets answered harbour user_service.rs", k=1, explain=True)

    # Of a compound that is not there as a whole, the parts that are.
    assert reasons(hits)[0].matched == ["Tickets", "answered", "userservic", "user", "servic"]


def test_where_the_vector_says_nothing_only_words_have_a_rank(index: MemoryIndex) -> None:
    hits = ask(index, "tide", known=False, k=1, explain=True)

    [why] = reasons(hits)
    assert (why.vector_rank, why.bm25_rank, why.matched) == (None, 0, ["tide"])
    assert why.score.meaning == 0


def test_what_was_dropped_is_counted(index: MemoryIndex) -> None:
    query = "harbour crane ropes answer"
    where = MemoryFilter(source="talk")

    every = ask(index, query, k=20, where=where, explain=True)
    fewer = ask(index, query, k=20, where=where, min_score=every[2].score, explain=True)

    assert every.explanation is not None
    assert fewer.explanation is not None
    assert every.explanation.candidates == len(TALK)
    assert every.explanation.dropped == Dropped(threshold=0, filter=30)
    assert fewer.explanation.dropped == Dropped(threshold=len(TALK) - len(fewer), filter=30)


def test_an_explanation_changes_no_hit_and_comes_only_when_asked_for(index: MemoryIndex) -> None:
    plain = ask(index, "harbour tide", k=9)
    told = ask(index, "harbour tide", k=9, explain=True)

    assert [(h.memory.id, h.score) for h in plain] == [(h.memory.id, h.score) for h in told]
    assert plain.explanation is None
    assert all(hit.explanation is None for hit in plain)


def test_several_namespaces_are_explained_together(index: MemoryIndex) -> None:
    add(index.namespace("other"), "harbour tide table")

    query = SearchQuery(text="harbour tide", k=3, explain=True)
    [hits] = index.several(["default", "other"]).search(embedding_of(query.text)[None], [query])

    [alone] = index.search(embedding_of(query.text)[None], [query])
    assert hits.explanation is not None
    assert alone.explanation is not None
    assert hits.explanation.candidates == alone.explanation.candidates + 1
    assert len(hits) == 3
