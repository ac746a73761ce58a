"""What is stored already is not written again, and what is answered is what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.memory_index import MemoryIndex
from engine.records import Memory, MemoryPatch, NewMemory, UpsertOutcome
from engine.writing.lines import ImportOutcome
from tests.support.fakes import embedding_of
from tests.support.index_under_test import embeddings_of, fresh_request_id, open_index

DAY_US = 24 * 3600 * 1_000_000


@pytest.fixture
def index(tmp_path: Path) -> Iterator[MemoryIndex]:
    index = open_index(tmp_path, max_backups=0)
    yield index
    index.close()


def memory_of(text: str = "tea at four", **fields: Any) -> NewMemory:
    return NewMemory(
        text=text, source="habits", key="tea", **{"metadata": {"hot": True, "cups": 2}, **fields}
    )


def upsert(index: MemoryIndex, memory: NewMemory) -> UpsertOutcome:
    embedding = embedding_of(memory.text)
    return index.upsert(memory, embedding, request_id=fresh_request_id()).result()


def import_line(index: MemoryIndex, memory: NewMemory) -> ImportOutcome:
    embeddings = embeddings_of([memory.text])
    (outcome,) = index.ingest([memory], embeddings, request_id=fresh_request_id()).result()
    return outcome


def update(index: MemoryIndex, memory: Memory, **changes: Any) -> Memory:
    vectors = embeddings_of([changes["text"]]) if "text" in changes else None
    patch = MemoryPatch(**changes)
    return index.update(memory.id, patch, vectors, request_id=fresh_request_id()).result()


def test_an_upsert_of_the_same_content_writes_nothing(index: MemoryIndex) -> None:
    first = upsert(index, memory_of())
    stored, lsn = index.get(first.id), index.stats().lsn
    again = upsert(index, memory_of())
    assert (again.id, again.created) == (first.id, False)
    assert index.get(first.id) == stored
    assert index.stats().lsn == lsn


def test_an_import_calls_unchanged_what_an_upsert_would_not_write(index: MemoryIndex) -> None:
    first = upsert(index, memory_of())
    lsn = index.stats().lsn
    assert import_line(index, memory_of()) == ImportOutcome(status="unchanged", id=first.id)
    assert index.stats().lsn == lsn
    assert import_line(index, memory_of("coffee")).status == "updated"


def test_an_update_to_what_is_there_writes_nothing(index: MemoryIndex) -> None:
    stored = index.get(upsert(index, memory_of()).id)
    lsn = index.stats().lsn
    same = update(index, stored, text=stored.text, metadata={"cups": 2, "hot": True})
    assert (same, index.stats().lsn) == (stored, lsn)


@pytest.mark.parametrize(
    "changed",
    [
        {"text": "tea at five"},
        {"metadata": {"hot": True, "cups": 3}},
        {"metadata": {"hot": 1, "cups": 2}},  # to Python the same as true
        {"metadata": {}},
    ],
)
def test_any_difference_is_written(index: MemoryIndex, changed: dict[str, Any]) -> None:
    first = upsert(index, memory_of())
    lsn = index.stats().lsn
    assert upsert(index, memory_of(**changed)) == UpsertOutcome(id=first.id, created=False)
    stored = index.get(first.id)
    wanted = memory_of(**changed)
    assert (stored.text, repr(stored.metadata)) == (wanted.text, repr(wanted.metadata))
    assert index.stats().lsn == lsn + 1


def test_an_update_answers_exactly_what_it_stored(index: MemoryIndex) -> None:
    stored = index.get(upsert(index, memory_of()).id)
    for changes in ({"text": "tea at six"}, {"source": "day"}, {"metadata": {"n": 1}}):
        answered = update(index, stored, **changes)
        assert answered == index.get(stored.id)
        assert answered.updated_at >= stored.updated_at


def test_times_that_come_along_are_stored_even_when_they_are_all_that_differs(
    index: MemoryIndex,
) -> None:
    first = upsert(index, memory_of())
    dated = memory_of(created_us=DAY_US, updated_us=2 * DAY_US)
    assert import_line(index, dated).status == "updated"
    stored = index.get(first.id)
    assert (stored.timestamp[:10], stored.updated_at[:10]) == ("1970-01-02", "1970-01-03")
    assert import_line(index, dated).status == "unchanged"
    assert import_line(index, memory_of()).status == "unchanged"
