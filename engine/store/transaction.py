"""The writes of one transaction. They belong to the writer thread."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from engine.errors import RottenRowError, StorageError
from engine.records import FloatMatrix, FloatVector, Memory, MemoryFilter, MemoryId, NewMemory
from engine.store.remembered_outcomes import RememberedOutcomes
from engine.store.row_checksum import is_intact, row_checksum, with_checksum
from engine.store.rows import (
    COLUMNS,
    PRUNED_LSN,
    canonical_json,
    condition_of,
    digests_of,
    embedded_text,
    last_id_of,
    select_alike,
    select_many,
    set_meta,
    text_digest,
    vector_blob,
)
from engine.words.sameness import gist_digest
from engine.workspace.passages import text_in_context

_MARKS = ", ".join("?" * len(COLUMNS.split(",")))
_PRUNED_AT_ONCE = 5_000
_FEW = 50


class Transaction:
    """An open transaction of a `Store`; what it reads includes what it wrote."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.outcomes = RememberedOutcomes(connection)
        """What became of recent writes."""

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """A part of the transaction that can fail alone."""
        self._connection.execute("SAVEPOINT job")
        try:
            yield
        except BaseException as exc:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK TO job")
                self._connection.execute("RELEASE job")
            if isinstance(exc, sqlite3.IntegrityError):  # this part's fault, not the file's
                raise StorageError(f"the tables do not allow it: {exc}") from exc
            raise
        self._connection.execute("RELEASE job")

    def set_meta(self, name: str, value: str) -> None:
        """Record a fact about the store in the open transaction."""
        set_meta(self._connection, name, value)

    def get_meta(self, name: str) -> str | None:
        """A fact recorded with `set_meta`, as the open transaction sees it."""
        row = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def set_lsn(self, lsn: int, changed_us: int) -> None:
        """Record the LSN that the open transaction reaches."""
        self.set_meta("lsn", str(lsn))
        self.set_meta("changed_us", str(changed_us))
        self.set_meta("last_id", str(last_id_of(self._connection)))

    def insert(
        self,
        memory: NewMemory,
        vectors: FloatVector | FloatMatrix,
        *,
        time_us: int,
        lsn: int,
        memory_id: MemoryId | None = None,
    ) -> MemoryId:
        """Add a memory, under a fresh id unless given one; dated `time_us` if not dated."""
        new_id = MemoryId(last_id_of(self._connection) + 1 if memory_id is None else memory_id)
        created_us = time_us if memory.created_us is None else memory.created_us
        row = with_checksum(
            new_id,
            memory.text,
            memory.source,
            memory.key,
            created_us,
            created_us if memory.updated_us is None else memory.updated_us,
            json.dumps(memory.metadata, ensure_ascii=False),
            lsn,
        )
        self._connection.execute(f"INSERT INTO memories VALUES ({_MARKS})", row)
        self._connection.execute(
            "INSERT INTO embeddings VALUES (?, ?, ?)", with_checksum(new_id, vector_blob(vectors))
        )
        digests = digests_of(memory.text, memory.source)
        if not memory.own_vector:
            digests = (text_digest(text_in_context(memory)), *digests)
        self._insert_digests(new_id, digests)
        self._insert_metadata_values(new_id, memory.metadata)
        return new_id

    def replace(
        self,
        memory: Memory,
        vectors: FloatMatrix | None,
        *,
        time_us: int,
        lsn: int,
        created_us: int | None = None,
    ) -> None:
        """Overwrite text, source and metadata of an existing memory; `vectors` if they changed.

        Args:
            memory: as it shall be; its times are not looked at.
            vectors: of the new text; None leaves them.
            time_us: time of this change.
            lsn: of this change.
            created_us: a new time of creation; None leaves it.
        """
        self._delete_metadata_values(memory.id)
        if created_us is None:
            (created_us,) = self._connection.execute(
                "SELECT created_us FROM memories WHERE id = ?", (memory.id,)
            ).fetchone()
        row = with_checksum(
            memory.id,
            memory.text,
            memory.source,
            memory.key,
            created_us,
            time_us,
            json.dumps(memory.metadata, ensure_ascii=False),
            lsn,
        )
        if vectors is not None:
            self._delete_digests(memory.id)
        # A new source alone may make a passage of a file a memory that may be repeated.
        self._insert_digests(memory.id, digests_of(memory.text, memory.source))
        self._connection.execute(
            f"UPDATE memories SET ({COLUMNS}) = ({_MARKS}) WHERE id = ?", (*row, memory.id)
        )
        if vectors is not None:
            self._write_vectors(memory.id, vectors)
        self._insert_metadata_values(memory.id, memory.metadata)

    def set_vectors(self, memory_id: MemoryId, vectors: FloatMatrix, *, lsn: int) -> None:
        """Overwrite the vectors of an existing memory, shape (windows, dim)."""
        *row, _, _ = self._connection.execute(
            f"SELECT {COLUMNS} FROM memories WHERE id = ?", (memory_id,)
        ).fetchone()
        self._connection.execute(
            f"UPDATE memories SET ({COLUMNS}) = ({_MARKS}) WHERE id = ?",
            (*with_checksum(*row, lsn), memory_id),
        )
        self._write_vectors(memory_id, vectors)

    def _write_vectors(self, memory_id: MemoryId, vectors: FloatMatrix) -> None:
        self._connection.execute(
            "UPDATE embeddings SET (id, vector, checksum) = (?, ?, ?) WHERE id = ?",
            (*with_checksum(memory_id, vector_blob(vectors)), memory_id),
        )

    def delete(self, memory: Memory, *, lsn: int) -> None:
        """Remove a memory, leaving its tombstone."""
        self._delete_metadata_values(memory.id)
        self._delete_digests(memory.id)
        self._connection.execute("DELETE FROM embeddings WHERE id = ?", (memory.id,))
        self._connection.execute("DELETE FROM memories WHERE id = ?", (memory.id,))
        self._connection.execute(
            "INSERT INTO tombstones VALUES (?, ?, ?)", with_checksum(memory.id, lsn)
        )

    def prune_tombstones(self, up_to_lsn: int) -> None:
        """Remove the oldest tombstones, of deletions at or before `up_to_lsn`."""
        pruned_lsn = int(self.get_meta(PRUNED_LSN) or 0)
        self.set_meta(PRUNED_LSN, str(max(pruned_lsn, up_to_lsn)))
        self._connection.execute(
            "DELETE FROM tombstones WHERE id IN "
            "(SELECT id FROM tombstones WHERE lsn <= ? ORDER BY lsn LIMIT ?)",
            (up_to_lsn, _PRUNED_AT_ONCE),
        )

    def add_digests(self, ids: Sequence[MemoryId]) -> None:
        """Let memories of a release that had no gists be found by theirs."""
        for memory in self.get_many(ids).values():
            self._insert_digests(memory.id, digests_of(memory.text, memory.source))

    def _insert_digests(self, memory_id: MemoryId, digests: Sequence[bytes]) -> None:
        self._connection.executemany(
            "INSERT OR IGNORE INTO text_digests VALUES (?, ?)",
            [(digest, memory_id) for digest in digests],
        )

    def _delete_digests(self, memory_id: MemoryId) -> None:
        text, source, metadata = self._connection.execute(
            "SELECT text, source, metadata FROM memories WHERE id = ?", (memory_id,)
        ).fetchone()
        self._connection.executemany(
            "DELETE FROM text_digests WHERE digest = ? AND id = ?",
            [
                (digest, memory_id)
                for digest in (
                    text_digest(embedded_text(text, source, metadata)),
                    text_digest(text),
                    gist_digest(text),
                )
            ],
        )

    def _insert_metadata_values(self, memory_id: MemoryId, metadata: dict[str, Any]) -> None:
        self._connection.executemany(
            "INSERT INTO metadata_values VALUES (?, ?, ?)",
            [(name, canonical_json(value), memory_id) for name, value in metadata.items()],
        )

    def _delete_metadata_values(self, memory_id: MemoryId) -> None:
        # By name and value of what was stored, because the table is ordered by them.
        row = self._connection.execute(
            "SELECT metadata FROM memories WHERE id = ?", (memory_id,)
        ).fetchone()
        self._connection.executemany(
            "DELETE FROM metadata_values WHERE name = ? AND value = ? AND id = ?",
            [
                (name, canonical_json(value), memory_id)
                for name, value in json.loads(row[0]).items()
            ],
        )

    def get_many(self, ids: Sequence[MemoryId]) -> dict[MemoryId, Memory]:
        """The memories among `ids` that exist."""
        return select_many(self._connection, ids)

    def alike(self, text: str) -> list[Memory]:
        """The earliest memories that may say the same as a text."""
        return select_alike(self._connection, text)

    def get_unchanged(self, ids: Sequence[MemoryId], *, since_lsn: int) -> dict[MemoryId, Memory]:
        """The memories among `ids` that exist and whose last change is at or before `since_lsn`."""
        rows = self._connection.execute("SELECT id FROM memories WHERE lsn > ?", (since_lsn,))
        changed = {row[0] for row in rows}
        return self.get_many([memory_id for memory_id in ids if memory_id not in changed])

    def lsn_of(self, memory_id: MemoryId) -> int | None:
        """LSN of a memory's last change; None without the memory."""
        row = self._connection.execute(
            "SELECT lsn FROM memories WHERE id = ?", (memory_id,)
        ).fetchone()
        return row[0] if row else None

    def ids_where(self, where: MemoryFilter) -> list[MemoryId]:
        """Ids of the memories that pass a filter."""
        condition, parameters = condition_of(where)
        rows = self._connection.execute(f"SELECT id FROM memories WHERE {condition}", parameters)
        return [row[0] for row in rows]

    def id_of_key(self, source: str, key: str) -> MemoryId | None:
        """The memory with this key."""
        row = self._connection.execute(
            "SELECT id FROM memories WHERE source = ? AND key = ?", (source, key)
        ).fetchone()
        return row[0] if row else None

    def id_like(self, memory: NewMemory) -> MemoryId | None:
        """The memory with this one's key or, without one, its text, source and time.

        Of several the one whose number is its `merge_copy`, from 1.
        """
        if memory.key is not None:
            return self.id_of_key(memory.source, memory.key)
        digests = digests_of(memory.text, memory.source)
        parameters: tuple[Any, ...] = (memory.source, memory.created_us, memory.text)
        if self._has_few("source", memory.source):
            among = "INDEXED BY memories_by_source"
        elif self._has_few("created_us", memory.created_us) or not digests:
            among = "INDEXED BY memories_by_created"
        else:
            of_text = "SELECT DISTINCT id FROM text_digests WHERE digest IN (?, ?)"
            among = f"JOIN ({of_text}) USING (id)"
            parameters = (*digests, text_digest(memory.text), *parameters)
        row = self._connection.execute(
            f"SELECT id FROM memories {among} WHERE source = ? AND created_us = ? AND text = ? "
            "ORDER BY id LIMIT 1 OFFSET ?",
            (*parameters, (memory.merge_copy or 1) - 1),
        ).fetchone()
        return row[0] if row else None

    def _has_few(self, column: str, value: str | int | None) -> bool:
        rows = self._connection.execute(
            f"SELECT 1 FROM memories WHERE {column} = ? LIMIT ?", (value, _FEW)
        )
        return len(rows.fetchall()) < _FEW

    # Imports that are sent again

    def use_import(self, key: str, *, time_us: int) -> int:
        """The number of the import with this key, noting that it is in use."""
        (number,) = self._connection.execute(
            "INSERT INTO imports (key, used_us) VALUES (?, ?) "
            "ON CONFLICT (key) DO UPDATE SET used_us = excluded.used_us RETURNING number",
            (key, time_us),
        ).fetchone()
        return int(number)

    def take_import_line(self, number: int, digest: bytes, *, attempt: int) -> str | None:
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

    def add_import_line(self, number: int, digest: bytes, *, attempt: int, outcome: str) -> None:
        """Remember a line that was applied."""
        (copy,) = self._connection.execute(
            "SELECT coalesce(max(copy) + 1, 0) FROM import_lines WHERE import = ? AND digest = ?",
            (number, digest),
        ).fetchone()
        self._connection.execute(
            "INSERT INTO import_lines VALUES (?, ?, ?, ?, ?, ?)",
            with_checksum(number, digest, copy, attempt, outcome),
        )

    def forget_imports(self, *, before_us: int, max_lines: int) -> None:
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
