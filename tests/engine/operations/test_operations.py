"""Operations as values: they travel, carry their deadline, and answer from a real index."""

from __future__ import annotations

import inspect
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.calls import operations as own
from engine.errors import DeadlinePassedError, LeaseLostError
from engine.memory_index import MemoryIndex
from engine.operations import builds, exports, keys, namespaces, offsite, reads, whole, writes
from engine.operations.builds import ApplyBuild, PlanBuild, PutEmbeddings, TextsOfBuild
from engine.operations.operation import DirectoryOperation, MemoryOperation, Operation, Within
from engine.operations.reads import Search
from engine.operations.writes import AddMemories
from engine.records import NewMemory, SearchQuery
from tests.support.index_under_test import add, embeddings_of, fresh_request_id, open_index

OPERATIONS: list[type[Operation[Any]]] = [
    found
    for room in (reads, writes, exports, builds, keys, namespaces, whole, offsite, own)
    for _, found in inspect.getmembers(room, inspect.isclass)
    if issubclass(found, Operation) and found.__module__ == room.__name__
]


HERE = Within("default")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[MemoryIndex]:
    index = open_index(tmp_path, max_backups=0)
    yield index
    index.close()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.__name__)
def test_an_operation_travels_and_says_what_it_concerns(operation: type[Operation[Any]]) -> None:
    n_fields = len(inspect.signature(operation).parameters)
    sent = operation(**dict.fromkeys(inspect.signature(operation).parameters, "value"))
    arrived = pickle.loads(pickle.dumps(sent, pickle.HIGHEST_PROTOCOL))
    assert arrived == sent
    assert type(arrived) is operation
    assert repr(arrived).count("'value'") == n_fields
    assert issubclass(operation, MemoryOperation) != issubclass(operation, DirectoryOperation)
    if operation.if_unknown is not None:
        assert operation.is_sent_again, "a write is exactly-once, or made known by a list"


def test_a_write_is_given_its_deadline_at_each_sending(index: MemoryIndex) -> None:
    memory = NewMemory(text="in time", source="s")
    write = AddMemories([memory], embeddings_of([memory.text]), request_id="one", within=HERE)
    with pytest.raises(DeadlinePassedError):
        write.until(time.time() - 1).run(index).result()
    outcomes = [write.until(time.time() + 60).run(index).result() for _ in range(2)]
    assert outcomes[0] == outcomes[1]
    assert index.count() == 1


@pytest.mark.parametrize(("answer_chars", "n_answered"), [(1, 1), (11, 2), (1 << 20, 3)])
def test_of_several_searches_the_first_are_answered_as_far_as_one_answer_should_go(
    index: MemoryIndex, monkeypatch: pytest.MonkeyPatch, answer_chars: int, n_answered: int
) -> None:
    monkeypatch.setattr(reads, "_ANSWER_CHARS", answer_chars)
    texts = ["ten  chars", "ten  lines", "ten  words"]
    add(index, *texts)
    queries = [SearchQuery(text=text, k=1) for text in texts]
    found = Search(embeddings_of(texts), queries, within=HERE).run(index)
    assert [hit.memory.text for hits in found for hit in hits] == texts[:n_answered]


def test_a_build_is_applied_once_and_one_that_is_forgotten_not_at_all(
    index: MemoryIndex, tmp_path: Path
) -> None:
    (tmp_path / "workspace" / "a.md").write_text("one")
    build = PlanBuild(None, replace_all=False, within=HERE).run(index)
    texts = TextsOfBuild(build.build_id, 0, within=HERE).run(index)
    PutEmbeddings(build.build_id, 0, embeddings_of(texts), within=HERE).run(index)
    apply = ApplyBuild(build.build_id, request_id=fresh_request_id(), within=HERE)
    reports = [apply.run(index) for _ in range(2)]
    assert reports[0] == reports[1]
    assert (reports[0].memories_added, index.count()) == (1, 1)
    with pytest.raises(LeaseLostError):
        ApplyBuild(build.build_id, request_id=fresh_request_id(), within=HERE).run(index)
    with pytest.raises(LeaseLostError):
        PutEmbeddings("unknown", 0, np.empty((0, 0), np.float32), within=HERE).run(index)
