"""Telling JSON files apart: lines or one document, and whose."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from scripts.cli.readers.inputs import InputFile

JsonKind = Literal["jsonl", "mcp", "mem0", "chroma"]

_FIRST_KEYS = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:')


def kind_of_json(file: InputFile) -> JsonKind | None:
    """What a JSON file is by its beginning; None when that is no JSON."""
    beginning = file.peek().removeprefix(b"\xef\xbb\xbf").lstrip()
    first_line = beginning.split(b"\n", 1)[0]
    try:
        return _kind_of_value(json.loads(first_line))
    except ValueError:
        pass
    # A document over several lines, or a first line longer than what was looked at.
    if beginning[:1] not in (b"{", b"["):
        return None
    keys = {key.decode("utf-8", "replace") for key in _FIRST_KEYS.findall(beginning)}
    return _kind_of_keys(keys)


def _kind_of_value(value: object) -> JsonKind | None:
    if isinstance(value, list):
        value = value[0] if value else {}
    if not isinstance(value, dict):
        return None
    if value.get("type") in ("entity", "relation"):
        return "mcp"
    return _kind_of_keys(set(value) | _keys_inside(value))


def _keys_inside(value: dict[str, Any]) -> set[str]:
    results = value.get("results")
    if isinstance(results, list) and results and isinstance(results[0], dict):
        return set(results[0])
    return set()


def _kind_of_keys(keys: set[str]) -> JsonKind | None:
    if "documents" in keys and "ids" in keys:
        return "chroma"
    if "observations" in keys or "entityType" in keys or keys & {"entities", "relations"}:
        return "mcp"
    if "memory" in keys and "text" not in keys:
        return "mem0"
    if "text" in keys or "type" in keys:
        return "jsonl"
    return "mem0" if "results" in keys else None
