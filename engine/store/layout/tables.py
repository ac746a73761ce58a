"""The tables of a database, each column declared once.

Layouts of this and of older formats, inserts, reads and upgrades are made of these declarations:
a new column is one line here, and one in `Memory` if callers see it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

FORMAT_VERSION: Final = 4
"""Raised when an older release could no longer read the file. 2 brought the checksums
and the tables of imports; 3 several vectors of one memory; 4 namespaces."""

CHECKSUM: Final = "checksum"
"""The last column of most tables: of the others of its row."""

FIRST_NAMESPACE_ID: Final = 1
"""Of `default` in every new store, and of what formats without namespaces held."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column, and since which format there is one."""

    name: str
    sql_type: str
    since: int = 1
    before: int | None = None
    """What rows of older formats get."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a table. Of a format that lacks a column, it has the others."""

    name: str
    columns: tuple[str, ...]
    unique: bool = False
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; its columns in the order of its rows."""

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    """Of several columns; one column says so itself."""
    options: str = "STRICT"
    indexes: tuple[Index, ...] = ()
    since: int = 1

    def columns_of(self, version: int) -> tuple[Column, ...]:
        """Those of a format."""
        return tuple(column for column in self.columns if column.since <= version)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The names of this format's columns."""
        return tuple(column.name for column in self.columns)

    @property
    def is_checked(self) -> bool:
        """Whether its rows have a checksum, last."""
        return self.names[-1] == CHECKSUM

    @functools.cached_property
    def insert(self) -> str:
        """The statement that adds a row."""
        return f"INSERT INTO {self.name} VALUES ({', '.join('?' * len(self.columns))})"

    def layout(self, version: int) -> Iterator[str]:
        """The statements that lay it out as a format has it."""
        columns = self.columns_of(version)
        names = {column.name for column in columns}
        lines = [f"{column.name} {column.sql_type}" for column in columns]
        if self.primary_key:
            lines.append(f"PRIMARY KEY ({_among(names, self.primary_key)})")
        yield f"CREATE TABLE {self.name} (\n    " + ",\n    ".join(lines) + f"\n) {self.options}"
        for index in self.indexes:
            kind = "UNIQUE INDEX" if index.unique else "INDEX"
            where = f" WHERE {index.where}" if index.where else ""
            held = _among(names, index.columns)
            yield f"CREATE {kind} {index.name} ON {self.name} ({held}){where}"


def _among(names: set[str], columns: tuple[str, ...]) -> str:
    return ", ".join(column for column in columns if column in names)


_CHECKSUM: Final = Column(CHECKSUM, "INTEGER NOT NULL", since=2)
_NAMESPACE_ID: Final = Column(
    "namespace_id", "INTEGER NOT NULL", since=4, before=FIRST_NAMESPACE_ID
)

META: Final = Table(
    name="meta",
    columns=(Column("name", "TEXT PRIMARY KEY"), Column("value", "TEXT NOT NULL"), _CHECKSUM),
    options="STRICT, WITHOUT ROWID",
)

NAMESPACES: Final = Table(
    name="namespaces",
    columns=(
        Column("id", "INTEGER PRIMARY KEY AUTOINCREMENT"),
        Column("name", "TEXT UNIQUE"),
        Column("changed_us", "INTEGER"),
        Column("lsn", "INTEGER NOT NULL"),
        _CHECKSUM,
    ),
    since=4,
)

MEMORIES: Final = Table(
    name="memories",
    columns=(
        # AUTOINCREMENT: an id is never used twice, also after the newest memory was deleted.
        Column("id", "INTEGER PRIMARY KEY AUTOINCREMENT"),
        _NAMESPACE_ID,  # before the text: looking at it reads no further page
        Column("text", "TEXT NOT NULL"),
        Column("source", "TEXT NOT NULL"),
        Column("key", "TEXT"),
        Column("created_us", "INTEGER NOT NULL"),
        Column("updated_us", "INTEGER NOT NULL"),
        Column("metadata", "TEXT NOT NULL"),
        Column("lsn", "INTEGER NOT NULL"),
        _CHECKSUM,
    ),
    indexes=(
        Index(
            "memories_by_key",
            ("namespace_id", "source", "key"),
            unique=True,
            where="key IS NOT NULL",
        ),
        Index("memories_by_source", ("namespace_id", "source")),
        Index("memories_by_created", ("namespace_id", "created_us")),
        Index("memories_by_lsn", ("lsn",)),
    ),
)

