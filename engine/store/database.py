"""The durable truth: every memory with its embedding, in one SQLite database.

Everything else (vector index, posting lists, caches, backups) is derived from it.
Each write job has an LSN; a row carries the LSN of its last change and a deleted one leaves a
tombstone, so that "what changed since" is one query.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.commands import script_command
from engine.disk.durable_files import file_id, fsync_directory
from engine.errors import (
    ModelMismatchError,
    RottenRowError,
    StorageError,
    StoreCorruptError,
    StoreMovedError,
)
from engine.records import (
    Beginning,
    FloatMatrix,
    IdArray,
    Memory,
    MemoryFilter,
    MemoryId,
    MemoryPage,
    ModelIdentity,
)
from engine.store.acknowledged_mark import HighWaterMark, Mark
from engine.store.distrust import distrusted
from engine.store.foreign_json import object_of, parse_json, record_of
from engine.store.layout.namespaces import NamespaceFacts, select_namespaces
from engine.store.layout.row_checksum import is_intact
from engine.store.layout.rows import (
    AT,
    COLUMNS,
    canonical_json,
    condition_of,
    cursor_after,
    embedded_text,
    identity_fields,
    last_id_of,
    memory_of,
    place_of,
    read_meta,
    select_alike,
    select_beginnings,
    select_created_us,
    select_many,
    text_digest,
    vectors_of,
)
from engine.store.layout.schema import (
    connect,
    create_tables,
    is_empty_database,
    translating_sqlite_errors,
)
from engine.store.transaction import Transaction
from engine.store.upgrade import upgrade

DATABASE_NAME = "memories.db"
_IDS_OF = "(SELECT id FROM memories WHERE namespace_id = ?)"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVectors:
    """The vectors of all memories of a namespace."""

    ids: IdArray
    """Ascending."""
    firsts: FloatMatrix
    """Shape (n, dim)."""
    later: dict[int, FloatMatrix]
    """By id, of texts longer than one window: (windows past the first, dim)."""

    def of(self, memory_id: MemoryId) -> FloatMatrix:
        """All vectors of one memory, shape (windows, dim)."""
        at = int(np.searchsorted(self.ids, memory_id))
        first = self.firsts[at : at + 1]
        later = self.later.get(memory_id)
        return first if later is None else np.concatenate([first, later])


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredText:
    """A text in its context, and which vectors it has."""

    id: MemoryId
    namespace_id: int
    lsn: int
    """Of its last change."""
    text: str
    n_windows: int
    says_something: bool
    """Whether its first vector is not all zeros."""


def now_us() -> int:
    """Wall-clock time, microseconds since the epoch."""
    return time.time_ns() // 1_000


def recorded_precision(database: Path) -> str | None:
    """The precision of the model that made a database's vectors; None for none or a broken one."""
    if not database.exists():
        return None
    try:
        with distrusted(database, access="mode=ro") as connection:
            (model,) = connection.execute("SELECT value FROM meta WHERE name = 'model'").fetchone()
            return str(json.loads(model)["precision"])
    except (StorageError, TypeError, ValueError, KeyError, RecursionError):
        return None  # opening it says what is wrong


def recorded_identity(database: Path) -> ModelIdentity:
    """The model that made a database's vectors. Raises `StoreCorruptError` when it says none."""
    try:
        with translating_sqlite_errors(database), closing(connect(database, mode="rw")) as opened:
            return record_of(ModelIdentity, parse_json(read_meta(opened)["model"]))
    except (KeyError, ValueError, RottenRowError) as exc:
        raise StoreCorruptError(str(database), "it does not say which model made it") from exc


def _facts_of_new(identity: ModelIdentity) -> dict[str, str]:
    return {
        "epoch": uuid.uuid4().hex,
        "lsn": "0",
        "last_id": "0",
        "created_us": str(now_us()),
        "model": canonical_json(identity_fields(identity)),
    }


