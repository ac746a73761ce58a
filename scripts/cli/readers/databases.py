"""SQLite databases of other programs, read without changing them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

from scripts.cli.errors import CliError, UsageError
from scripts.cli.readers.inputs import InputFile

MAGIC = b"SQLite format 3\0"


@contextmanager
def opened_database(file: InputFile) -> Iterator[sqlite3.Connection]:
    """The database that a file is.

    Raises:
        CliError: it cannot be read as the one that the caller takes it for.
    """
    if file.path is None:
        raise UsageError("a database cannot be read from stdin; name its file")
    try:
        with closing(sqlite3.connect(_uri(file, file.path.resolve()), uri=True)) as database:
            yield database
    except sqlite3.Error as exc:
        raise CliError(f"{file.name} cannot be read as that database: {exc}") from exc


def _uri(file: InputFile, path: Path) -> str:
    """How to open it without leaving anything beside it."""
    has_wal = file.peek(20)[18:20] == b"\2\2"
    # Without its log, nobody is writing it; merely opened, it would get one.
    is_at_rest = has_wal and not path.with_name(f"{path.name}-wal").exists()
    return f"{path.as_uri()}?{'immutable=1' if is_at_rest else 'mode=ro'}"


def columns(database: sqlite3.Connection, table: str) -> set[str]:
    """The names of a table's columns; none when it is not there."""
    rows = database.execute("SELECT name FROM pragma_table_info(?)", (table,))
    return {name for (name,) in rows}


def kind_of_database(file: InputFile) -> Literal["chroma", "mcp-memory-service"] | None:
    """Whose database a file is."""
    with opened_database(file) as database:
        if columns(database, "embedding_metadata"):
            return "chroma"
        if columns(database, "memories") >= {"content_hash", "content"}:
            return "mcp-memory-service"
    return None
