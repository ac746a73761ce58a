"""Lines of imports and exports in the engine: exactly once, as given, as of one moment."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.errors import NotReadyError, OverloadedError
from engine.memory_index import MemoryIndex
from engine.records import FloatMatrix, FloatVector, MemoryFilter, MemoryId, NewMemory
from engine.store.database import DATABASE_NAME, Store
from engine.store.exports import Exports
from engine.store.layout.tables import FIRST_NAMESPACE_ID
from engine.store.read_snapshot import Snapshot
from engine.writing.lines import ImportAttempt, ImportOutcome
from tests.support.fakes import DIM
from tests.support.index_under_test import IDENTITY, open_index

PATIENCE_S = 60


def vector_of(text: str) -> FloatVector:
    """Another direction for every text."""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")
    vector = np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)
    unit: FloatVector = vector / np.linalg.norm(vector)
    return unit


def vectors_of(memories: Sequence[NewMemory]) -> FloatMatrix:
    return np.stack([vector_of(memory.text) for memory in memories])


def line(text: str, **more: object) -> NewMemory:
    return NewMemory(text=text, source="s", **{"deduplicate": False, **more})  # type: ignore[arg-type]


class Sender:
    """One attempt at an import named `key`."""

    def __init__(self, index: MemoryIndex, key: str | None, attempt: int = 0) -> None:
        self.index, self.key, self.attempt, self.n = index, key, attempt, 0

    def send(self, *memories: NewMemory) -> list[ImportOutcome]:
        self.n += 1
        attempt = None
        if self.key is not None:
            digests = [hashlib.blake2b(repr(m).encode()).digest()[:16] for m in memories]
            attempt = ImportAttempt(key=self.key, attempt=self.attempt, digests=digests)
        return self.index.ingest(
            memories,
            vectors_of(memories),
            request_id=f"{self.key} {self.attempt} {self.n}",
            after=f"{self.key} {self.attempt} {self.n - 1}" if self.n > 1 else None,
            attempt=attempt,
        ).result(PATIENCE_S)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[MemoryIndex]:
    index = open_index(tmp_path)
    yield index
    index.close()


def texts(index: MemoryIndex) -> list[str]:
    page = index.list_memories(MemoryFilter(), offset=0, limit=100)
    return [memory.text for memory in page.memories]


def test_lines_sent_again_from_the_start_get_their_first_outcomes(index: MemoryIndex) -> None:
    lines = [line("a"), line("b"), line("a"), line("c", key="k")]
    first = Sender(index, "import", 1).send(*lines)

    again = Sender(index, "import", 2).send(*lines)

    assert again == first
    assert texts(index) == ["a", "b", "a", "c"]


def test_an_import_resumed_in_the_middle_adds_only_what_is_missing(index: MemoryIndex) -> None:
    Sender(index, "import", 1).send(line("a"), line("b"))

    outcomes = Sender(index, "import", 2).send(line("b"), line("c"), line("c"))

    assert [o.id for o in outcomes] == [2, 3, 4]
    assert texts(index) == ["a", "b", "c", "c"]
    # And once more from the start: still nothing twice.
    Sender(index, "import", 3).send(line("a"), line("b"), line("c"), line("c"))
    assert texts(index) == ["a", "b", "c", "c"]


def test_equal_lines_of_one_attempt_are_all_added(index: MemoryIndex) -> None:
    sender = Sender(index, "import", 1)
    sender.send(line("a"), line("a"))
    sender.send(line("a"))

    assert texts(index) == ["a", "a", "a"]


def test_another_import_may_hold_the_same_lines(index: MemoryIndex) -> None:
    Sender(index, "one", 1).send(line("a"))
    Sender(index, "two", 1).send(line("a"))
    Sender(index, None).send(line("a"))

    assert texts(index) == ["a", "a", "a"]


def test_remembered_lines_survive_a_restart(tmp_path: Path) -> None:
    index = open_index(tmp_path)
    Sender(index, "import", 1).send(line("a"))
    index.close()

    index = open_index(tmp_path)
    Sender(index, "import", 2).send(line("a"), line("b"))
    try:
        assert texts(index) == ["a", "b"]
    finally:
        index.close()


def test_a_write_of_an_import_sent_twice_is_applied_once(index: MemoryIndex) -> None:
    sender = Sender(index, None)
    first = sender.send(line("a"))
    sender.n -= 1

    assert sender.send(line("a")) == first
    assert texts(index) == ["a"]


def test_an_import_leaves_other_writes_their_remembered_outcomes(index: MemoryIndex) -> None:
    added = index.add([line("x")], vectors_of([line("x")]), request_id="kept").result(PATIENCE_S)
    sender = Sender(index, None)
    for n in range(2_100):
        sender.send(line(f"t{n % 7}", key=f"k{n % 7}"))

    again = index.add([line("x")], vectors_of([line("x")]), request_id="kept").result(PATIENCE_S)

    assert again == added


def test_a_key_puts_a_line_in_the_place_of_the_one_before(index: MemoryIndex) -> None:
    first = line("a", key="k", created_us=5, metadata={"n": 1})
    sender = Sender(index, None)

    outcomes = [
        sender.send(memory)[0].status
        for memory in (first, first, line("b", key="k"), line("b", key="k", created_us=7))
    ]

    assert outcomes == ["added", "unchanged", "updated", "updated"]
    [stored] = index.list_memories(MemoryFilter(), offset=0, limit=9).memories
    assert (stored.text, stored.metadata) == ("b", {})
    assert stored.timestamp == "1970-01-01T00:00:00.000007+00:00"


def test_a_duplicate_is_found_among_stored_and_earlier_lines_and_not_among_replaced_ones(
    index: MemoryIndex,
) -> None:
    sender = Sender(index, None)
    sender.send(line("old", key="k"))

    outcomes = sender.send(
        line("new", key="k"),
        line("old", deduplicate=True),
        line("old", deduplicate=True),
        line("new", deduplicate=True),
    )

    assert [o.status for o in outcomes] == ["updated", "added", "duplicate", "duplicate"]
    assert outcomes[2].duplicate_of == outcomes[1].id
    assert outcomes[3].duplicate_of == outcomes[0].id


def test_a_text_that_a_key_was_given_is_a_duplicate_however_the_stream_is_cut(
    index: MemoryIndex,
) -> None:
    stored, twice = line("older", key="k"), line("a", key="twice")
    lines = [
        *(line("newer", key="k"), line("newer", deduplicate=True)),
        *(twice, line("b", key="twice"), line("b", deduplicate=True)),
        *(line("a", deduplicate=True), line("a", deduplicate=True)),
    ]
    found = []
    for n_at_once in (1, 3, len(lines)):
        sender = Sender(index, None, attempt=n_at_once)
        sender.send(stored, line("another"))
        outcomes = [
            outcome
            for start in range(0, len(lines), n_at_once)
            for outcome in sender.send(*lines[start : start + n_at_once])
        ]
        found.append([outcome.status for outcome in outcomes])
        ids = [
            memory.id for memory in index.list_memories(MemoryFilter(), offset=0, limit=9).memories
        ]
        index.delete(ids, request_id=f"delete {n_at_once}").result(PATIENCE_S)

    added, updated, duplicate = "added", "updated", "duplicate"
    assert found[0] == [updated, duplicate, added, updated, duplicate, added, duplicate]
    assert found[1:] == found[:1] * 2


def test_known_embeddings_are_those_of_stored_texts(index: MemoryIndex) -> None:
    sender = Sender(index, None)
    sender.send(line("a", key="k"), line("b"), line("own", own_vector=True))
    sender.send(line("a2", key="k"))
    [gone] = sender.send(line("gone"))
    assert gone.id is not None
    index.delete([gone.id], request_id="d").result(PATIENCE_S)

    known = index.known_embeddings(["b", "a", "own", "gone", "never"])

    assert list(known) == [0]
    assert np.array_equal(known[0], [vector_of("b")])


def test_an_export_shows_one_moment_while_writes_go_on(index: MemoryIndex) -> None:
    sender = Sender(index, None)
    sender.send(*(line(f"t{n}", key=str(n)) for n in range(10)))

    facts = index.begin_export(MemoryFilter(), with_embeddings=True)
    found = index.read_export(facts.export_id, 600)
    sender.send(line("changed", key="7"), line("later"))
    index.delete([MemoryId(9)], request_id="d").result(PATIENCE_S)
    while page := index.read_export(facts.export_id, 600):
        found += page

    assert (facts.total, facts.lsn) == (10, 1)
    assert [item.memory.text for item in found] == [f"t{n}" for n in range(10)]
    for item in found:
        assert item.vector == vector_of(item.memory.text).tobytes()


def test_a_restore_ends_the_exports_of_the_store_before_it(index: MemoryIndex) -> None:
    sender = Sender(index, None)
    sender.send(line("a"))
    backup = index.backup("manual")
    sender.send(line("b"))
    facts = index.begin_export(MemoryFilter(), with_embeddings=False)

    index.restore(backup.name).result(PATIENCE_S)

    with pytest.raises(NotReadyError, match="again"):
        index.read_export(facts.export_id, 1)
    assert texts(index) == ["a"]
    Sender(index, "import", 1).send(line("c"))
    assert texts(index) == ["a", "c"]


def test_an_export_nobody_reads_is_ended_and_a_further_one_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / DATABASE_NAME, identity=IDENTITY)
    exports = Exports(max_open=1, longest_pause_s=3600)

    def begin() -> str:
        return exports.begin(
            lambda: Snapshot(store, MemoryFilter(), FIRST_NAMESPACE_ID, with_embeddings=False)
        ).export_id

    first = begin()
    with pytest.raises(OverloadedError):
        begin()
    exports._open._longest_pause_s = 0.0
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        try:
            begin()
            break
        except OverloadedError:
            continue
    with pytest.raises(NotReadyError):
        exports.read(first, 1, FIRST_NAMESPACE_ID)
    exports.close()
    store.close()
