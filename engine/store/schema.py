"""The database file: its tables, its format version, how it is opened.

SQLite in WAL mode with `synchronous=FULL`: a commit that returned survives a power cut
(https://sqlite.org/wal.html, https://sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

from engine.errors import (
    RottenRowError,
    StorageError,
    StoreCorruptError,
    StoreFormatError,
    StoreFullError,
    StoreMovedError,
    UnavailableError,
)
from engine.store.rows import set_meta

APPLICATION_ID = 0x464D454D
"""`FMEM` in the file header: says that the file is ours."""

FORMAT_VERSION = 3
"""Raised when an older release could no longer read the file. 2 brought the checksums
and the tables of imports; 3 several vectors of one memory."""

TABLES = """
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    checksum INTEGER NOT NULL
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
    lsn INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX memories_by_key ON memories (source, key) WHERE key IS NOT NULL;
CREATE INDEX memories_by_source ON memories (source);
CREATE INDEX memories_by_created ON memories (created_us);
CREATE INDEX memories_by_lsn ON memories (lsn);

-- Apart from the texts, so that reading pages of memories does not drag vectors along.
CREATE TABLE embeddings (
    id INTEGER PRIMARY KEY REFERENCES memories (id),
    vector BLOB NOT NULL,
    checksum INTEGER NOT NULL
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
    lsn INTEGER NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE INDEX tombstones_by_lsn ON tombstones (lsn);

-- Outcomes of recent writes: one sent again after its answer was lost is not applied twice.
CREATE TABLE requests (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id TEXT NOT NULL UNIQUE,
    outcome TEXT NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;

-- Streamed imports that a caller named by a key, and each line of them that was applied.
CREATE TABLE imports (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    used_us INTEGER NOT NULL
) STRICT;
CREATE TABLE import_lines (
    import INTEGER NOT NULL,
    digest BLOB NOT NULL,
    copy INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (import, digest, copy)
) STRICT, WITHOUT ROWID;

-- Which memories may hold a text: a hint, to be compared with the text itself.
CREATE TABLE text_digests (
    digest BLOB NOT NULL,
    id INTEGER NOT NULL,
    PRIMARY KEY (digest, id)
) STRICT, WITHOUT ROWID;
"""

_CACHE_KIB = 16 * 1024
_SIGNS_OF_DAMAGE = ("malformed", "not a database", "decode to UTF-8", "no such", "unsupported file")
_SIGNS_OF_REFUSAL = ("unable to open", "locked", "readonly")
"""Of what was not even begun; an I/O error may come after a commit."""


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
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        if mode != "ro":
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
    return connection


def create_tables(connection: sqlite3.Connection, facts: Mapping[str, str] | None = None) -> None:
    """Lay out a new, empty database that knows `facts`, all in one transaction."""
    connection.executescript(
        f"BEGIN IMMEDIATE; {TABLES}"
        f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT_VERSION};"
    )
    for name, value in (facts or {}).items():
        set_meta(connection, name, value)
    connection.execute("COMMIT")


def is_empty_database(path: Path) -> bool:
    """Whether nothing was ever laid out in a file: absent, or its creator was killed at once."""
    if not path.exists() or path.stat().st_size == 0:
        return True
    with translating_sqlite_errors(path), closing(connect(path, mode="rw")) as connection:
        (n_objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    return not n_objects and not application_id


def check_format(connection: sqlite3.Connection, path: Path) -> int:
    """Refuse a file that this release cannot read; returns the format of one that it can.

    Raises:
        StoreFormatError: not a FAISS Memory database, or from a newer release.
        StoreCorruptError: not a database at all.
    """
    with translating_sqlite_errors(path):
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID:
        raise StoreFormatError(f"{path} is an SQLite database but not one of FAISS Memory")
    if version < 1:
        raise StoreCorruptError(str(path), f"it says that it is of format {version}")
    if version > FORMAT_VERSION:
        raise StoreFormatError(
            f"{path} has format {version}, written by a newer release; this one reads up to "
            f"{FORMAT_VERSION}: install the newer release to open it"
        )
    return int(version)


@contextmanager
def translating_sqlite_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about `path` into the engine's."""
    try:
        yield
    except UnicodeDecodeError as exc:  # sqlite3 cannot even decode SQLite's message
        raise StoreCorruptError(str(path), "its own description cannot be read") from exc
    except RottenRowError as exc:
        raise RottenRowError(exc.message, str(path)) from exc
    except sqlite3.Error as exc:
        # "… with text '<that of a memory>'" would be shown in logs.
        reason, is_quoted, _ = str(exc).partition(" with text")
        raise _translated(reason, path) from (None if is_quoted else exc)


def _translated(reason: str, path: Path) -> StorageError:
    if any(sign in reason for sign in _SIGNS_OF_DAMAGE):
        return StoreCorruptError(str(path), reason)
    # A full disk shows as SQLITE_FULL, or as a short write of the WAL: an I/O error.
    if "full" in reason or ("I/O" in reason and shutil.disk_usage(path.parent).free < 1 << 20):
        return StoreFullError(f"no space left on the device that holds {path.parent}")
    if "unable to open" in reason and not path.exists():
        return StoreMovedError(str(path))
    if any(sign in reason for sign in _SIGNS_OF_REFUSAL):
        return UnavailableError(f"{path} cannot be used now: {reason}")
    return StorageError(f"{path}: {reason}")
