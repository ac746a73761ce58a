"""The files of a backup: one base and the deltas after it, each an SQLite database.

A base holds everything as of its LSN; a delta the rows changed, and the tombstones of those
deleted, after one LSN and up to another. Base plus deltas, in order, are the store.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from engine.backups.facts import StoreFacts, facts_of
from engine.disk.durable_files import fsync_file, sha256_of, translating_os_errors
from engine.errors import StoreCorruptError
from engine.store.distrust import attached, check_structure, distrusted
from engine.store.foreign_json import object_of
from engine.store.layout.rows import UPKEEP, UPKEEP_FIRST_PASS, canonical_json, digests_of
from engine.store.layout.schema import (
    check_format,
    connect,
    create_tables,
    translating_sqlite_errors,
)
from engine.store.layout.tables import METADATA_VALUES, NAMESPACES, TEXT_DIGESTS, Table
from engine.store.soundness import check_copy, check_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupFile:
    """A base (`from_lsn` is None) or a delta, with what proves it whole."""

    name: str
    from_lsn: int | None
    to_lsn: int
    n_bytes: int
    sha256: str


def write_base(database: Path, directory: Path) -> tuple[BackupFile, StoreFacts]:
    """Copy the live database whole; writers go on (https://sqlite.org/backup.html)."""
    partial = directory / "base.partial"
    with (
        translating_sqlite_errors(partial),
        closing(connect(database, mode="rw")) as source,
        closing(sqlite3.connect(partial)) as target,
    ):
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")  # one file: it takes no WAL with it
        facts = facts_of(target)
    check_copy(partial)  # what rotted must not push sound backups out
    return _finished(partial, f"base_{facts.lsn}.db", None, facts.lsn), facts


def write_delta(database: Path, directory: Path, *, from_lsn: int) -> tuple[BackupFile, StoreFacts]:
    """Write what changed after `from_lsn`. Costs what changed; writers go on."""
    partial = directory / "delta.partial"
    with translating_sqlite_errors(partial):
        with closing(sqlite3.connect(partial, isolation_level=None)) as target:
            create_tables(target)
        with closing(connect(database, mode="rw")) as connection:
            connection.execute("ATTACH ? AS delta", (str(partial),))
            connection.execute("BEGIN")  # one snapshot of the live database for all tables
            _copy_changes(connection, from_lsn)
            facts = facts_of(connection)
            connection.execute("COMMIT")
        check_rows(partial)
    return _finished(partial, f"delta_{from_lsn}_{facts.lsn}.db", from_lsn, facts.lsn), facts


def assemble(directory: Path, files: Sequence[BackupFile], target: Path) -> StoreFacts:
    """Put a base and its deltas together as one database at `target`. Not yet durable.

    Raises:
        StoreFormatError, StoreCorruptError: a file is not one that we can have written.
    """
    with translating_os_errors(target):
        shutil.copyfile(directory / files[0].name, target)
    with distrusted(target) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        check_structure(connection, target)
        is_looked_after = connection.execute(
            "SELECT 1 FROM main.meta WHERE name = ?", (UPKEEP_FIRST_PASS,)
        ).fetchone()
        for delta in files[1:]:
            with attached(connection, directory / delta.name):
                connection.execute("BEGIN")
                _apply_changes(connection)
                _derive_digests(connection)
                connection.execute("COMMIT")
        if files[1:]:
            _derive_metadata_values(connection)
            _forget_digests_of_the_gone(connection)
            if not is_looked_after:  # what deltas do not carry is still to be made for the base
                connection.execute(
                    "DELETE FROM main.meta WHERE name IN (?, ?)", (UPKEEP, UPKEEP_FIRST_PASS)
                )
        return facts_of(connection)


def _finished(partial: Path, name: str, from_lsn: int | None, to_lsn: int) -> BackupFile:
    path = partial.with_name(name)
    with translating_os_errors(path):
        fsync_file(partial)
        partial.rename(path)
        return BackupFile(
            name=name,
            from_lsn=from_lsn,
            to_lsn=to_lsn,
            n_bytes=path.stat().st_size,
            sha256=sha256_of(path),
        )


def _copy_changes(connection: sqlite3.Connection, from_lsn: int) -> None:
    for table, condition in (
        ("namespaces", "lsn > ?"),
        ("memories", "lsn > ?"),
        ("tombstones", "lsn > ?"),
        ("embeddings", "id IN (SELECT id FROM main.memories WHERE lsn > ?)"),
    ):
        connection.execute(
            f"INSERT INTO delta.{table} SELECT * FROM main.{table} WHERE {condition}", (from_lsn,)
        )
    connection.execute("INSERT INTO delta.meta SELECT * FROM main.meta")
    connection.execute("DELETE FROM delta.sqlite_sequence")
    connection.execute("INSERT INTO delta.sqlite_sequence SELECT * FROM main.sqlite_sequence")


def _apply_changes(connection: sqlite3.Connection) -> None:
    # All that changed goes first: two memories may have exchanged their keys.
    changed = "SELECT id FROM delta.tombstones UNION ALL SELECT id FROM delta.memories"
    connection.execute(f"DELETE FROM main.embeddings WHERE id IN ({changed})")
    connection.execute(f"DELETE FROM main.memories WHERE id IN ({changed})")
    tables = ["memories", "embeddings"]
    if _has(connection, NAMESPACES.name):
        # Also a name may have gone from one to another.
        connection.execute(
            "DELETE FROM main.namespaces WHERE id IN (SELECT id FROM delta.namespaces)"
        )
        tables.insert(0, NAMESPACES.name)
    for table in tables:
        connection.execute(f"INSERT INTO main.{table} SELECT * FROM delta.{table}")
    for table in ("tombstones", "meta"):
        connection.execute(f"INSERT OR REPLACE INTO main.{table} SELECT * FROM delta.{table}")
    connection.execute("DELETE FROM main.sqlite_sequence")
    connection.execute("INSERT INTO main.sqlite_sequence SELECT * FROM delta.sqlite_sequence")


def _has(connection: sqlite3.Connection, table: str) -> bool:
    """Whether the base is of a format that has a table."""
    query = "SELECT 1 FROM main.sqlite_master WHERE name = ?"
    return connection.execute(query, (table,)).fetchone() is not None


# Formats without namespaces have no column for them. What they hold is derived without it.


def _forget_digests_of_the_gone(connection: sqlite3.Connection) -> None:
    if not _has(connection, TEXT_DIGESTS.name):
        return
    is_there = "SELECT 1 FROM main.memories m WHERE m.id = d.id"
    if _has(connection, NAMESPACES.name):
        is_there += " AND m.namespace_id = d.namespace_id"
    connection.execute(f"DELETE FROM main.text_digests AS d WHERE NOT EXISTS ({is_there})")


def _derive_digests(connection: sqlite3.Connection) -> None:
    """Let the texts of a delta be found, if the base is not of a format that had no digests."""
    if not _has(connection, TEXT_DIGESTS.name):
        return
    first, marks = _first_columns(connection), _marks(connection, TEXT_DIGESTS)
    connection.executemany(
        f"INSERT OR IGNORE INTO main.text_digests VALUES ({marks})",
        (
            (*within, digest, memory_id)
            for memory_id, text, source, *within in connection.execute(
                f"SELECT id, text, source {first} FROM delta.memories"
            )
            for digest in digests_of(text, source)
        ),
    )


def _derive_metadata_values(connection: sqlite3.Connection) -> None:
    first, marks = _first_columns(connection), _marks(connection, METADATA_VALUES)
    connection.execute("BEGIN")
    connection.execute("DELETE FROM metadata_values")
    try:
        connection.executemany(
            f"INSERT INTO metadata_values VALUES ({marks})",
            (
                (*within, name, canonical_json(value), memory_id)
                for memory_id, metadata, *within in connection.execute(
                    f"SELECT id, metadata {first} FROM memories"
                )
                for name, value in object_of(json.loads(metadata)).items()
            ),
        )
    except (ValueError, RecursionError) as exc:
        raise StoreCorruptError("the database", f"metadata that is no JSON object: {exc}") from exc
    connection.execute("COMMIT")


def _first_columns(connection: sqlite3.Connection) -> str:
    return ", namespace_id" if _has(connection, NAMESPACES.name) else ""


def _marks(connection: sqlite3.Connection, table: Table) -> str:
    n_columns = len(table.columns_of(check_format(connection, Path("the database"))))
    return ", ".join("?" * n_columns)
