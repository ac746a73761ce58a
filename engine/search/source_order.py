"""Which memories stand beside each other: those of one source, in the order of their ids."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Mapping

import numpy as np

from engine.records import IdArray, MemoryId, RowArray

_PASSAGE = re.compile(r"(?s)(.*):chunk_\d+")
_FIRST_CAPACITY_ROWS = 64


def group_of(source: str) -> int:
    """A number for the source, the same for all passages of one file. Of this process alone."""
    passage = _PASSAGE.fullmatch(source)
    return hash(passage[1] if passage else source)


class SourceOrder:
    """The rows before and after each row, kept up to date as rows come and go.

    A change costs a shift of its group's list of ids at most; a look-up, an array access.
    """

    def __init__(self, ids: IdArray, groups: IdArray) -> None:
        """Begin with rows 0..n-1, which hold the memories `ids` of the source groups `groups`."""
        self._n_rows = len(ids)
        self._groups = groups.copy()
        self._before = np.full(len(ids), -1, dtype=np.int32)
        self._after = np.full(len(ids), -1, dtype=np.int32)
        # Most groups of most stores hold one memory: those cost no list.
        self._ids: dict[int, int | array[int]] = {}
        order = np.lexsort((ids, groups)).astype(np.int32)
        in_group = groups[order]
        rows, following = order[:-1], order[1:]
        same = in_group[:-1] == in_group[1:]
        self._after[rows[same]] = following[same]
        self._before[following[same]] = rows[same]
        for part in np.split(order, np.flatnonzero(~same) + 1) if len(ids) else []:
            members = array("q", ids[part].astype(np.int64).tobytes())
            self._ids[int(groups[part[0]])] = members[0] if len(members) == 1 else members

    @property
    def groups(self) -> IdArray:
        """The source group of each row, shape (n_rows,)."""
        return self._groups[: self._n_rows]

    def at_distance(self, rows: RowArray, distance: int) -> RowArray:
        """The rows so many places after these (before them, when negative); -1 where none is."""
        links = self._after if distance > 0 else self._before
        for _ in range(abs(distance)):
            rows = np.where(rows >= 0, links[rows], -1).astype(np.int64)
        return rows

    def add(self, row: int, memory_id: MemoryId, group: int, row_of: Mapping[int, int]) -> None:
        """Put a row in its place.

        Args:
            row: above every row added before.
            memory_id: that it holds; no living row holds it yet.
            group: of its source.
            row_of: the row of every other memory.
        """
        self._reserve(row + 1)
        self._n_rows = row + 1
        self._groups[row] = group
        before, after = self._insert(group, memory_id)
        self._link(-1 if before is None else row_of[before], row)
        self._link(row, -1 if after is None else row_of[after])

    def remove(self, row: int, memory_id: MemoryId) -> None:
        """Take a row out, which holds this memory."""
        group = int(self._groups[row])
        ids = self._ids[group]
        if isinstance(ids, int) or len(ids) == 1:
            del self._ids[group]
        else:
            ids.pop(bisect_left(ids, memory_id))
        self._link(int(self._before[row]), int(self._after[row]))

    def _insert(self, group: int, memory_id: int) -> tuple[int | None, int | None]:
        """Note a memory; returns the ids before and after it."""
        ids = self._ids.get(group)
        if ids is None:
            self._ids[group] = memory_id
            return None, None
        if isinstance(ids, int):
            ids = self._ids[group] = array("q", [ids])
        at = len(ids) if memory_id > ids[-1] else bisect_left(ids, memory_id)
        ids.insert(at, memory_id)
        return (
            ids[at - 1] if at else None,
            ids[at + 1] if at + 1 < len(ids) else None,
        )

    def _link(self, before: int, after: int) -> None:
        if before >= 0:
            self._after[before] = after
        if after >= 0:
            self._before[after] = before

    def _reserve(self, n_rows: int) -> None:
        if n_rows > len(self._groups):
            more = max(_FIRST_CAPACITY_ROWS, 2 * n_rows) - len(self._groups)
            self._groups = np.pad(self._groups, (0, more))
            self._before = np.pad(self._before, (0, more))
            self._after = np.pad(self._after, (0, more))
