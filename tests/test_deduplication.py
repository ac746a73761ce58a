"""Deduplication while the store changes: nothing goes that is not a duplicate any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import deduplication
from engine.duplicates import DuplicateGroups, similar_pairs
from engine.errors import NotReadyError
from engine.memory_index import MemoryIndex
from engine.records import MemoryFilter, MemoryPatch
from tests.fakes import embedding_of
from tests.index_under_test import add, fresh_request_id, open_index


@pytest.fixture
def index(tmp_path: Path) -> Iterator[MemoryIndex]:
    opened = open_index(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Something that happens while the vectors are being compared."""

    def arrange(happen: Callable[[], object]) -> None:
        def pairs(*arguments: Any) -> Iterator[Any]:
            happen()
            yield from similar_pairs(*arguments)

        monkeypatch.setattr(deduplication, "similar_pairs", pairs)

    return arrange


def texts(index: MemoryIndex) -> list[str]:
    page = index.list_memories(MemoryFilter(), offset=0, limit=100)
    return [memory.text for memory in page.memories]


def deduplicate(index: MemoryIndex) -> int:
    return index.deduplicate(0.9, dry_run=False, request_id=fresh_request_id()).n_removed


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


def test_all_pairs_of_a_dense_group_are_counted_and_one_member_is_kept() -> None:
    n = 2_500
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((n, 32)).astype(np.float32)
    vectors[100:] = vectors[100]  # 2,400 alike
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    groups, n_pairs = DuplicateGroups(n), 0
    for i, j, cosines in similar_pairs(vectors, 0.99):
        assert (i < j).all()
        assert (cosines >= 0.99).all()
        groups.join(i, j)
        n_pairs += len(i)
    assert n_pairs == 2_400 * 2_399 // 2
    later, earliest = groups.later_members()
    assert later.tolist() == list(range(101, n))
    assert set(earliest.tolist()) == {100}
