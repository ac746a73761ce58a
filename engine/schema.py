"""The database file: its tables, its format version, how it is opened.

SQLite in WAL mode with `synchronous=FULL`: a commit that returned survives a power cut
(https://sqlite.org/wal.html, https://sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from engine.errors import StorageError, StoreCorruptError, StoreFormatError, StoreFullError

APPLICATION_ID = 0x464D454D
"""`FMEM` in the file header: says that the file is ours."""

FORMAT_VERSION = 1
"""Raised when an older release could no longer read the file."""

_TABLES = """
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: an id is never used twice, also after the newest memory was deleted.
CREATE TABLE memories (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    text TEXT NOT NULL,
    source TEXT NOT NULL,
    key TEXT,
    created_us INTEGER NOT NULL,
    updated_us INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    lsn INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX memories_by_key ON memories (source, key) WHERE key IS NOT NULL;
CREATE INDEX memories_by_source ON memories (source);
CREATE INDEX memories_by_created ON memories (created_us);
CREATE INDEX memories_by_lsn ON memories (lsn);

-- Apart from the texts, so that reading pages of memories does not drag vectors along.
CREATE TABLE embeddings (
    id INTEGER PRIMARY KEY REFERENCES memories (id),
    vector BLOB NOT NULL
) STRICT;

-- Top-level metadata, inverted, so that a filter costs what it finds.
CREATE TABLE metadata_values (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    id INTEGER NOT NULL,
    PRIMARY KEY (name, value, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE tombstones (
    id INTEGER PRIMARY KEY,
    lsn INTEGER NOT NULL
) STRICT;
CREATE INDEX tombstones_by_lsn ON tombstones (lsn);

-- Outcomes of recent writes: one sent again after its answer was lost is not applied twice.
CREATE TABLE requests (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id TEXT NOT NULL UNIQUE,
    outcome TEXT NOT NULL
) STRICT;
"""

_IMPORT_TABLES = """
-- Streamed imports that a caller named by a key, and each line of them that was applied.
CREATE TABLE IF NOT EXISTS imports (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    used_us INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS import_lines (
    import INTEGER NOT NULL,
    digest BLOB NOT NULL,
    copy INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    PRIMARY KEY (import, digest, copy)
) STRICT, WITHOUT ROWID;

-- Which memories may hold a text: a hint, to be compared with the text itself.
CREATE TABLE IF NOT EXISTS text_digests (
    digest BLOB NOT NULL,
    id INTEGER NOT NULL,
    PRIMARY KEY (digest, id)
) STRICT, WITHOUT ROWID;
"""
"""Tables that a restored or an older database may lack: what they hold can be done without."""

_CACHE_KIB = 16 * 1024


def connect(path: Path, *, mode: Literal["rw", "rwc", "ro"]) -> sqlite3.Connection:
    """Open a connection with our settings; transactions are begun by hand.

    Usable from any one thread at a time.
    """
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    with translating_sqlite_errors(path):
        connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        connection.execute("PRAGMA busy_timeout = 10000")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        if mode != "ro":
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
    return connection


def create_tables(connection: sqlite3.Connection) -> None:
    """Lay out a new, empty database inside one transaction."""
    connection.executescript(
        f"BEGIN IMMEDIATE; {_TABLES}"
        f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT_VERSION}; COMMIT;"
    )


def ensure_import_tables(connection: sqlite3.Connection) -> None:
    """Add the tables that imports use, if they are not there."""
    connection.executescript(f"BEGIN IMMEDIATE; {_IMPORT_TABLES} COMMIT;")


def check_format(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that this release cannot read.

    Raises:
        StoreFormatError: not a FAISS Memory database, or from a newer release.
        StoreCorruptError: not a database at all.
    """
    with translating_sqlite_errors(path):
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID:
        raise StoreFormatError(f"{path} is an SQLite database but not one of FAISS Memory")
    if version > FORMAT_VERSION:
        raise StoreFormatError(
            f"{path} has format {version}, written by a newer release; this one reads up to "
            f"{FORMAT_VERSION}: install the newer release to open it"
        )


@contextmanager
def translating_sqlite_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about `path` into the engine's."""
    try:
        yield
    except sqlite3.Error as exc:
        raise _translated(exc, path) from exc


def _translated(exc: sqlite3.Error, path: Path) -> StorageError:
    reason = str(exc)
    if "malformed" in reason or "not a database" in reason:
        return StoreCorruptError(str(path), reason)
    # A full disk shows as SQLITE_FULL, or as a short write of the WAL: an I/O error.
    if "full" in reason or ("I/O" in reason and shutil.disk_usage(path.parent).free < 1 << 20):
        return StoreFullError(f"no space left on the device that holds {path.parent}")
    return StorageError(f"{path}: {reason}")
