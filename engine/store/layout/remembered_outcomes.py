"""Outcomes of recent writes: one sent again after its answer was lost is not applied twice.

Ids that the service makes for its own retries are asked for again within seconds. One that holds
a key which a caller gave is asked for by whoever comes back to a task hours later, so those have
places of their own, which no other writes push them out of.

A row's `number` says which kind it is, and how much of that kind was remembered up to it, in KiB.
An outcome counts as one KiB at least. Each write forgets about as much as it adds, so none waits
for a large clean-up.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from engine.errors import RottenRowError
from engine.store.layout.row_checksum import is_intact, with_checksum

CALLERS_KEY = "key "
"""What the id of a write begins with when its caller gave it a key."""

OWN_KIB = 10_000
"""Kept of the service's own: a minute of as many writes as fit into one."""
CALLERS_KIB = 100_000
"""Kept of those given by callers."""

_CALLERS = 1 << 62
"""Numbers from here on are those of callers."""


class RememberedOutcomes:
    """The table `requests` in one open transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, request_id: str) -> str | None:
        """The outcome, as JSON, of a write that was applied already."""
        row = self._connection.execute(
            "SELECT * FROM requests WHERE request_id = ?", (request_id,)
        ).fetchone()
        if row is not None and not is_intact(row):
            raise RottenRowError(f"the outcome of write {row[0]} is not as it was written")
        return None if row is None else str(row[2])

    def put(self, request_id: str, outcome: str, *, replaces: str | None = None) -> None:
        """Keep a write's outcome beside it, and forget those of long ago.

        Args:
            request_id: of the write.
            outcome: as JSON.
            replaces: id of an earlier write whose outcome nobody will ask for again; it is
                forgotten instead of one of long ago.
        """
        number = None if replaces is None else self._give_up(replaces)
        if number is None:
            n_kib = 1 + len(outcome) // 1024
            if request_id.startswith(CALLERS_KEY):
                number = self._last_of_callers() + n_kib
                self._forget(_CALLERS, number - CALLERS_KIB)
            else:
                number = self._last_own() + n_kib
                self._forget(0, number - OWN_KIB)
        self._connection.execute(
            "INSERT INTO requests VALUES (?, ?, ?, ?)", with_checksum(number, request_id, outcome)
        )

    def forget_where(self, is_meant: Callable[[str], bool]) -> None:
        """Forget those of callers whose request ids are meant. Looks at each."""
        ids = self._connection.execute(
            "SELECT request_id FROM requests WHERE number >= ?", (_CALLERS,)
        ).fetchall()
        self._connection.executemany(
            "DELETE FROM requests WHERE request_id = ?", [row for row in ids if is_meant(row[0])]
        )

    def _give_up(self, request_id: str) -> int | None:
        """Forget an outcome of the service's own; returns its place unless that is old."""
        row = self._connection.execute(
            "DELETE FROM requests WHERE request_id = ? RETURNING number", (request_id,)
        ).fetchone()
        is_young = row is not None and row[0] > self._last_own() - OWN_KIB // 2
        return int(row[0]) if is_young else None

    def _last_own(self) -> int:
        query = "SELECT max(number) FROM requests WHERE number < ?"
        return int(self._connection.execute(query, (_CALLERS,)).fetchone()[0] or 0)

    def _last_of_callers(self) -> int:
        (last,) = self._connection.execute("SELECT max(number) FROM requests").fetchone()
        return max(last or 0, _CALLERS)

    def _forget(self, first: int, last: int) -> None:
        self._connection.execute("DELETE FROM requests WHERE number BETWEEN ? AND ?", (first, last))
