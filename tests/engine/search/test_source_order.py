from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.records import IdArray, MemoryId
from engine.search.source_order import SourceOrder, group_of

memories = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), unique_by=lambda m: m[0])


def as_ids(values: list[int]) -> IdArray:
    return np.array(values, dtype=np.int64)


@given(first=memories, steps=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2))))
def test_rows_stand_in_the_order_of_ids_within_their_group(
    first: list[tuple[int, int]], steps: list[tuple[int, int]]
) -> None:
    order = SourceOrder(as_ids([i for i, _ in first]), as_ids([g for _, g in first]))
    row_of = {memory_id: row for row, (memory_id, _) in enumerate(first)}
    group = dict(first)
    for memory_id, new_group in steps:  # a known one changes: its row goes, a new one comes
        if memory_id in row_of:
            order.remove(row_of.pop(memory_id), MemoryId(memory_id))
        row = len(order.groups)
        order.add(row, MemoryId(memory_id), new_group, row_of)
        row_of[memory_id], group[memory_id] = row, new_group

    for distance in (-2, -1, 1, 2):
        for memory_id, row in row_of.items():
            peers = sorted(i for i in row_of if group[i] == group[memory_id])
            at = peers.index(memory_id) + distance
            expected = row_of[peers[at]] if 0 <= at < len(peers) else -1
            assert order.at_distance(as_ids([row]), distance).tolist() == [expected]


def test_passages_of_one_file_are_one_group() -> None:
    assert group_of("docs/a.md:chunk_3") == group_of("docs/a.md:chunk_40")
    assert group_of("docs/a.md:chunk_3") != group_of("docs/b.md:chunk_3")
