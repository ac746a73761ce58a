"""The file of the MCP reference memory server (`@modelcontextprotocol/server-memory`).

JSON Lines of `{"type": "entity", "name", "entityType", "observations"}` and
`{"type": "relation", "from", "to", "relationType"}`, called memory.jsonl, memory.json before; or
what its tool `read_graph` answers: `{"entities": […], "relations": […]}`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, cast

from scripts.cli.readers.documents import load_document
from scripts.cli.readers.inputs import InputFile, lines
from scripts.cli.readers.json_lines import parse_object
from scripts.cli.readers.records import Memory, Options, Record, Unreadable, content_key

_DEFAULT_PREFIX = "mcp-memory/"


def read_mcp(file: InputFile, options: Options) -> Iterator[Record]:
    """A memory per observation and per relation; the source is `mcp-memory/<entity>`."""
    prefix = _DEFAULT_PREFIX if options.source is None else options.source
    for origin, item in _items(file):
        try:
            for text, name, kind, metadata in _facts(item):
                line = {
                    "text": text,
                    "source": f"{prefix}{name}",
                    "key": content_key(kind, text),
                    "metadata": metadata,
                    "deduplicate": False,
                }
                yield Memory(line=line, origin=origin)
        except (KeyError, TypeError, ValueError) as exc:
            reason = str(exc) if isinstance(exc, ValueError) else "no entity and no relation"
            yield Unreadable(origin=origin, reason=reason)


def _items(file: InputFile) -> Iterator[tuple[str, object]]:
    with file.opened() as stream:
        first = cast(io.BufferedReader, stream).peek(4096).removeprefix(b"\xef\xbb\xbf")
        if first.split(b":", 1)[0].strip(b" \t\r\n{") in (b'"entities"', b'"relations"'):
            graph = load_document(stream, file)
            for name, kind in (("entities", "entity"), ("relations", "relation")):
                for number, item in enumerate(graph.get(name) or [], start=1):
                    typed = {**item, "type": kind} if isinstance(item, dict) else item
                    yield f"{file.name}, {kind} {number}", typed
            return
        for number, content in lines(stream):
            origin = f"{file.name}, line {number}"
            try:
                yield origin, parse_object(content)
            except ValueError as exc:
                yield origin, exc


def _facts(item: Any) -> Iterator[tuple[str, str, str, dict[str, Any]]]:  # noqa: ANN401
    """Text, entity, kind and metadata of each thing that an entity or relation says."""
    if isinstance(item, ValueError):
        raise item
    if item["type"] == "relation":
        subject, verb, other = (_word(item[name]) for name in ("from", "relationType", "to"))
        metadata = {"relation": verb, "to": other}
        yield f"{subject} {verb} {other}", subject, "relation", metadata
    elif item["type"] == "entity":
        name, kind = _word(item["name"]), str(item.get("entityType") or "")
        metadata = {"entity_type": kind} if kind else {}
        for observation in item["observations"]:
            yield f"{name}: {_word(observation)}", name, "observation", metadata
        if not item["observations"]:
            yield f"{name} ({kind})" if kind else name, name, "entity", metadata
    else:
        raise ValueError(f"type is {item['type']!r}; expected entity or relation")


def _word(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a name or an observation is empty")
    return value
