"""The writes of one transaction. They belong to the writer thread."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from engine.errors import StorageError
from engine.records import FloatMatrix, FloatVector, Memory, MemoryFilter, MemoryId, NewMemory
from engine.store.layout.import_ledger import ImportLedger
from engine.store.layout.namespaces import NamespaceRows
from engine.store.layout.remembered_outcomes import RememberedOutcomes
from engine.store.layout.row_checksum import with_checksum
from engine.store.layout.rows import (
    COLUMNS,
    PRUNED_LSN,
    canonical_json,
    condition_of,
    digests_of,
    embedded_text,
    last_id_of,
    memory_row,
    select_alike,
    select_many,
    set_meta,
    text_digest,
    vector_blob,
    vectors_of,
)
from engine.store.layout.tables import (
    EMBEDDINGS,
    FIRST_NAMESPACE_ID,
    MEMORIES,
    METADATA_VALUES,
    TOMBSTONES,
)
from engine.words.sameness import gist_digest
from engine.workspace.passages import text_in_context

_OVERWRITE = (
    f"UPDATE memories SET ({COLUMNS}) = ({', '.join('?' * len(MEMORIES.columns))}) WHERE id = ?"
)
_PRUNED_AT_ONCE = 5_000
_FEW = 50


class Transaction:
    """An open transaction of a `Store`, of one namespace; its reads include what it wrote."""

    def __init__(
        self, connection: sqlite3.Connection, namespace_id: int = FIRST_NAMESPACE_ID
    ) -> None:
        self._connection = connection
        self.namespace_id = namespace_id
        """Whose memories are written, and exist."""
        self.outcomes = RememberedOutcomes(connection)
        """What became of recent writes."""
        self.imports = ImportLedger(connection)
        self.namespaces = NamespaceRows(connection)

    def within(self, namespace_id: int) -> Transaction:
        """The same transaction, of another namespace."""
        return Transaction(self._connection, namespace_id)

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
        row = memory_row(
            id=new_id,
            namespace_id=self.namespace_id,
            text=memory.text,
            source=memory.source,
            key=memory.key,
            created_us=created_us,
            updated_us=created_us if memory.updated_us is None else memory.updated_us,
            metadata=json.dumps(memory.metadata, ensure_ascii=False),
            lsn=lsn,
        )
        self._connection.execute(MEMORIES.insert, row)
        self._connection.execute(EMBEDDINGS.insert, with_checksum(new_id, vector_blob(vectors)))
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
        row = memory_row(
            id=memory.id,
            namespace_id=self.namespace_id,
            text=memory.text,
            source=memory.source,
            key=memory.key,
            created_us=created_us,
            updated_us=time_us,
            metadata=json.dumps(memory.metadata, ensure_ascii=False),
            lsn=lsn,
        )
        if vectors is not None:
            self._delete_digests(memory.id)
        # A new source alone may make a passage of a file a memory that may be repeated.
        self._insert_digests(memory.id, digests_of(memory.text, memory.source))
        self._connection.execute(_OVERWRITE, (*row, memory.id))
        if vectors is not None:
            self._write_vectors(memory.id, vectors)
        self._insert_metadata_values(memory.id, memory.metadata)

    def set_vectors(self, memory_id: MemoryId, vectors: FloatMatrix, *, lsn: int) -> None:
        """Overwrite the vectors of an existing memory, shape (windows, dim)."""
        self._overwrite(memory_id, lsn=lsn)
        self._write_vectors(memory_id, vectors)

    def _overwrite(self, memory_id: MemoryId, **changes: object) -> None:
        row = self._connection.execute(
            f"SELECT {COLUMNS} FROM memories WHERE id = ?", (memory_id,)
        ).fetchone()
        changed = dict(zip(MEMORIES.names, row, strict=True)) | changes
        self._connection.execute(_OVERWRITE, (*memory_row(**changed), memory_id))

    def vectors_of(self, memory_id: MemoryId, dim: int) -> FloatMatrix:
        """The vectors of a memory that exists, shape (windows, dim)."""
        (blob,) = self._connection.execute(
            "SELECT vector FROM embeddings WHERE id = ?", (memory_id,)
        ).fetchone()
        return vectors_of(blob, dim)

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
        self._connection.execute(TOMBSTONES.insert, with_checksum(memory.id, lsn))

    def move(self, memory: Memory, to: int, *, lsn: int) -> None:
        """Put a memory of this namespace into another, under its id and as it is."""
        self._overwrite(memory.id, namespace_id=to, lsn=lsn)
        self._connection.executemany(
            "UPDATE OR IGNORE text_digests SET namespace_id = ? "
            "WHERE namespace_id = ? AND digest = ? AND id = ?",
            [
                (to, self.namespace_id, digest, memory.id)
                for digest in (
                    text_digest(text_in_context(memory)),
                    text_digest(memory.text),
                    gist_digest(memory.text),
                )
            ],
        )
        self._delete_metadata_values(memory.id)
        self.within(to)._insert_metadata_values(memory.id, memory.metadata)

    def delete_all(self, *, lsn: int) -> int:
        """Remove every memory of the namespace, leaving tombstones; how many there were."""
        mine = (self.namespace_id,)
        of_it = "(SELECT id FROM memories WHERE namespace_id = ?)"
        ids = self._connection.execute(
            "SELECT id FROM memories WHERE namespace_id = ?", mine
        ).fetchall()
        self._connection.executemany(
            TOMBSTONES.insert, (with_checksum(memory_id, lsn) for (memory_id,) in ids)
        )
        self._connection.execute(f"DELETE FROM embeddings WHERE id IN {of_it}", mine)
        for table in ("metadata_values", "text_digests", "memories"):
            self._connection.execute(f"DELETE FROM {table} WHERE namespace_id = ?", mine)
        return len(ids)

    def prune_tombstones(self, up_to_lsn: int) -> None:
        """Remove the oldest tombstones, of deletions at or before `up_to_lsn`."""
        pruned_lsn = int(self.get_meta(PRUNED_LSN) or 0)
        self.set_meta(PRUNED_LSN, str(max(pruned_lsn, up_to_lsn)))
        self._connection.execute(
            "DELETE FROM tombstones WHERE id IN "
            "(SELECT id FROM tombstones WHERE lsn <= ? ORDER BY lsn LIMIT ?)",
            (up_to_lsn, _PRUNED_AT_ONCE),
        )
        self.namespaces.forget_deleted(up_to_lsn)

    def add_digests(self, ids: Sequence[MemoryId]) -> None:
        """Let memories of a release that had no gists be found by theirs; in any namespace."""
        rows = self._connection.execute(
            f"SELECT id, namespace_id, text, source FROM memories WHERE id IN "
            f"({','.join('?' * len(ids))})",
            ids,
        ).fetchall()
        for memory_id, namespace_id, text, source in rows:
            self.within(namespace_id)._insert_digests(memory_id, digests_of(text, source))

    def _insert_digests(self, memory_id: MemoryId, digests: Sequence[bytes]) -> None:
        self._connection.executemany(
            "INSERT OR IGNORE INTO text_digests VALUES (?, ?, ?)",
            [(self.namespace_id, digest, memory_id) for digest in digests],
        )

    def _delete_digests(self, memory_id: MemoryId) -> None:
        text, source, metadata = self._connection.execute(
            "SELECT text, source, metadata FROM memories WHERE id = ?", (memory_id,)
        ).fetchone()
        self._connection.executemany(
            "DELETE FROM text_digests WHERE namespace_id = ? AND digest = ? AND id = ?",
            [
                (self.namespace_id, digest, memory_id)
                for digest in (
                    text_digest(embedded_text(text, source, metadata)),
                    text_digest(text),
                    gist_digest(text),
                )
            ],
        )

    def _insert_metadata_values(self, memory_id: MemoryId, metadata: dict[str, Any]) -> None:
        self._connection.executemany(
            METADATA_VALUES.insert,
            [
                (self.namespace_id, name, canonical_json(value), memory_id)
                for name, value in metadata.items()
            ],
        )

    def _delete_metadata_values(self, memory_id: MemoryId) -> None:
        # By name and value of what was stored, because the table is ordered by them.
        row = self._connection.execute(
            "SELECT metadata FROM memories WHERE id = ?", (memory_id,)
        ).fetchone()
        self._connection.executemany(
            "DELETE FROM metadata_values "
            "WHERE namespace_id = ? AND name = ? AND value = ? AND id = ?",
            [
                (self.namespace_id, name, canonical_json(value), memory_id)
                for name, value in json.loads(row[0]).items()
            ],
        )

    def get_many(self, ids: Sequence[MemoryId]) -> dict[MemoryId, Memory]:
        """The memories among `ids` that exist."""
        return select_many(self._connection, ids, self.namespace_id)

    def alike(self, text: str) -> list[Memory]:
        """The earliest memories that may say the same as a text."""
        return select_alike(self._connection, text, self.namespace_id)

    def get_unchanged(self, ids: Sequence[MemoryId], *, since_lsn: int) -> dict[MemoryId, Memory]:
        """The memories among `ids` that exist and whose last change is at or before `since_lsn`."""
        rows = self._connection.execute("SELECT id FROM memories WHERE lsn > ?", (since_lsn,))
        changed = {row[0] for row in rows}
        return self.get_many([memory_id for memory_id in ids if memory_id not in changed])

    def lsn_of(self, memory_id: MemoryId) -> int | None:
        """LSN of a memory's last change; None without the memory."""
        row = self._connection.execute(
            "SELECT lsn FROM memories WHERE id = ? AND +namespace_id = ?",
            (memory_id, self.namespace_id),
        ).fetchone()
        return row[0] if row else None

    def ids_where(self, where: MemoryFilter) -> list[MemoryId]:
        """Ids of the memories that pass a filter."""
        condition, parameters = condition_of(where, [self.namespace_id])
        rows = self._connection.execute(f"SELECT id FROM memories WHERE {condition}", parameters)
        return [row[0] for row in rows]

    def id_of_key(self, source: str, key: str) -> MemoryId | None:
        """The memory with this key."""
        row = self._connection.execute(
            "SELECT id FROM memories WHERE namespace_id = ? AND source = ? AND key = ?",
            (self.namespace_id, source, key),
        ).fetchone()
        return row[0] if row else None

    def id_like(self, memory: NewMemory) -> MemoryId | None:
        """The memory with this one's key or, without one, its text, source and time.

        Of several the one whose number is its `merge_copy`, from 1.
        """
        if memory.key is not None:
            return self.id_of_key(memory.source, memory.key)
        # A source has few memories, or a moment has: a build stores all of its passages at one.
        mine, digests = self.namespace_id, digests_of(memory.text, memory.source)
        parameters: tuple[Any, ...] = (mine, memory.source, memory.created_us, memory.text)
        within = "namespace_id = ?"
        if self._has_few("source", memory.source):
            among = "INDEXED BY memories_by_source"
        elif self._has_few("created_us", memory.created_us) or not digests:
            among = "INDEXED BY memories_by_created"
        else:
            of_text = f"SELECT DISTINCT id FROM text_digests WHERE {within} AND digest IN (?, ?)"
            among, within = f"JOIN ({of_text}) USING (id)", f"+{within}"
            parameters = (mine, *digests, text_digest(memory.text), *parameters)
        row = self._connection.execute(
            f"SELECT id FROM memories {among} WHERE {within} AND source = ? AND created_us = ? "
            "AND text = ? ORDER BY id LIMIT 1 OFFSET ?",
            (*parameters, (memory.merge_copy or 1) - 1),
        ).fetchone()
        return row[0] if row else None

    def _has_few(self, column: str, value: str | int | None) -> bool:
        rows = self._connection.execute(
            f"SELECT 1 FROM memories WHERE namespace_id = ? AND {column} = ? LIMIT ?",
            (self.namespace_id, value, _FEW),
        )
        return len(rows.fetchall()) < _FEW
