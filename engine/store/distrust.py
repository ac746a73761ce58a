"""Reading a database that somebody else may have made, without running what is in it.

A view, a trigger, a check or the expression of an index runs when a table is asked or changed,
and may never end; a tree whose pages point to each other is never read to its end. So the layout
comes first: what is not laid out as we lay it out is refused before anything is asked of it, and
whatever is asked has a deadline (https://sqlite.org/security.html).
"""

from __future__ import annotations

import functools
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from engine.errors import StoreCorruptError
from engine.store.layout.schema import check_format, translating_sqlite_errors
from engine.store.layout.tables import layout_of

_PATIENCE_S = 60.0
_SLOWEST_BYTES_A_S = 1 << 20
_STEPS = 100_000
"""Of SQLite's machine, between two looks at the clock: a few milliseconds."""
_STEPS_FOR_THE_LAYOUT = 1_000_000
"""A hundred times as many as ours takes."""
_FILE_ALONE = "mode=ro&immutable=1"


@contextmanager
def distrusted(database: Path, *, access: str = "mode=rw") -> Iterator[sqlite3.Connection]:
    """A connection to a database of a format that we read, laid out as that format is.

    What its queries raise is translated; each must end before the deadline, which a file of this
    size never needs.

    Args:
        database: the file.
        access: see https://sqlite.org/uri.html.

    Raises:
        StoreFormatError: not a FAISS Memory database, or from a newer release.
        StoreCorruptError: it is not laid out as it was, or a query does not end.
    """
    with (
        translating_sqlite_errors(database),
        closing(sqlite3.connect(_uri(database, access), uri=True, isolation_level=None)) as opened,
        _explaining_interruptions(database),
    ):
        opened.execute("PRAGMA trusted_schema = OFF")
        opened.execute("PRAGMA cell_size_check = ON")
        opened.set_progress_handler(lambda: True, _STEPS_FOR_THE_LAYOUT)
        _check_layout(opened, database)
        due_s = time.monotonic() + _PATIENCE_S + database.stat().st_size / _SLOWEST_BYTES_A_S
        opened.set_progress_handler(lambda: time.monotonic() > due_s, _STEPS)
        yield opened


@contextmanager
def attached(connection: sqlite3.Connection, database: Path) -> Iterator[None]:
    """Another such database, whose structure is sound, as the schema `delta`, for reading alone.

    Nothing beside the file counts: neither a journal nor a lock.
    """
    with distrusted(database, access=_FILE_ALONE) as alone:
        check_structure(alone, database)
    connection.execute("ATTACH ? AS delta", (_uri(database, _FILE_ALONE),))
    yield
    connection.execute("DETACH delta")


def check_structure(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `StoreCorruptError` unless every page of a database is used once.

    From then on, whatever reads it comes to an end.
    """
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StoreCorruptError(str(path), f"SQLite: {verdict}")


def _uri(database: Path, access: str) -> str:
    return f"{database.absolute().as_uri()}?{access}"


def _check_layout(connection: sqlite3.Connection, path: Path) -> None:
    expected = _expected_layout(check_format(connection, path))
    if _layout_of(connection, at_most=len(expected) + 1) != expected:
        raise StoreCorruptError(str(path), "its tables are not laid out as they were")


def _layout_of(connection: sqlite3.Connection, *, at_most: int) -> list[Any]:
    """Every table and index with the statement that made it."""
    rows = connection.execute(
        "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master LIMIT ?", (at_most,)
    )
    return sorted(rows, key=repr)


@functools.cache
def _expected_layout(version: int) -> list[Any]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(layout_of(version))
        return _layout_of(connection, at_most=-1)


@contextmanager
def _explaining_interruptions(database: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as exc:
        if str(exc) == "interrupted":
            raise StoreCorruptError(str(database), "reading it comes to no end") from exc
        raise
