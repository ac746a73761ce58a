"""What a search of the engine answers, over hashed words for embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.memory_index import MemoryIndex
from engine.records import MemoryFilter, MemoryId, NewMemory, SearchHit, SearchQuery
from tests.support.fakes import DIM, embedding_of, query_of
from tests.support.index_under_test import add, fresh_request_id, open_index, search, texts_of


@pytest.fixture
def index(tmp_path: Path) -> Iterator[MemoryIndex]:
    opened = open_index(tmp_path)
    yield opened
    opened.close()


def add_unknown(index: MemoryIndex, *texts: str, source: str = "notes") -> list[MemoryId]:
    """Memories that the model knows nothing of: their vectors are zeros."""
    memories = [NewMemory(text=text, source=source, deduplicate=False) for text in texts]
    zeros = np.zeros((len(texts), DIM), np.float32)
    added = index.add(memories, zeros, request_id=fresh_request_id()).result()
    return [outcome.id for outcome in added if outcome.id is not None]


def ask(index: MemoryIndex, text: str, *, known: bool = True, **wanted: object) -> list[SearchHit]:
    asked = query_of(text)
    vector = asked.vector if known else np.zeros_like(asked.vector)
    query = SearchQuery(text=text, pieces=asked.pieces, **wanted)  # type: ignore[arg-type]
    [hits] = index.search(vector[None], [query])
    return hits


def test_a_name_among_like_texts_comes_first(index: MemoryIndex) -> None:
    add(
        index,
        *(f"ticket OPS-{n} about the gateway of the staging cluster" for n in range(100, 160)),
    )

    hits = ask(index, "what about ticket OPS-141 of the staging gateway", k=3)

    assert "OPS-141" in hits[0].memory.text
    assert hits[0].score is not None
    assert hits[1].score is not None
    assert 0 <= hits[1].score < hits[0].score <= 1


def test_a_score_does_not_depend_on_how_many_hits_are_wanted(index: MemoryIndex) -> None:
    add(index, *(f"note {n} on topic {n % 7} and colour {n % 5}" for n in range(300)), source="a")

    few, many = (ask(index, "colour 3 of topic 4", k=k) for k in (3, 50))

    assert [(h.memory.id, h.score) for h in few] == [(h.memory.id, h.score) for h in many[:3]]


def test_hits_below_the_least_score_are_left_out(index: MemoryIndex) -> None:
    add(index, "red green blue", "red orange pink", "one two three")
    every = ask(index, "red green blue")

    kept = ask(index, "red green blue", min_score=every[1].score)

    assert texts_of(kept) == texts_of(every[:2])


def test_a_memory_beside_a_good_one_rises_only_where_the_order_means_something(
    index: MemoryIndex,
) -> None:
    talk = [f"harbour crane ropes {word}" for word in ["a", "b", "c", "d", "answer", "e", "f", "g"]]
    add(index, *talk, source="talk")
    for n in range(30):
        add(index, f"unrelated words here {n}", source=f"other {n}")
    query = "harbour crane ropes answer"

    plain = {h.memory.text: h.score for h in ask(index, query, k=50, neighbours=False)}
    with_support = {h.memory.text: h.score for h in ask(index, query, k=50)}

    beside, far = talk[5], talk[0]
    assert (with_support[beside] or 0) - (plain[beside] or 0) > (with_support[far] or 0) - (
        plain[far] or 0
    )
    assert with_support["unrelated words here 3"] == plain["unrelated words here 3"]


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_weight_of_one_or_zero_ranks_by_one_side_alone(index: MemoryIndex, weight: float) -> None:
    add(index, "red green", "green red red", "blue", "something else entirely")

    hits = ask(index, "red green", vector_weight=weight, k=4)

    if weight:
        assert [h.score for h in hits] == [max(h.score or 0, 0) for h in hits]
        assert len(hits) == 4
    else:
        assert set(texts_of(hits)) == {"red green", "green red red"}


def test_a_filter_brings_its_own_statistics(index: MemoryIndex) -> None:
    add(index, *["common"] * 40, source="other")
    add(index, "common word", "rare word", "rare thing", source="mine")
    where = MemoryFilter(source="mine")

    hits = ask(index, "common", where=where, vector_weight=0.0)

    # Of the three it is the rarest word; among all it would be the commonest.
    assert [h.score for h in hits] == pytest.approx([0.99])


@pytest.mark.parametrize("query", ["red green", "ฉันชอบแมว"])
def test_nothing_but_the_same_is_shown_as_a_match_of_100_percent(
    index: MemoryIndex, query: str
) -> None:
    add(index, f"{query} blue", f"{query} pink", query)

    scores = {hit.memory.text: hit.score or 0 for hit in ask(index, query)}

    assert max(scores.values()) == scores[query]
    assert all(score < 0.995 for text, score in scores.items() if text != query)


def test_what_the_model_does_not_know_is_found_by_its_words_alone(index: MemoryIndex) -> None:
    add(index, *(f"plain english note {n}" for n in range(20)))
    add_unknown(index, "ระบบจะรีสตาร์ทเวลาเที่ยงคืน", "ประตูสีแดง", "หลังคาสีเขียว")

    for hybrid in (True, False):
        hits = ask(index, "เที่ยงคืน", known=False, hybrid=hybrid)
        assert texts_of(hits)[0].startswith("ระบบ")
        assert all(hit.similarity == 0.0 for hit in hits)
        assert all("english" not in text for text in texts_of(hits))


def test_a_threshold_of_similarity_has_no_say_where_the_vector_says_nothing(
    index: MemoryIndex,
) -> None:
    add_unknown(index, "ประตูสีแดง", "หลังคาสีเขียว")

    assert texts_of(ask(index, "ประตูสีแดง", known=False, threshold=0.8)) == ["ประตูสีแดง"]


def test_a_memory_that_neither_side_knows_is_no_hit(index: MemoryIndex) -> None:
    add_unknown(index, "👍", "👎")
    add(index, "red green blue")

    assert texts_of(ask(index, "red")) == ["red green blue"]
    assert texts_of(ask(index, "red", hybrid=False)) == ["red green blue"]


def test_a_long_text_is_as_near_as_its_best_window(index: MemoryIndex) -> None:
    add(index, *(f"filler number {n} {n * 7}" for n in range(40)))
    far = "penguins eat sardines"
    long = NewMemory(
        text=f"beginning of a long story {far}",
        source="s",
        later_vectors=np.stack([embedding_of("the middle of it"), embedding_of(far)]),
    )
    outcome = index.upsert(long, embedding_of("beginning of a long story"), request_id="l")
    memory_id = outcome.result().id

    [best] = search(index, far, k=1, hybrid=False)
    assert best.memory.id == memory_id
    assert best.similarity == pytest.approx(1.0)
    index.delete([memory_id], request_id="d").result()
    assert search(index, far, k=1, hybrid=False)[0].memory.id != memory_id


def test_windows_survive_restarts_compactions_and_changes_of_the_source(tmp_path: Path) -> None:
    index = open_index(tmp_path, compact_from=4)
    far = "penguins eat sardines"
    texts = [f"story {n}" for n in range(9)]
    for n, text in enumerate(texts):
        later = embedding_of(far if n == 6 else f"other {n}")[None]
        memory = NewMemory(text=text, source="s", key=text, later_vectors=later)
        index.upsert(memory, embedding_of(text), request_id=text).result()
    wanted = search(index, far, k=1, hybrid=False)[0].memory

    index.delete([MemoryId(i) for i in range(1, 5)], request_id="d").result()
    assert search(index, far, k=1, hybrid=False)[0].memory == wanted
    index.close()
    index = open_index(tmp_path)
    [hit] = search(index, far, k=1, hybrid=False)
    assert hit.memory == wanted
    assert hit.similarity == pytest.approx(1.0)
    index.close()


def test_the_old_order_is_that_of_reciprocal_ranks(index: MemoryIndex) -> None:
    add(index, "red green blue", "red red", "green", *(f"nothing in common {n}" for n in range(9)))

    hits = ask(index, "red green", fusion="rrf", k=4)

    by_vector = sorted(hits, key=lambda h: -h.similarity)
    by_words = sorted((h for h in hits if h.bm25_score), key=lambda h: -(h.bm25_score or 0))
    for hit in hits:
        expected = 0.7 / (60 + by_vector.index(hit))
        expected += 0.3 / (60 + by_words.index(hit)) if hit in by_words else 0
        assert hit.rrf_score == pytest.approx(expected)
        assert hit.score is None
    assert [h.rrf_score for h in hits] == sorted((h.rrf_score or 0 for h in hits), reverse=True)


def test_what_is_nearest_to_a_text_that_the_model_does_not_know_is_told_by_words(
    index: MemoryIndex,
) -> None:
    zeros = np.zeros(DIM, np.float32)
    assert index.nearest(zeros, "👎") is None
    add(index, "red green blue")
    add_unknown(index, "👍 ship it", "👎")

    same = index.nearest(zeros, "👎")
    other = index.nearest(zeros, "👍")
    foreign = index.nearest(zeros, "ภาษาไทย")

    assert same is not None
    assert (same.memory.text, same.says_the_same) == ("👎", True)
    assert other is not None
    assert (other.memory.text, other.says_the_same) == ("👍 ship it", False)
    assert foreign is not None
    assert (foreign.similarity, foreign.says_the_same) == (0.0, False)


def test_a_text_of_many_good_windows_leaves_room_for_others(index: MemoryIndex) -> None:
    near, far = embedding_of("penguins eat sardines"), embedding_of("penguins eat")
    add(index, *(f"filler number {n}" for n in range(30)))
    for name, later in (("many", np.tile(near, (130, 1))), ("one", far[None])):
        memory = NewMemory(text=name, source="s", key=name, later_vectors=later)
        index.upsert(memory, embedding_of(name), request_id=name).result()

    hits = search(index, "penguins eat sardines", k=2, hybrid=False)

    assert texts_of(hits) == ["many", "one"]