EMBEDDINGS: Final = Table(
    # Apart from the texts, so that reading pages of memories does not drag vectors along.
    name="embeddings",
    columns=(
        Column("id", "INTEGER PRIMARY KEY REFERENCES memories (id)"),
        Column("vector", "BLOB NOT NULL"),
        _CHECKSUM,
    ),
)

METADATA_VALUES: Final = Table(
    # Top-level metadata, inverted, so that a filter costs what it finds.
    name="metadata_values",
    columns=(
        _NAMESPACE_ID,
        Column("name", "TEXT NOT NULL"),
        Column("value", "TEXT NOT NULL"),
        Column("id", "INTEGER NOT NULL"),
    ),
    primary_key=("namespace_id", "name", "value", "id"),
    options="STRICT, WITHOUT ROWID",
)

TOMBSTONES: Final = Table(
    name="tombstones",
    columns=(Column("id", "INTEGER PRIMARY KEY"), Column("lsn", "INTEGER NOT NULL"), _CHECKSUM),
    indexes=(Index("tombstones_by_lsn", ("lsn",)),),
)

REQUESTS: Final = Table(
    # Outcomes of recent writes: one sent again after its answer was lost is not applied twice.
    name="requests",
    columns=(
        Column("number", "INTEGER PRIMARY KEY AUTOINCREMENT"),
        Column("request_id", "TEXT NOT NULL UNIQUE"),
        Column("outcome", "TEXT NOT NULL"),
        _CHECKSUM,
    ),
)

IMPORTS: Final = Table(
    # Streamed imports that a caller named by a key, and each line of them that was applied.
    name="imports",
    columns=(
        Column("number", "INTEGER PRIMARY KEY AUTOINCREMENT"),
        Column("key", "TEXT NOT NULL UNIQUE"),
        Column("used_us", "INTEGER NOT NULL"),
    ),
    since=2,
)

IMPORT_LINES: Final = Table(
    name="import_lines",
    columns=(
        Column("import", "INTEGER NOT NULL"),
        Column("digest", "BLOB NOT NULL"),
        Column("copy", "INTEGER NOT NULL"),
        Column("attempt", "INTEGER NOT NULL"),
        Column("outcome", "TEXT NOT NULL"),
        _CHECKSUM,
    ),
    primary_key=("import", "digest", "copy"),
    options="STRICT, WITHOUT ROWID",
    since=2,
)

TEXT_DIGESTS: Final = Table(
    # Which memories may hold a text: a hint, to be compared with the text itself.
    name="text_digests",
    columns=(
        _NAMESPACE_ID,
        Column("digest", "BLOB NOT NULL"),
        Column("id", "INTEGER NOT NULL"),
    ),
    primary_key=("namespace_id", "digest", "id"),
    options="STRICT, WITHOUT ROWID",
    since=2,
)

TABLES: Final = (
    META,
    NAMESPACES,
    MEMORIES,
    EMBEDDINGS,
    METADATA_VALUES,
    TOMBSTONES,
    REQUESTS,
    IMPORTS,
    IMPORT_LINES,
    TEXT_DIGESTS,
)


def tables_of(version: int) -> tuple[Table, ...]:
    """Those that a format has."""
    return tuple(table for table in TABLES if table.since <= version)


def layout_of(version: int) -> str:
    """The statements that lay out a database of a format."""
    statements = [statement for table in tables_of(version) for statement in table.layout(version)]
    return "".join(f"{statement};\n" for statement in statements)
