"""Readers: each turns one kind of file into memories, one after another, without holding them all.

`auto` tells the kind by the file's suffix and, for JSON, by its first bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from scripts.cli.errors import UsageError
from scripts.cli.readers.inputs import InputFile
from scripts.cli.readers.records import Options, Record

TEXT_SUFFIXES = frozenset({".md", ".markdown", ".mdx", ".rst", ".txt", ".text"})
_LINES = frozenset({".jsonl", ".ndjson"})
_TABLES = frozenset({".csv", ".tsv"})
_DATABASES = frozenset({".sqlite3", ".sqlite", ".db"})


class Format(str, Enum):
    """What a file is."""

    AUTO = "auto"
    TEXT = "text"
    JSONL = "jsonl"
    CSV = "csv"
    MCP = "mcp"
    MEM0 = "mem0"
    CHROMA = "chroma"


SUFFIXES: dict[Format, frozenset[str]] = {
    Format.AUTO: TEXT_SUFFIXES,
    Format.TEXT: TEXT_SUFFIXES,
    Format.JSONL: _LINES,
    Format.CSV: _TABLES,
    Format.MCP: _LINES | {".json"},
    Format.MEM0: _LINES | {".json"},
    Format.CHROMA: _DATABASES | {".json"},
}
"""What is taken of a directory; a file that is named itself may be called anything."""


def read(file: InputFile, chosen: Format, options: Options) -> Iterator[Record]:
    """The memories of a file, and the places where there is none that can be read.

    Raises:
        UsageError: see `kind_of`.
    """
    # Imported by kind: a reader may need packages that take longer than the others' work.
    kind = kind_of(file, chosen)
    if kind is Format.TEXT:
        from scripts.cli.readers.text_files import read_text

        return read_text(file, options)
    if kind is Format.CSV:
        from scripts.cli.readers.tables import read_table

        return read_table(file, options)
    if kind is Format.MCP:
        from scripts.cli.readers.mcp_memory import read_mcp

        return read_mcp(file, options)
    if kind is Format.MEM0:
        from scripts.cli.readers.mem0 import read_mem0

        return read_mem0(file, options)
    if kind is Format.CHROMA:
        from scripts.cli.readers.chroma import read_chroma

        return read_chroma(file, options)
    from scripts.cli.readers.json_lines import read_json_lines

    return read_json_lines(file, options)


def kind_of(file: InputFile, chosen: Format) -> Format:
    """What a file is: what the user says, or else its name and its beginning.

    Raises:
        UsageError: nobody can tell.
    """
    if chosen is not Format.AUTO:
        return chosen
    suffix = file.suffix
    if suffix in TEXT_SUFFIXES:
        return Format.TEXT
    if suffix in _TABLES:
        return Format.CSV
    if suffix in _DATABASES:
        return Format.CHROMA
    if suffix in _LINES or suffix == ".json" or file.is_stdin:
        from scripts.cli.readers.json_kinds import kind_of_json

        if found := kind_of_json(file):
            return Format(found)
        if suffix in _LINES:  # empty, or with a bad first line, which is not all of it
            return Format.JSONL
        if file.is_stdin:
            return Format.TEXT
    raise UsageError(f"cannot tell what {file.name} is; say it with --format")
