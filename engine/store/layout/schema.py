"""The database file: how it is laid out, told from others, and opened.

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
from engine.store.layout.namespaces import add_first
from engine.store.layout.rows import set_meta
from engine.store.layout.tables import FORMAT_VERSION, layout_of

APPLICATION_ID = 0x464D454D
"""`FMEM` in the file header: says that the file is ours."""

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
    """Lay out a new, empty database, all in one transaction; with `facts`, of a new store."""
    connection.executescript(
        f"BEGIN IMMEDIATE; {layout_of(FORMAT_VERSION)}"
        f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT_VERSION};"
    )
    if facts is not None:
        add_first(connection, None, 0)
        for name, value in facts.items():
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
