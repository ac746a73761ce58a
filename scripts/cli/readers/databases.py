"""SQLite databases of other programs, read without changing them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
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
    uri = f"{file.path.resolve().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as database:
            yield database
    except sqlite3.Error as exc:
        raise CliError(f"{file.name} cannot be read as that database: {exc}") from exc


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
