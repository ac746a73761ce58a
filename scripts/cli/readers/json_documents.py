"""A JSON document of memories: a list of them, bare or under a name; or one alone.

The original's `metadata.json` is one; its rows are told by their numbers, sources and times.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scripts.cli.errors import CliError, UsageError
from scripts.cli.readers.documents import load_document, rows_of
from scripts.cli.readers.inputs import InputFile
from scripts.cli.readers.json_lines import memory_of, original_memory
from scripts.cli.readers.records import TEXT_NAMES, Memory, Options, Record, Unreadable


def read_json(file: InputFile, options: Options) -> Iterator[Record]:
    """A memory per object or string; its own id, where it has one, is its key.

    Raises:
        UsageError: the first object has no text.
    """
    with file.opened() as stream:
        document = load_document(stream, file)
    rows = rows_of(document)
    if rows is None and isinstance(document, dict):
        rows = [document]
    if rows is None:
        raise CliError(f"{file.name} is no list of memories")
    _need_text(rows[:1], file, options)
    for number, row in enumerate(rows, start=1):
        origin = f"{file.name}, memory {number}"
        try:
            yield Memory(line=_line(row, file, number, options), origin=origin)
        except ValueError as exc:
            yield Unreadable(origin=origin, reason=str(exc))


def _need_text(rows: list[Any], file: InputFile, options: Options) -> None:
    """Raise `UsageError` when nobody can tell what the text of these rows is."""
    for row in rows:
        if isinstance(row, dict) and not options.text_column and row.keys().isdisjoint(TEXT_NAMES):
            raise UsageError(
                f"{file.name} has no field named {', '.join(TEXT_NAMES)}; "
                f"say which one is the text with --text-column: {', '.join(row)}"
            )


def _line(row: object, file: InputFile, number: int, options: Options) -> dict[str, Any]:
    if isinstance(row, str):
        row = {"text": row}
    if not isinstance(row, dict):
        raise ValueError("no JSON object")
    # An embedding here is of whatever model its program used.
    row = {name: value for name, value in row.items() if name != "embedding"}
    if _is_original(row):
        return original_memory(row, file, number, options)
    line = memory_of(row, file, number, options)
    own = next((row[name] for name in ("id", "_id", "uuid") if row.get(name) is not None), None)
    if "key" not in line and own is not None:
        # Told by its id, it may stand anywhere in the document.
        source = line["source"] if row.get("source") else file.source(options.source)
        line |= {"key": str(own), "source": source, "deduplicate": False}
    return line


def _is_original(row: dict[str, Any]) -> bool:
    is_row = isinstance(row.get("id"), int) and {"text", "source"} <= row.keys()
    return is_row and bool({"timestamp", "created_at"} & row.keys())