class Store:
    """The database of one data directory.

    Reads may come from any thread, each with a connection of its own, and see the last commit.
    Writes belong to one thread, inside `transaction()`.
    """

    def __init__(self, path: Path, *, identity: ModelIdentity) -> None:
        """Open the database, or create it; one of an older format is upgraded.

        Raises:
            StoreFormatError, StoreCorruptError: the file cannot be used.
            ModelMismatchError: its vectors come from another model.
        """
        self.path = path
        self._wal_path = path.with_name(path.name + "-wal")
        self.mark: HighWaterMark | None = None
        self._local = threading.local()
        self._readers: list[sqlite3.Connection | sqlite3.Cursor] = []
        self._readers_lock = threading.Lock()
        is_new = is_empty_database(path)
        if not is_new:
            upgrade(path)
        self._writer = connect(path, mode="rwc")
        try:
            with translating_sqlite_errors(path):
                if is_new:
                    create_tables(self._writer, _facts_of_new(identity))
                    fsync_directory(path.parent)
                self._meta = read_meta(self._writer)
            self._check_identity(identity)
            self._lsn = int(self._meta["lsn"])
        except (KeyError, ValueError, RottenRowError) as exc:
            self.close()
            raise StoreCorruptError(str(path), f"its facts cannot be used: {exc}") from exc
        except BaseException:
            self.close()
            raise
        self.identity = identity
        self._files = self._files_in_place()

    def _files_in_place(self) -> list[tuple[int, int] | None]:
        """Device and inode of the files that are there under the names of ours."""
        return [file_id(path) for path in (self.path, self._wal_path)]

    def check_in_place(self) -> None:
        """Raise `StoreMovedError` when what is written is no longer what others find there."""
        if self._files_in_place() != self._files:
            raise StoreMovedError(str(self.path))

    def _check_identity(self, identity: ModelIdentity) -> None:
        try:
            stored = object_of(parse_json(self._meta["model"]))
        except (KeyError, ValueError) as exc:
            raise StoreCorruptError(str(self.path), "it does not say which model made it") from exc
        if stored != identity_fields(identity):
            known = record_of(ModelIdentity, stored)
            raise ModelMismatchError(
                f"{self.path} holds vectors of {known.name} ({known.precision}, "
                f"{known.dim} dimensions, weights {known.fingerprint[:12]}), but the "
                f"service embeds with {identity.name} ({identity.precision}, {identity.dim}, "
                f"{identity.fingerprint[:12]}); set MODEL_NAME and MODEL_PRECISION back, or embed "
                f"the memories anew with: {script_command('reembed', self.path.parent)}"
            )

    def close(self) -> None:
        """Close every connection; the last one checkpoints the WAL. Idempotent."""
        with self._readers_lock:
            # Cursors before their connections: one that is being read keeps the file open.
            for reader in reversed(self._readers):
                reader.close()
            self._readers.clear()
        self._writer.close()

    # Facts

    @property
    def lsn(self) -> int:
        """LSN of the last committed write."""
        return self._lsn

    @property
    def epoch(self) -> str:
        """Changes when a restore replaces the history that LSNs count."""
        return self._meta["epoch"]

    @property
    def created_us(self) -> int:
        """When the store was created."""
        return int(self._meta["created_us"])

    def last_changed_us(self) -> int | None:
        """Time of the last committed write; None before the first."""
        row = self._reader().execute("SELECT value FROM meta WHERE name = 'changed_us'").fetchone()
        return int(row[0]) if row else None

    def count(self, namespace_id: int | None = None) -> int:
        """Memories in a namespace, or in all. Reads an index of them: some ms for a million."""
        query = "SELECT count(*) FROM memories"
        if namespace_id is None:
            return int(self._read(query)[0][0])
        return int(self._read(f"{query} WHERE namespace_id = ?", (namespace_id,))[0][0])

    def namespaces(self) -> list[NamespaceFacts]:
        """All namespaces, and how much each holds."""
        with self._snapshot() as connection:
            return select_namespaces(connection)

    def file_bytes(self) -> int:
        """Size on disk, the WAL included."""
        paths = (self.path, self._wal_path)
        return sum(p.stat().st_size for p in paths if p.exists())

    # Reads

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self.open_reader()
        return connection

    def open_reader(self) -> sqlite3.Connection:
        """A read-only connection of the caller's own; it is closed with the store at the latest."""
        connection = connect(self.path, mode="rw")
        connection.execute("PRAGMA query_only = ON")
        with self._readers_lock:
            self._readers.append(connection)
        return connection

    def open_cursor(
        self, connection: sqlite3.Connection, sql: str, parameters: Sequence[object]
    ) -> sqlite3.Cursor:
        """Run a query on what `open_reader` returned, to be read in pieces."""
        cursor = connection.execute(sql, parameters)
        with self._readers_lock:
            self._readers.append(cursor)
        return cursor

    def close_reader(self, reader: sqlite3.Connection | sqlite3.Cursor) -> None:
        """Close a connection or a cursor opened here. Idempotent."""
        with self._readers_lock:
            if reader in self._readers:
                self._readers.remove(reader)
        with suppress(sqlite3.ProgrammingError):  # a cursor whose connection is closed already
            reader.close()

    def _read(self, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
        with translating_sqlite_errors(self.path):
            return self._reader().execute(sql, parameters).fetchall()

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection; all that is read from it is as of one commit."""
        connection = self._reader()
        with translating_sqlite_errors(self.path):
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    def get_many(self, ids: Sequence[MemoryId], namespace_id: int) -> dict[MemoryId, Memory]:
        """The memories of a namespace among `ids`."""
        with translating_sqlite_errors(self.path):
            return select_many(self._reader(), ids, namespace_id)

    def created_us_of(self, ids: Sequence[MemoryId], namespace_id: int) -> dict[MemoryId, int]:
        """When the memories of a namespace among `ids` were created, in microseconds."""
        with translating_sqlite_errors(self.path):
            return select_created_us(self._reader(), ids, namespace_id)

    def beginnings(
        self, ids: Sequence[MemoryId], namespace_id: int, n_chars: int
    ) -> dict[MemoryId, Beginning]:
        """The first characters of the memories of a namespace among `ids`."""
        with translating_sqlite_errors(self.path):
            return select_beginnings(self._reader(), ids, namespace_id, n_chars)

    def alike(self, text: str, namespace_id: int) -> list[Memory]:
        """The earliest memories of a namespace that may say the same as a text."""
        with translating_sqlite_errors(self.path):
            return select_alike(self._reader(), text, namespace_id)

    def known_embeddings(self, texts: Sequence[str], namespace_id: int) -> dict[int, FloatMatrix]:
        """The vectors of those texts that a namespace holds, by position: (windows, dim).

        Not of every such text: of changed or restored memories it may know nothing.
        """
        known: dict[int, FloatMatrix] = {}
        with translating_sqlite_errors(self.path):
            connection = self._reader()
            for at, text in enumerate(texts):
                rows = connection.execute(
                    "SELECT m.text, m.source, m.metadata, e.vector FROM text_digests d "
                    "JOIN memories m ON m.id = d.id JOIN embeddings e ON e.id = d.id "
                    "WHERE d.namespace_id = ? AND d.digest = ? "
                    "AND +m.namespace_id = d.namespace_id",
                    (namespace_id, text_digest(text)),
                )
                vector = next((row[3] for row in rows if embedded_text(*row[:3]) == text), None)
                if vector is not None:
                    known[at] = vectors_of(vector, self.identity.dim)
        return known

    def ids_where(self, where: MemoryFilter, namespace_id: int) -> IdArray:
        """Ids, ascending, of the memories of a namespace that pass a filter."""
        condition, parameters = condition_of(where, [namespace_id])
        rows = self._read(f"SELECT id FROM memories WHERE {condition} ORDER BY id", parameters)
        return np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))

    def page(
        self,
        where: MemoryFilter,
        namespace_names: Mapping[int, str],
        *,
        offset: int,
        limit: int,
        newest_first: bool = False,
        cursor: str | None = None,
    ) -> MemoryPage:
        """Memories in order of time, then id; `cursor` (of the page before) wins over `offset`.

        Of the namespaces given by id, each with its name.
        """
        condition, parameters = condition_of(where, list(namespace_names))
        total = int(
            self._read(f"SELECT count(*) FROM memories WHERE {condition}", parameters)[0][0]
        )
        if cursor is not None:
            condition += f" AND (created_us, id) {'<' if newest_first else '>'} (?, ?)"
            parameters += place_of(cursor)
            offset = 0
        order = "DESC" if newest_first else "ASC"
        rows = self._read(
            f"SELECT {COLUMNS} FROM memories WHERE id IN "
            f"(SELECT id FROM memories WHERE {condition} "
            f"ORDER BY created_us {order}, id {order} LIMIT ? OFFSET ?) "
            f"ORDER BY created_us {order}, id {order}",
            [*parameters, limit, offset],
        )
        is_last = len(rows) < limit
        return MemoryPage(
            memories=[memory_of(row) for row in rows],
            namespaces=[namespace_names[row[AT["namespace_id"]]] for row in rows],
            total=total,
            next_cursor=None if is_last else cursor_after(rows[-1]),
        )

    def ids_changed_since(self, lsn: int) -> IdArray:
        """Ids of the memories, in any namespace, whose last change is after `lsn`."""
        rows = self._read("SELECT id FROM memories WHERE lsn > ?", (lsn,))
        return np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))

    def sources(self, namespace_id: int) -> Iterator[tuple[MemoryId, str]]:
        """(id, source) of every memory, by source and id; read from an index alone."""
        with translating_sqlite_errors(self.path):
            yield from self._reader().execute(
                "SELECT id, source FROM memories WHERE namespace_id = ? ORDER BY source, id",
                (namespace_id,),
            )

    def fact(self, name: str) -> str | None:
        """A fact recorded with `Transaction.set_meta`, as of the last commit."""
        rows = self._read("SELECT value FROM meta WHERE name = ?", (name,))
        return rows[0][0] if rows else None

    def texts_after(
        self, lsn: int, memory_id: int, *, least_bytes: int, limit: int
    ) -> list[StoredText]:
        """The texts changed last after others, in the order of their last change.

        Args:
            lsn: of the change of the memory before the first one.
            memory_id: that memory; several may have been changed by one write.
            least_bytes: of a text, UTF-8; shorter ones are left out.
            limit: texts at most.
        """
        rows = self._read(
            "SELECT m.id, m.namespace_id, m.lsn, e.vector, m.text, m.source, m.metadata "
            "FROM memories m JOIN embeddings e USING (id) "
            "WHERE m.lsn >= ? AND (m.lsn, m.id) > (?, ?) AND length(CAST(m.text AS BLOB)) >= ? "
            "ORDER BY m.lsn, m.id LIMIT ?",
            (lsn, lsn, memory_id, least_bytes, limit),
        )
        n_bytes = 4 * self.identity.dim
        return [
            StoredText(
                id=MemoryId(row[0]),
                namespace_id=row[1],
                lsn=row[2],
                text=embedded_text(*row[4:]),
                n_windows=len(row[3]) // n_bytes,
                says_something=any(row[3][:n_bytes]),
            )
            for row in rows
        ]

    def searchable_since(self, lsn: int, namespace_id: int) -> Iterator[tuple[MemoryId, str, str]]:
        """(id, text in its context, source) of what a namespace has changed since `lsn`, by id."""
        changed = "lsn > ? AND +namespace_id = ?" if lsn >= 0 else f"+lsn > ? AND id IN {_IDS_OF}"
        with translating_sqlite_errors(self.path):
            for memory_id, *row in self._reader().execute(
                f"SELECT id, text, source, metadata FROM memories WHERE {changed} ORDER BY id",
                (lsn, namespace_id),
            ):
                yield memory_id, embedded_text(*row), row[1]

    def embeddings(self, namespace_id: int) -> tuple[IdArray, FloatMatrix]:
        """Every id of a namespace, ascending, and its embedding, shape (n, dim)."""
        stored = self.vectors(namespace_id)
        return stored.ids, stored.firsts

    def vectors(self, namespace_id: int) -> StoredVectors:
        """The vectors of every memory of a namespace. Checks each."""
        dim, mine = self.identity.dim, (namespace_id,)
        with self._snapshot() as connection:
            (n,) = connection.execute(
                "SELECT count(*) FROM memories WHERE namespace_id = ?", mine
            ).fetchone()
            ids = np.empty(n, dtype=np.int64)
            firsts = np.empty((n, dim), dtype=np.float32)
            later: dict[int, FloatMatrix] = {}
            cursor = connection.execute(
                f"SELECT * FROM embeddings WHERE id IN {_IDS_OF} ORDER BY id", mine
            )
            at = 0
            while rows := cursor.fetchmany(4096):
                if rotten := [row[0] for row in rows if not is_intact(row)]:
                    raise RottenRowError(
                        f"the embedding of memory {rotten[0]} is not as it was written"
                    )
                if any(not row[1] or len(row[1]) % (4 * dim) for row in rows):
                    raise StoreCorruptError(str(self.path), "an embedding has the wrong length")
                part = slice(at, at + len(rows))
                ids[part] = [row[0] for row in rows]
                firsts[part] = vectors_of(b"".join(row[1][: 4 * dim] for row in rows), dim)
                for memory_id, blob, _ in rows:
                    if len(blob) > 4 * dim:
                        later[memory_id] = vectors_of(blob[4 * dim :], dim)
                at += len(rows)
        return StoredVectors(ids=ids[:at], firsts=firsts[:at], later=later)

    # Writes: the writer thread, inside `transaction()`

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One durable commit. On any error nothing of it is kept."""
        with translating_sqlite_errors(self.path):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(self._writer)
                self.check_in_place()
                self._writer.execute("COMMIT")
            except BaseException:
                # A full disk may have ended the transaction already.
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def prune_tombstones(self, up_to_lsn: int) -> None:
        """Forget deletions that no backup will ask for any more, a few thousand at a time.

        Records how far, so that a backup that would have needed them starts anew.
        """
        if not self._read("SELECT 1 FROM tombstones WHERE lsn <= ? LIMIT 1", (up_to_lsn,)):
            return
        with self.transaction() as transaction:
            transaction.prune_tombstones(up_to_lsn)

    def follow(self, mark: HighWaterMark) -> None:
        """Note every write in `mark` from now on, before it is acknowledged."""
        self.mark = mark
        self._note_mark()

    def _note_mark(self) -> None:
        if self.mark is not None:
            last_id = last_id_of(self._writer)
            self.mark.note(Mark(epoch=self.epoch, lsn=self._lsn, last_id=last_id))

    def publish_lsn(self, lsn: int) -> None:
        """Show the LSN of a transaction that has committed, before it is acknowledged."""
        if lsn != self._lsn:
            self._lsn = lsn
            self._note_mark()
