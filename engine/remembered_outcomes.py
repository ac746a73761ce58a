"""Outcomes of recent writes: one sent again after its answer was lost is not applied twice.

Ids that the service makes for its own retries are asked for again within seconds. One that holds
a key which a caller gave is asked for by whoever comes back to a task hours later, so those have
places of their own, which no other writes push them out of.

A row's `number` says which kind it is, how much was remembered before it, in KiB, and when:

    0 | KiB so far                          the service's own
    1 | KiB so far (42 bits) | hour (20)    given by a caller

An outcome counts as one KiB at least. Each write forgets about as much as it adds, so none waits
for a large clean-up.
"""

from __future__ import annotations

import sqlite3

from engine.errors import RottenRowError
from engine.row_checksum import is_intact, with_checksum

CALLERS_KEY = "key "
"""What the id of a write begins with when its caller gave it a key."""

OWN_KIB = 10_000
"""Kept of the service's own: a minute of as many writes as fit into one."""
CALLERS_KIB = 100_000
"""Kept of those given by callers, at most."""
CALLERS_HOURS = 24
"""How long those are kept."""

_CALLERS = 1 << 62
_HOUR_BITS = 20
_HOUR = (1 << _HOUR_BITS) - 1
_US_AN_HOUR = 3_600_000_000


class RememberedOutcomes:
    """The table `requests` in one open transaction, at a certain time."""

    def __init__(self, connection: sqlite3.Connection, *, time_us: int) -> None:
        self._connection = connection
        self._hour = time_us // _US_AN_HOUR & _HOUR
        # A write that is undone leaves a gap behind these, which does no harm.
        self._last_own = self._last("number < ?", otherwise=0)
        self._last_callers = self._last("number >= ?", otherwise=_CALLERS)

    def _last(self, condition: str, *, otherwise: int) -> int:
        (number,) = self._connection.execute(
            f"SELECT max(number) FROM requests WHERE {condition}", (_CALLERS,)
        ).fetchone()
        return otherwise if number is None else int(number)

    def get(self, request_id: str) -> str | None:
        """The outcome, as JSON, of a write that was applied already."""
        row = self._connection.execute(
            "SELECT * FROM requests WHERE request_id = ?", (request_id,)
        ).fetchone()
        if row is None:
            return None
        if not is_intact(row):
            raise RottenRowError(f"the outcome of write {row[0]} is not as it was written")
        return None if self._is_old(row[0]) else str(row[2])

    def put(self, request_id: str, outcome: str, *, replaces: str | None = None) -> None:
        """Keep a write's outcome beside it, and forget those of long ago.

        Args:
            request_id: of the write.
            outcome: as JSON.
            replaces: id of an earlier write whose outcome nobody will ask for again; it is
                forgotten instead of one of long ago.
        """
        n_kib = 1 + len(outcome) // 1024
        number = None if replaces is None else self._give_up(replaces)
        if number is None:
            is_callers = request_id.startswith(CALLERS_KEY)
            number = self._next_callers(n_kib) if is_callers else self._next_own(n_kib)
        self._connection.execute(
            "INSERT OR REPLACE INTO requests VALUES (?, ?, ?, ?)",
            with_checksum(number, request_id, outcome),
        )

    def _give_up(self, request_id: str) -> int | None:
        """Forget an outcome of the service's own; returns its place unless that is old."""
        row = self._connection.execute(
            "DELETE FROM requests WHERE request_id = ? RETURNING number", (request_id,)
        ).fetchone()
        is_young = row is not None and row[0] > self._last_own - OWN_KIB // 2
        return int(row[0]) if is_young else None

    def _next_own(self, n_kib: int) -> int:
        self._last_own += n_kib
        self._connection.execute(
            "DELETE FROM requests WHERE number <= ?", (self._last_own - OWN_KIB,)
        )
        return self._last_own

    def _next_callers(self, n_kib: int) -> int:
        n_kib_so_far = (self._last_callers ^ _CALLERS) >> _HOUR_BITS
        self._last_callers = _CALLERS | (n_kib_so_far + n_kib) << _HOUR_BITS | self._hour
        beyond = self._last_callers - (CALLERS_KIB << _HOUR_BITS)
        oldest = self._connection.execute(
            "SELECT number FROM requests WHERE number >= ? ORDER BY number LIMIT ?",
            (_CALLERS, n_kib + 1),
        ).fetchall()
        forgotten = [row for row in oldest if row[0] <= beyond or self._is_old(row[0])]
        if forgotten:
            self._connection.executemany("DELETE FROM requests WHERE number = ?", forgotten)
        return self._last_callers

    def _is_old(self, number: int) -> bool:
        return number >= _CALLERS and self._hour - (number & _HOUR) > CALLERS_HOURS
