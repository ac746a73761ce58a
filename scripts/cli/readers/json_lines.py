"""JSON Lines: our own exports, the original's, BEIR corpora, and any lines with a `text`.

The original's begin with `{"_header": true, "count": …}`; their memories have no id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from scripts.cli.readers.inputs import InputFile, lines
from scripts.cli.readers.records import (
    TEXT_NAMES,
    Memory,
    Options,
    Record,
    Unreadable,
    content_key,
    times,
)

_AS_GIVEN = ("timestamp", "updated_at", "embedding", "deduplicate")
_OURS = frozenset({"id", "_id", "metadata", "custom_fields", *_AS_GIVEN})


def read_json_lines(file: InputFile, options: Options) -> Iterator[Record]:
    """A memory per line: its text, and what else `POST /import` knows; other keys are metadata.

    The source of a line without one is `<file>:<its number>`, or `<file>/<its _id>`. An export's
    first and last line are no memories, but tell whether lines are missing between them.
    """
    header: dict[str, Any] | None = None
    original: dict[str, Any] | None = None
    expects_footer, n_memories = False, 0
    with file.opened() as stream:
        for number, content in lines(stream):
            origin = f"{file.name}, line {number}"
            try:
                row = _object(content)
                if row.get("type") == "header" and "text" not in row:
                    header, expects_footer, n_memories = row, True, 0
                    continue
                if row.get("type") == "footer" and "text" not in row:
                    expects_footer, header = False, None
                    if row.get("count") != n_memories:
                        reason = (
                            f"the export had {row.get('count')} memories, here are {n_memories}"
                        )
                        yield Unreadable(origin=origin, reason=reason)
                    continue
                if row.get("_header") is True:
                    original, n_memories = row, 0
                    continue
                n_memories += 1
                reader = memory_of if original is None else original_memory
                line = reader(row, file, number, options)
                yield Memory(line=line, origin=origin, header=header)
            except ValueError as exc:
                yield Unreadable(origin=origin, reason=str(exc))
    if original is not None and original.get("count", n_memories) != n_memories:
        reason = f"the export had {original['count']} memories, here are {n_memories}"
        yield Unreadable(origin=file.name, reason=reason)
    if expects_footer:
        yield Unreadable(origin=file.name, reason="the export breaks off: its last line is missing")


def parse_object(content: bytes | None) -> dict[str, Any]:
    """A line as a JSON object.

    Raises:
        ValueError: it is none; says why.
    """
    return _object(content)


def _object(content: bytes | None) -> dict[str, Any]:
    if content is None:
        raise ValueError("the line is too long")
    try:
        row = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("the line is not UTF-8") from None
    except RecursionError:
        raise ValueError("the line is nested too deeply") from None
    except ValueError as exc:
        raise ValueError(f"no JSON: {exc}") from None
    if not isinstance(row, dict):
        raise ValueError("no JSON object")
    return row


def memory_of(
    row: dict[str, Any], file: InputFile, number: int, options: Options
) -> dict[str, Any]:
    """The line to import of an object that is about one memory.

    Raises:
        ValueError: it holds none; says why.
    """
    names = TEXT_NAMES if options.text_column is None else (options.text_column,)
    text_name = next((name for name in names if row.get(name) is not None), names[0])
    text = row.get(text_name)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"no {text_name!r}")
    metadata: dict[str, Any] = {}
    for name in ("custom_fields", "metadata"):
        if not isinstance(inner := row.get(name) or {}, dict):
            raise ValueError(f"{name!r} is no object")
        metadata |= inner
    own = row.get(source_name := options.source_column or "source")
    if own:
        source = f"{options.source or ''}{own}"
    else:
        at = f"/{row['_id']}" if "_id" in row else f":{number}"
        source = file.source(options.source) + at
    line: dict[str, Any] = {"text": text, "source": source}
    line |= {name: row[name] for name in _AS_GIVEN if row.get(name) is not None}
    # A time in words is the service's to judge.
    line |= {name: at for name, at in times(row).items() if not isinstance(row.get(name), str)}
    key = row.get(key_name := options.key_column or "key")
    line |= {"key": str(key)} if key is not None else {}
    taken = _OURS | {text_name, source_name, key_name}
    if "timestamp" in line:
        taken |= {"created_at"}
    other = {name: value for name, value in row.items() if name not in taken}
    if metadata or other:
        line["metadata"] = {**other, **metadata}
    return line


def original_memory(
    row: dict[str, Any], file: InputFile, number: int, options: Options
) -> dict[str, Any]:
    """Likewise of a row that the original service wrote: its text says which memory it is."""
    line = memory_of({"source": "memories", **row}, file, number, options)
    return line | {"key": content_key("memories", line["text"]), "deduplicate": False}
