"""Deduplication while the store changes: nothing goes that is not a duplicate any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import namespace
from engine.errors import NotReadyError
from engine.memory_index import MemoryIndex
from engine.records import MemoryFilter, MemoryPatch
from engine.writing.duplicates import deduplication
from engine.writing.duplicates import similar_pairs as duplicates
from engine.writing.duplicates.deduplication import DuplicateRule
from engine.writing.duplicates.similar_pairs import KeptRows, similar_pairs
from tests.support.fakes import embedding_of
from tests.support.index_under_test import add, fresh_request_id, open_index


@pytest.fixture
def index(tmp_path: Path) -> Iterator[MemoryIndex]:
    opened = open_index(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Something that happens after the memories have been compared."""

    def arrange(happen: Callable[[], object]) -> None:
        def find(*arguments: Any) -> deduplication.Duplicates:
            found = deduplication.find_duplicates(*arguments)
            happen()
            return found

        monkeypatch.setattr(namespace, "find_duplicates", find)

    return arrange


def texts(index: MemoryIndex) -> list[str]:
    page = index.list_memories(MemoryFilter(), offset=0, limit=100)
    return [memory.text for memory in page.memories]


def ids(index: MemoryIndex) -> list[int]:
    page = index.list_memories(MemoryFilter(), offset=0, limit=100)
    return [memory.id for memory in page.memories]


def deduplicate(index: MemoryIndex, by: DuplicateRule = "same") -> int:
    return index.deduplicate(0.9, by=by, dry_run=False, request_id=fresh_request_id()).n_removed


def test_a_memory_that_was_changed_meanwhile_stays(
    index: MemoryIndex, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    _, twin, _ = add(index, "tea is hot", "tea is hot", "tea is hot")

    def change() -> None:
        new = "coffee is cold"
        patch = MemoryPatch(text=new)
        index.update(twin, patch, embedding_of(new)[None], request_id=fresh_request_id()).result()

    meanwhile(change)
    assert deduplicate(index) == 1
    assert texts(index) == ["tea is hot", "coffee is cold"]


def test_the_last_copy_stays_when_the_earliest_was_deleted_meanwhile(
    index: MemoryIndex, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    first, _ = add(index, "tea is hot", "tea is hot")
    meanwhile(lambda: index.delete([first], request_id=fresh_request_id()).result())
    assert deduplicate(index) == 0
    assert texts(index) == ["tea is hot"]


def test_a_restore_meanwhile_makes_it_void(
    index: MemoryIndex, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    add(index, "tea is hot", "tea is hot")
    backup = index.backup("before")
    meanwhile(lambda: index.restore(backup.name).result())
    with pytest.raises(NotReadyError, match="restored meanwhile"):
        deduplicate(index)
    assert texts(index) == ["tea is hot", "tea is hot"]


def test_what_is_alike_and_says_something_else_stays_unless_similarity_is_asked_for(
    index: MemoryIndex,
) -> None:
    first, opposite, copy, chunk, other_chunk = (
        *add(index, "alice reports to bob", "bob reports to alice", "Alice reports to Bob."),
        *add(index, "alice reports to bob", source="a.md:chunk_0"),
        *add(index, "alice reports to bob", source="b.md:chunk_0"),
    )
    dry = index.deduplicate(0.9, by="same", dry_run=True, request_id=fresh_request_id())
    assert [(pair.id_a, pair.id_b) for pair in dry.best_pairs] == [(first, copy)]
    assert deduplicate(index) == 1
    assert ids(index) == [first, opposite, chunk, other_chunk]
    assert deduplicate(index, "similarity") == 1
    assert ids(index) == [first, chunk, other_chunk]


def test_a_memory_is_removed_only_for_one_that_stays_and_is_that_similar() -> None:
    angles = np.deg2rad([0, 20, 40, 60, 61])  # each within 25 degrees of the next
    vectors = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    rows = KeptRows(len(vectors))
    for i, j, _ in similar_pairs(vectors, float(np.cos(np.deg2rad(25)))):
        rows.leave_out(i, j)
    later, stays = rows.left_out()
    assert (later.tolist(), stays.tolist()) == ([1, 3, 4], [0, 2, 2])


@pytest.mark.parametrize("exact_below", [1, 10_000])
def test_all_pairs_of_a_dense_group_are_counted_and_one_member_is_kept(
    monkeypatch: pytest.MonkeyPatch, exact_below: int
) -> None:
    monkeypatch.setattr(duplicates, "_EXACT_BELOW", exact_below)
    n = 2_500
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((n, 32)).astype(np.float32)
    vectors[100:] = vectors[100]  # 2,400 alike
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kept, n_pairs = KeptRows(n), 0
    for i, j, cosines in similar_pairs(vectors, 0.99):
        assert (i < j).all()
        assert (cosines >= 0.99).all()
        kept.leave_out(i, j)
        n_pairs += len(i)
    assert n_pairs == 2_400 * 2_399 // 2
    later, earliest = kept.left_out()
    assert later.tolist() == list(range(101, n))
    assert set(earliest.tolist()) == {100}


def test_pairs_found_in_cells_are_those_that_a_product_finds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(6)
    vectors = rng.standard_normal((5_000, 64)).astype(np.float32)
    vectors[4_000:] = vectors[:1_000] + 0.4 * vectors[4_000:]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found: list[set[tuple[int, int]]] = []
    for exact_below in (10_000, 1):
        monkeypatch.setattr(duplicates, "_EXACT_BELOW", exact_below)
        pairs = similar_pairs(vectors, 0.9)
        found.append({pair for i, j, _ in pairs for pair in zip(i, j, strict=True)})
    assert 500 < len(found[0]) < 1_000
    assert found[0] == found[1]
