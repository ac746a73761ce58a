"""What a write skips as said already, and what it names."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from engine.memory_index import MemoryIndex
from engine.records import AddOutcome, FloatVector, NewMemory
from engine.store.database import DATABASE_NAME
from tests.support.fakes import DIM
from tests.support.index_under_test import add, embeddings_of, fresh_request_id, open_index

NOTHING: FloatVector = np.zeros(DIM, dtype=np.float32)
"""The vector of a text that the model does not know."""


@pytest.fixture
def index(tmp_path: Path) -> Iterator[MemoryIndex]:
    opened = open_index(tmp_path)
    yield opened
    opened.close()


def add_all(
    index: MemoryIndex, *texts: str, vector: FloatVector | None = None, source: str = "s"
) -> Sequence[AddOutcome]:
    memories = [NewMemory(text=text, source=source) for text in texts]
    vectors = embeddings_of(texts) if vector is None else np.stack([vector] * len(texts))
    return index.add(memories, vectors, request_id=fresh_request_id()).result()


def test_an_opposite_fact_is_added_and_names_what_it_is_like(index: MemoryIndex) -> None:
    [first, opposite] = add_all(index, "alice reports to bob", "bob reports to alice")
    assert first.similar == []
    assert opposite.id == 2
    [like] = opposite.similar
    assert (like.id, like.text) == (1, "alice reports to bob")
    assert like.similarity == pytest.approx(1)


def test_at_most_three_similar_ones_are_named_the_most_similar_first(index: MemoryIndex) -> None:
    texts = [" ".join([*"abcdefgh", str(n)]) for n in range(5)]
    [*_, last] = add_all(index, *texts)
    similarities = [like.similarity for like in last.similar]
    assert len(similarities) == 3
    assert similarities == sorted(similarities, reverse=True)
    assert last.id not in [like.id for like in last.similar]


def test_what_repeats_the_second_nearest_is_skipped(index: MemoryIndex) -> None:
    add_all(index, "bob reports to alice", "Alice reports to Bob.")
    [repeated] = add_all(index, "alice reports to bob")
    assert (repeated.id, repeated.duplicate_of) == (None, 2)
    assert repeated.duplicate_text == "Alice reports to Bob."


def test_the_earliest_of_many_copies_is_named(index: MemoryIndex) -> None:
    ids = add(index, *["tea is hot"] * 40)
    [repeated] = add_all(index, "Tea is hot!")
    assert repeated.duplicate_of == ids[0]


@pytest.mark.parametrize("restored", [False, True])
def test_where_vectors_say_nothing_the_words_decide(index: MemoryIndex, restored: bool) -> None:
    first, other, repeated = add_all(index, "ฉันชอบแมว", "ฉันชอบหมา", "ฉันชอบแมว!", vector=NOTHING)
    assert [first.id, other.id, repeated.id] == [1, 2, None]
    assert (repeated.duplicate_of, repeated.similarity) == (1, 1.0)
    assert other.similar == []
    if restored:
        index.backup("base")
        add_all(index, "ខ្ញុំចូលចិត្តឆ្មា", vector=NOTHING)
        index.restore(index.backup("delta").name).result()
        [again] = add_all(index, "ខ្ញុំចូលចិត្តឆ្មា។", vector=NOTHING)
        assert again.duplicate_of == 3

    known = index.nearest(NOTHING, "ฉันชอบหมา")
    assert known is not None
    assert (known.memory.id, known.similarity, known.says_the_same) == (2, 1.0, True)
    new = index.nearest(NOTHING, "我喜欢猫")
    assert new is not None
    assert (new.says_the_same, new.is_comparable) == (False, False)


def test_a_passage_of_a_file_makes_no_duplicate(index: MemoryIndex) -> None:
    add(index, "tea is hot", source="notes/a.md:chunk_0")
    [added] = add_all(index, "tea is hot")
    assert added.id == 2
    nearest = index.nearest(embeddings_of(["tea is hot"])[0], "tea is hot")
    assert nearest is not None
    assert nearest.says_the_same


def test_a_memory_of_a_release_without_gists_is_known_by_its_vector(
    index: MemoryIndex, tmp_path: Path
) -> None:
    add(index, "tea is hot", "coffee is cold")
    with closing(sqlite3.connect(tmp_path / "data" / DATABASE_NAME)) as database:
        database.execute("DELETE FROM text_digests")
        database.commit()
    [repeated] = add_all(index, "Tea is HOT")
    assert repeated.duplicate_of == 1


def test_a_changed_text_is_the_one_that_counts(index: MemoryIndex) -> None:
    memory = NewMemory(text="tea is hot", source="s", key="k")
    for text in ("tea is hot", "tea is cold"):
        new = NewMemory(text=text, source=memory.source, key=memory.key)
        index.upsert(new, NOTHING, request_id=fresh_request_id()).result()
    hot, cold = add_all(index, "Tea is hot.", "Tea is cold.", vector=NOTHING)
    assert hot.id == 2
    assert cold.duplicate_of == 1
