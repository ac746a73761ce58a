"""JSON Lines: our own exports, BEIR corpora, and any lines with a `text`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from scripts.cli.readers.inputs import InputFile, lines
from scripts.cli.readers.records import Memory, Options, Record, Unreadable

_AS_GIVEN = ("key", "timestamp", "updated_at", "embedding", "deduplicate")
_OURS = frozenset({"id", "_id", "text", "source", "metadata", *_AS_GIVEN})


def read_json_lines(file: InputFile, options: Options) -> Iterator[Record]:
    """A memory per line: `text`, and what else `POST /import` knows; other keys are metadata.

    The source of a line without one is `<file>:<its number>`, or `<file>/<its _id>`. An export's
    first and last line are no memories, but tell whether lines are missing between them.
    """
    header: dict[str, Any] | None = None
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
                n_memories += 1
                line = _memory(row, file, number, options)
                yield Memory(line=line, origin=origin, header=header)
            except ValueError as exc:
                yield Unreadable(origin=origin, reason=str(exc))
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


def _memory(row: dict[str, Any], file: InputFile, number: int, options: Options) -> dict[str, Any]:
    text = row.get("text")
    if not isinstance(text, str) or not text.strip():
        raise ValueError("no 'text'")
    metadata = row.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise ValueError("'metadata' is no object")
    own = row.get("source")
    if own:
        source = f"{options.source or ''}{own}"
    else:
        at = f"/{row['_id']}" if "_id" in row else f":{number}"
        source = file.source(options.source) + at
    line: dict[str, Any] = {"text": text, "source": source}
    line |= {name: row[name] for name in _AS_GIVEN if row.get(name) is not None}
    other = {name: value for name, value in row.items() if name not in _OURS}
    if metadata or other:
        line["metadata"] = {**other, **metadata}
    return line
