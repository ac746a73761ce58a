"""CRC-32 of a row, kept in its last column: a byte that rots inside a value is noticed.

SQLite notices damage to the structure of its pages, but not to what is stored in them
(https://sqlite.org/cksumvfs.html is the extension that would; Python's sqlite3 has no way to it).
Computing one costs about 3 microseconds, a hundredth of what a commit costs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from zlib import crc32


def row_checksum(values: Iterable[Any]) -> int:
    """The checksum of a row's values: integers, None, and texts or their bytes alike."""
    checksum = 0
    for value in values:
        if isinstance(value, str):
            value = value.encode()
        elif not isinstance(value, bytes):
            value = repr(value).encode()
        checksum = crc32(value, crc32(b"%d:" % len(value), checksum))
    return checksum


def with_checksum(*values: Any) -> tuple[Any, ...]:  # noqa: ANN401 - a column's value
    """A row as it is stored."""
    return (*values, row_checksum(values))


def is_intact(row: Sequence[Any]) -> bool:
    """Whether a stored row, its checksum last, is as it was written."""
    return bool(row_checksum(row[:-1]) == row[-1])


def rotten_rows(connection: sqlite3.Connection, table: str) -> Iterator[object]:
    """The first column of every row of a table that is not as it was written.

    Args:
        connection: one whose `text_factory` is `bytes`, since damaged text is often not UTF-8.
        table: one whose rows have a checksum, last.
    """
    for row in connection.execute(f"SELECT * FROM {table}"):
        if not is_intact(row):
            yield row[0]
