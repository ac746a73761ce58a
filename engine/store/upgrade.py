"""Bringing a database of an older format up to this release's.

The new database is built beside the old one and put in its place by one rename: killed at any
instant, the next start finds one or the other, whole.
"""

from __future__ import annotations

import logging
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

from engine.disk.durable_files import fsync_directory, fsync_file, translating_os_errors
from engine.errors import RottenRowError, StoreCorruptError
from engine.store.distrust import distrusted
from engine.store.layout.namespaces import add_first
from engine.store.layout.row_checksum import is_intact, with_checksum
from engine.store.layout.rows import ORIGIN, last_id_of, read_meta, set_meta
from engine.store.layout.schema import create_tables
from engine.store.layout.tables import CHECKSUM, FORMAT_VERSION, NAMESPACES, Table, tables_of
from engine.store.soundness import check_sound

_log = logging.getLogger(__name__)


def format_of(database: Path) -> int:
    """The format of a database. Raises `StoreFormatError`, `StoreCorruptError`."""
    with distrusted(database) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def upgrade(database: Path) -> None:
    """Bring a database that nobody has open to `FORMAT_VERSION`; does nothing if it is there.

    Its history gets a new epoch: backups of the old format are not built upon.

    Raises:
        StoreFormatError, StoreCorruptError: it cannot be read; it is as it was.
    """
    version = format_of(database)
    if version == FORMAT_VERSION:
        return
    _log.info("%s has format %d; it is brought to %d", database, version, FORMAT_VERSION)
    partial = database.with_name(database.name + ".upgrading.partial")
    partial.unlink(missing_ok=True)
    with distrusted(database) as old:
        verdicts = [row[0] for row in old.execute("PRAGMA integrity_check(5)")]
        if verdicts != ["ok"]:
            raise StoreCorruptError(str(database), f"SQLite: {'; '.join(verdicts)}")
        with closing(sqlite3.connect(partial, isolation_level=None)) as new:
            new.execute("PRAGMA synchronous = OFF")  # synced once, below
            create_tables(new)
            _copy(old, new, version)
        check_sound(partial)
        old.execute("PRAGMA journal_mode = DELETE")  # folds the WAL in and removes it
    with translating_os_errors(database):
        fsync_file(partial)
        partial.replace(database)
        fsync_directory(database.parent)


def _copy(old: sqlite3.Connection, new: sqlite3.Connection, version: int) -> None:
    new.execute("BEGIN")
    for table in tables_of(version):
        names = ", ".join(column.name for column in table.columns_of(version))
        rows = old.execute(f"SELECT {names} FROM {table.name}")
        new.executemany(table.insert, (_as_now(table, version, row) for row in rows))
    if version < NAMESPACES.since:
        facts = read_meta(new)
        changed_us = facts.get("changed_us")
        add_first(new, None if changed_us is None else int(changed_us), int(facts["lsn"]))
    new.execute("DELETE FROM sqlite_sequence WHERE name <> ?", (NAMESPACES.name,))
    new.executemany(
        "INSERT INTO sqlite_sequence VALUES (?, ?)", old.execute("SELECT * FROM sqlite_sequence")
    )
    new.execute("DELETE FROM meta WHERE name = ?", (ORIGIN,))
    set_meta(new, "epoch", uuid.uuid4().hex)
    set_meta(new, "last_id", str(last_id_of(new)))
    new.execute("COMMIT")


def _as_now(table: Table, version: int, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row of an older format as one of this. Raises `RottenRowError`."""
    held = table.columns_of(version)
    if held[-1].name == CHECKSUM and not is_intact(row):
        raise RottenRowError(f"{table.name} row {row[0]} is not as it was written")
    known = {column.name: value for column, value in zip(held, row, strict=True)}
    values = [known.get(c.name, c.before) for c in table.columns if c.name != CHECKSUM]
    return with_checksum(*values) if table.is_checked else tuple(values)
