"""Streamed imports that a caller named by a key, and each line of them that was applied."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from engine.errors import RottenRowError
from engine.store.layout.row_checksum import is_intact, row_checksum, with_checksum
from engine.store.layout.tables import IMPORT_LINES


class ImportLedger:
    """The tables `imports` and `import_lines` in one open transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def use(self, key: str, *, time_us: int) -> int:
        """The number of the import with this key, noting that it is in use."""
        (number,) = self._connection.execute(
            "INSERT INTO imports (key, used_us) VALUES (?, ?) "
            "ON CONFLICT (key) DO UPDATE SET used_us = excluded.used_us RETURNING number",
            (key, time_us),
        ).fetchone()
        return int(number)

    def take_line(self, number: int, digest: bytes, *, attempt: int) -> str | None:
        """The outcome of a line that an earlier attempt applied; each is given out once."""
        row = self._connection.execute(
            "SELECT * FROM import_lines "
            "WHERE import = ? AND digest = ? AND attempt <> ? ORDER BY copy LIMIT 1",
            (number, digest, attempt),
        ).fetchone()
        if row is None:
            return None
        if not is_intact(row):
            raise RottenRowError(f"a line of import {number} is not as it was written")
        *_, copy, _, outcome, _ = row
        self._connection.execute(
            "UPDATE import_lines SET (attempt, checksum) = (?, ?) "
            "WHERE import = ? AND digest = ? AND copy = ?",
            (
                attempt,
                row_checksum((number, digest, copy, attempt, outcome)),
                number,
                digest,
                copy,
            ),
        )
        return str(outcome)

    def add_line(self, number: int, digest: bytes, *, attempt: int, outcome: str) -> None:
        """Remember a line that was applied."""
        (copy,) = self._connection.execute(
            "SELECT coalesce(max(copy) + 1, 0) FROM import_lines WHERE import = ? AND digest = ?",
            (number, digest),
        ).fetchone()
        self._connection.execute(
            IMPORT_LINES.insert,
            with_checksum(number, digest, copy, attempt, outcome),
        )

    def forget_where(self, is_meant: Callable[[str], bool]) -> None:
        """Have the imports whose keys are meant be found by none, and soon forgotten."""
        rows = self._connection.execute("SELECT number, key FROM imports").fetchall()
        self._connection.executemany(
            "UPDATE imports SET (key, used_us) = ('gone ' || number, 0) WHERE number = ?",
            [(number,) for number, key in rows if is_meant(key)],
        )

    def forget(self, *, before_us: int, max_lines: int) -> None:
        """Forget an import not used since `before_us`, a part of its lines at a time."""
        row = self._connection.execute(
            "SELECT number FROM imports WHERE used_us < ? LIMIT 1", (before_us,)
        ).fetchone()
        if row is None:
            return
        forgotten = self._connection.execute(
            "DELETE FROM import_lines WHERE (import, digest, copy) IN "
            "(SELECT import, digest, copy FROM import_lines WHERE import = ? LIMIT ?)",
            (row[0], max_lines),
        )
        if forgotten.rowcount < max_lines:
            self._connection.execute("DELETE FROM imports WHERE number = ?", row)
