"""doobidoo's mcp-memory-service: its SQLite-vec database, or its export as JSON.

JSON: `{"export_metadata": …, "memories": [{"content", "content_hash", "tags", "created_at", …}]}`,
times as seconds since the epoch. In the database, tags are a string with commas, metadata is JSON,
and what was deleted stays as a row with `deleted_at`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from scripts.cli.errors import CliError
from scripts.cli.readers.databases import MAGIC, columns, opened_database
from scripts.cli.readers.documents import load_document, rows_of
from scripts.cli.readers.inputs import InputFile
from scripts.cli.readers.records import Memory, Options, Record, Unreadable, content_key, times

_DEFAULT_PREFIX = "mcp-memory-service/"
_DEFAULT_STORE = "default"
_COLUMNS = ("content", "content_hash", "tags", "memory_type", "metadata", "created_at")
_LATER_COLUMNS = ("updated_at", "store", "deleted_at")


def read_memory_service(file: InputFile, options: Options) -> Iterator[Record]:
    """A memory per memory, its hash as key; the source is `mcp-memory-service/<store>`."""
    prefix = _DEFAULT_PREFIX if options.source is None else options.source
    is_database = file.peek(16).startswith(MAGIC)
    for number, row in enumerate(_rows(file) if is_database else _items(file), start=1):
        text = row.get("content") if isinstance(row, dict) else None
        if isinstance(row, dict) and isinstance(text, str) and text.strip():
            yield Memory(line=_line(row, text, prefix), origin=f"{file.name}, memory {number}")
        else:
            yield Unreadable(origin=f"{file.name}, memory {number}", reason="no 'content'")


def _items(file: InputFile) -> list[Any]:
    with file.opened() as stream:
        rows = rows_of(load_document(stream, file))
    if rows is None:
        raise CliError(f"{file.name} is no export of mcp-memory-service: expected 'memories'")
    return rows


def _rows(file: InputFile) -> Iterator[dict[str, Any]]:
    with opened_database(file) as database:
        there = columns(database, "memories")
        names = [name for name in (*_COLUMNS, *_LATER_COLUMNS) if name in there]
        kept = "WHERE deleted_at IS NULL" if "deleted_at" in there else ""
        query = f"SELECT {', '.join(names)} FROM memories {kept} ORDER BY created_at, rowid"
        for values in database.execute(query):
            yield dict(zip(names, values, strict=True))


def _line(row: dict[str, Any], text: str, prefix: str) -> dict[str, Any]:
    line: dict[str, Any] = {
        "text": text,
        "source": f"{prefix}{row.get('store') or _DEFAULT_STORE}",
        "key": str(row.get("content_hash") or content_key("memory", text)),
        "deduplicate": False,
        **times(row),
    }
    metadata = _object(row.get("metadata"))
    if tags := _tags(row.get("tags")):
        metadata["tags"] = tags
    if row.get("memory_type"):
        metadata["memory_type"] = row["memory_type"]
    return line | ({"metadata": metadata} if metadata else {})


def _object(value: object) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value or "{}")
        except ValueError:
            value = {"metadata": value}
    return dict(value) if isinstance(value, dict) else {}


def _tags(value: object) -> list[str]:
    many = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    return [tag for tag in (str(one).strip() for one in many) if tag]
