"""Which memory a line of an export is: found among all, at a cost that does not grow with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from engine.records import MemoryId, NewMemory
from engine.store.database import DATABASE_NAME, Store
from engine.store.transaction import Transaction
from tests.support.fakes import embedding_of
from tests.support.index_under_test import IDENTITY

NOW_US = 1_800_000_000_000_000
N_FEW, N_MANY = 200, 2_000


def line(text: str, **fields: Any) -> NewMemory:
    fields = {"source": "chat", "created_us": NOW_US, "merge_copy": 1, **fields}
    return NewMemory(text=text, deduplicate=False, **fields)


def insert(transaction: Transaction, memory: NewMemory) -> MemoryId:
    return transaction.insert(memory, embedding_of(memory.text), time_us=NOW_US, lsn=1)


def steps_of(store: Store, memory: NewMemory) -> int:
    """How much work SQLite has with finding it."""
    n_steps = 0

    def count() -> int:
        nonlocal n_steps
        n_steps += 1
        return 0

    with store.transaction() as transaction:
        connection = transaction._connection
        connection.set_progress_handler(count, 1)
        found = transaction.id_like(memory)
        connection.set_progress_handler(None, 0)
    assert found is not None
    return n_steps


@pytest.mark.parametrize("shared", ["source and moment", "source and text", "moment and text"])
def test_finding_a_line_costs_no_more_where_many_share_two_things(
    tmp_path: Path, shared: str
) -> None:
    def nth(n: int) -> NewMemory:
        return line(
            "the same" if "text" in shared else f"number {n}",
            source="chat" if "source" in shared else f"source {n}",
            created_us=NOW_US if "moment" in shared else NOW_US + n,
        )

    store = Store(tmp_path / DATABASE_NAME, identity=IDENTITY)
    costs = []
    for first, end in ((0, N_FEW), (N_FEW, N_MANY)):
        with store.transaction() as transaction:
            for n in range(first, end):
                insert(transaction, nth(n))
        costs.append(steps_of(store, nth(end - 1)))
    store.close()
    assert costs[1] < 1.2 * costs[0]


@pytest.mark.parametrize("source", ["chat", "notes/a.md:chunk_0"])
def test_each_copy_among_many_is_found(tmp_path: Path, source: str) -> None:
    store = Store(tmp_path / DATABASE_NAME, identity=IDENTITY)
    with store.transaction() as transaction:
        for n in range(N_FEW):
            insert(transaction, line(f"number {n}", source=source))
        wanted = line("the same", source=source)
        ids = [insert(transaction, wanted) for _ in range(3)]
        copies = [dataclasses.replace(wanted, merge_copy=copy) for copy in (1, 2, 3, 4)]
        assert [transaction.id_like(copy) for copy in copies] == [*ids, None]
        assert transaction.id_like(line("The same!", source=source)) is None
    store.close()
