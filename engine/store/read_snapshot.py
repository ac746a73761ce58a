"""Reading much of a store as of one moment, in pieces, while writes go on.

A snapshot is a read transaction on a connection of its own (https://sqlite.org/isolation.html).
It blocks no writer, but the WAL cannot be emptied past it, so it must not stay open for ever.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from engine.errors import NotReadyError
from engine.records import Memory, MemoryFilter
from engine.store.database import Store
from engine.store.layout.rows import COLUMNS, condition_of, memory_of
from engine.store.layout.schema import translating_sqlite_errors


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedMemory:
    """One memory of a snapshot."""

    memory: Memory
    vector: bytes | None
    """Little-endian float32; None when embeddings were not asked for."""


class Snapshot:
    """The memories of a namespace that pass a filter, by id, as of one LSN.

    For one thread at a time.
    """

    def __init__(
        self, store: Store, where: MemoryFilter, namespace_id: int, *, with_embeddings: bool
    ) -> None:
        """Begin; writes after this are not seen."""
        self._store = store
        self.namespace_id = namespace_id
        """Whose memories it holds."""
        self._with_embeddings = with_embeddings
        self._connection = store.open_reader()
        with translating_sqlite_errors(store.path):
            self._connection.execute("BEGIN")
            condition, parameters = condition_of(where, [namespace_id])
            (lsn,) = self._connection.execute(
                "SELECT value FROM meta WHERE name = 'lsn'"
            ).fetchone()
            self.lsn = int(lsn)
            (self.total,) = self._connection.execute(
                f"SELECT count(*) FROM memories WHERE {condition}", parameters
            ).fetchone()
            columns, tables = COLUMNS, "memories"
            if with_embeddings:
                own = ", ".join(f"memories.{column}" for column in COLUMNS.split(", "))
                columns, tables = f"{own}, vector", "memories JOIN embeddings USING (id)"
            self._rows = store.open_cursor(
                self._connection,
                f"SELECT {columns} FROM {tables} WHERE {condition} ORDER BY id",
                parameters,
            )

    def read(self, max_bytes: int) -> list[ExportedMemory]:
        """The next memories, until they take `max_bytes`; none at the end.

        Raises:
            NotReadyError: the store was replaced or closed meanwhile.
        """
        found: list[ExportedMemory] = []
        n_bytes = 0
        with translating_sqlite_errors(self._store.path):
            try:
                while n_bytes < max_bytes and (row := self._rows.fetchone()) is not None:
                    found.append(self._exported(row))
                    n_bytes += _size_of(row)
            except sqlite3.ProgrammingError as exc:  # closed with the store
                raise NotReadyError("the store was replaced meanwhile; export again") from exc
        return found

    def _exported(self, row: tuple[Any, ...]) -> ExportedMemory:
        if not self._with_embeddings:
            return ExportedMemory(memory=memory_of(row), vector=None)
        n_bytes = 4 * self._store.identity.dim  # of the first window
        return ExportedMemory(memory=memory_of(row[:-1]), vector=row[-1][:n_bytes])

    def close(self) -> None:
        """End the transaction. Idempotent."""
        self._store.close_reader(self._rows)
        self._store.close_reader(self._connection)


def _size_of(row: tuple[Any, ...]) -> int:
    """About the bytes that a row takes as a line: characters of text may take four."""
    return sum(len(value) if isinstance(value, str | bytes) else 8 for value in row)
