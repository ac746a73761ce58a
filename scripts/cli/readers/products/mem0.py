"""Exports of mem0: what `get_all()` answers, as JSON.

`{"results": [{"id", "memory", "user_id", "agent_id", "metadata", "created_at", …}]}`, the bare
list that version 1 of its API answers, or one such object a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scripts.cli.errors import CliError
from scripts.cli.readers.documents import load_document, rows_of
from scripts.cli.readers.inputs import InputFile, lines
from scripts.cli.readers.json_lines import parse_object
from scripts.cli.readers.records import Memory, Options, Record, Unreadable, content_key, times

_DEFAULT_PREFIX = "mem0/"
_OWNERS = ("user_id", "agent_id", "app_id", "run_id")
_KEPT = (*_OWNERS, "categories", "expiration_date", "actor_id", "role")


def read_mem0(file: InputFile, options: Options) -> Iterator[Record]:
    """A memory per memory, its id as key; the source is `mem0/<user, agent, app or run>`."""
    prefix = _DEFAULT_PREFIX if options.source is None else options.source
    for origin, item in _items(file):
        if isinstance(item, ValueError):
            yield Unreadable(origin=origin, reason=str(item))
        elif (
            isinstance(item, dict) and isinstance(text := item.get("memory"), str) and text.strip()
        ):
            yield Memory(line=_memory(item, text, prefix), origin=origin)
        else:
            yield Unreadable(origin=origin, reason="no 'memory'")


def _items(file: InputFile) -> Iterator[tuple[str, object]]:
    if file.suffix in (".jsonl", ".ndjson"):
        with file.opened() as stream:
            for number, content in lines(stream):
                try:
                    item: object = parse_object(content)
                except ValueError as exc:
                    item = exc
                yield f"{file.name}, line {number}", item
        return
    with file.opened() as stream:
        results = rows_of(load_document(stream, file))
    if results is None:
        raise CliError(f"{file.name} is no export of mem0: expected a list of memories")
    for number, item in enumerate(results, start=1):
        yield f"{file.name}, memory {number}", item


def _memory(item: dict[str, Any], text: str, prefix: str) -> dict[str, Any]:
    owner = next((str(item[name]) for name in _OWNERS if item.get(name)), "memories")
    line: dict[str, Any] = {"text": text, "source": f"{prefix}{owner}", "deduplicate": False}
    line["key"] = str(item.get("id") or content_key("mem0", text))
    line |= times(item)
    own = item.get("metadata")
    metadata = {name: item[name] for name in _KEPT if item.get(name)}
    metadata |= own if isinstance(own, dict) else {}
    if metadata:
        line["metadata"] = metadata
    return line
