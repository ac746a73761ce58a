"""How long the outcome of a write is remembered, and whose is forgotten for whom."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from engine.memory_index import MemoryIndex
from engine.records import MemoryId, NewMemory
from engine.store.layout.remembered_outcomes import (
    CALLERS_KEY,
    CALLERS_KIB,
    OWN_KIB,
    RememberedOutcomes,
)
from engine.store.layout.row_checksum import with_checksum
from engine.store.layout.schema import create_tables
from tests.engine.store.test_formats import copy_of
from tests.support.index_under_test import embeddings_of, open_index


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        create_tables(connection)
        connection.execute("BEGIN")
        yield connection


def n_remembered(database: sqlite3.Connection) -> int:
    (n_rows,) = database.execute("SELECT count(*) FROM requests").fetchone()
    return int(n_rows)


def test_a_callers_outcome_outlives_any_number_of_the_services_own(
    database: sqlite3.Connection,
) -> None:
    outcomes = RememberedOutcomes(database)
    outcomes.put(CALLERS_KEY + "mine", "1")
    for n in range(OWN_KIB + 100):
        outcomes.put(f"own {n}", "2")
    assert outcomes.get(CALLERS_KEY + "mine") == "1"
    assert outcomes.get("own 99") is None
    assert outcomes.get("own 100") == "2"
    assert n_remembered(database) == OWN_KIB + 1


def test_callers_outcomes_are_bounded_in_number_and_in_size(database: sqlite3.Connection) -> None:
    outcomes = RememberedOutcomes(database)
    for n in range(CALLERS_KIB + 10):
        outcomes.put(f"{CALLERS_KEY}{n}", "1")
    assert n_remembered(database) == CALLERS_KIB
    assert outcomes.get(CALLERS_KEY + "9") is None
    assert outcomes.get(CALLERS_KEY + "10") == "1"
    for n in range(20):
        outcomes.put(f"{CALLERS_KEY}large {n}", "x" * 99 * 1024)
    assert n_remembered(database) == CALLERS_KIB - 20 * 100 + 20
    assert outcomes.get(f"{CALLERS_KEY}{2_009}") is None


def test_the_outcome_of_a_long_import_s_last_write_is_not_pushed_out(
    database: sqlite3.Connection,
) -> None:
    outcomes = RememberedOutcomes(database)
    outcomes.put("import 0", "0")
    for n in range(1, 4):
        for other in range(OWN_KIB * 2 // 3):
            outcomes.put(f"own {n} {other}", "1")
        outcomes.put(f"import {n}", str(n), replaces=f"import {n - 1}")
        assert outcomes.get(f"import {n - 1}") is None
    for other in range(OWN_KIB // 2):
        outcomes.put(f"later {other}", "1")
    assert outcomes.get("import 3") == "3"


def test_an_import_pushes_out_nobody_else(database: sqlite3.Connection) -> None:
    outcomes = RememberedOutcomes(database)
    outcomes.put("import 0", "0")
    outcomes.put("own", "1")
    for n in range(1, OWN_KIB + 100):
        outcomes.put(f"import {n}", "x" * 2000, replaces=f"import {n - 1}")
    assert outcomes.get("own") == "1"
    assert n_remembered(database) == 2


def test_what_older_releases_remembered_counts_as_the_services_own(
    database: sqlite3.Connection,
) -> None:
    for n in range(1, 2_001):
        row = with_checksum(n, f"POST /memory/add {n}", "1")
        database.execute("INSERT INTO requests VALUES (?, ?, ?, ?)", row)
    outcomes = RememberedOutcomes(database)
    outcomes.put("own", "2")
    outcomes.put(CALLERS_KEY + "mine", "3")
    assert outcomes.get("POST /memory/add 1") == "1"
    assert n_remembered(database) == 2_002


def test_an_outcome_is_there_after_a_restart_also_in_an_old_directory(tmp_path: Path) -> None:
    directory = copy_of("format_1", tmp_path)
    memory = NewMemory(text="only once", source="s", deduplicate=False)
    vectors = embeddings_of([memory.text])

    def add_to(index: MemoryIndex) -> MemoryId | None:
        added = index.add([memory], vectors, request_id=CALLERS_KEY + "mine")
        return added.result()[0].id

    index = open_index(directory, max_backups=0)
    first = add_to(index)
    backup = index.backup("after").name
    index.restore(backup).result()
    index.close()
    index = open_index(directory, max_backups=0)
    assert index.verify_backup(backup).problems == []
    assert add_to(index) == first
    index.close()
