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

from engine.disk.durable_files import fsync_directory, fsync_file, translating_os_errors
from engine.errors import StoreCorruptError
from engine.store.distrust import distrusted
from engine.store.row_checksum import with_checksum
from engine.store.rows import last_id_of, set_meta
from engine.store.schema import create_tables
from engine.store.soundness import check_sound
from engine.store.tables import FORMAT_VERSION, tables_of

_SAME_TABLES_FROM = 2

_log = logging.getLogger(__name__)


def upgrade(database: Path) -> None:
    """Bring a database that nobody has open to `FORMAT_VERSION`; does nothing if it is there.

    Its history gets a new epoch: backups of the old format are not built upon.

    Raises:
        StoreFormatError, StoreCorruptError: it cannot be read; it is as it was.
    """
    with distrusted(database) as old:
        (version,) = old.execute("PRAGMA user_version").fetchone()
        if version == FORMAT_VERSION:
            return
        _log.info("%s has format %d; it is brought to %d", database, version, FORMAT_VERSION)
        if version >= _SAME_TABLES_FROM:
            old.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
            return
        verdicts = [row[0] for row in old.execute("PRAGMA integrity_check(5)")]
        if verdicts != ["ok"]:
            raise StoreCorruptError(str(database), f"SQLite: {'; '.join(verdicts)}")
        partial = database.with_name(database.name + ".upgrading.partial")
        partial.unlink(missing_ok=True)
        with closing(sqlite3.connect(partial, isolation_level=None)) as new:
            new.execute("PRAGMA synchronous = OFF")  # synced once, below
            create_tables(new)
            _copy(old, new)
        check_sound(partial)
        old.execute("PRAGMA journal_mode = DELETE")  # folds the WAL in and removes it
    with translating_os_errors(database):
        fsync_file(partial)
        partial.replace(database)
        fsync_directory(database.parent)


def _copy(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    new.execute("BEGIN")
    for table in tables_of(1):
        rows = old.execute(f"SELECT * FROM {table.name}")
        new.executemany(
            table.insert, (with_checksum(*row) for row in rows) if table.is_checked else rows
        )
    new.execute("DELETE FROM sqlite_sequence")
    new.executemany(
        "INSERT INTO sqlite_sequence VALUES (?, ?)", old.execute("SELECT * FROM sqlite_sequence")
    )
    set_meta(new, "epoch", uuid.uuid4().hex)
    set_meta(new, "last_id", str(last_id_of(new)))
    new.execute("COMMIT")
