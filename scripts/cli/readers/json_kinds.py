"""Telling JSON files apart: lines or one document, and whose."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from scripts.cli.readers.documents import rows_of
from scripts.cli.readers.inputs import InputFile
from scripts.cli.readers.records import TEXT_NAMES

JsonKind = Literal[
    "jsonl",
    "json",
    "mcp",
    "mem0",
    "chroma",
    "mcp-memory-service",
    "chatgpt",
    "claude",
    "claude-code",
    "codex",
]

LINES = frozenset({".jsonl", ".ndjson"})
_OF_ONE = ("text", "content", "_header")
"""What an object has that is a line of its own, whatever lists it holds besides."""
_FIRST_KEYS = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:')


def kind_of_json(file: InputFile) -> JsonKind | None:
    """What a JSON file is by its beginning; None when that is no JSON."""
    beginning = file.peek().removeprefix(b"\xef\xbb\xbf").lstrip()
    first_line = beginning.split(b"\n", 1)[0]
    try:
        return _kind_of_value(json.loads(first_line))
    except (ValueError, RecursionError):
        pass
    # A document over several lines, or a first line longer than what was looked at.
    if beginning[:1] not in (b"{", b"["):
        return None
    keys = {key.decode("utf-8", "replace") for key in _FIRST_KEYS.findall(beginning)}
    is_list = beginning[:1] == b"["
    is_document = file.suffix == ".json" or (file.suffix not in LINES and b"\n" in beginning)
    return _kind_of_keys(keys, is_document=is_list or is_document)


def _kind_of_value(value: object) -> JsonKind | None:
    own = set(value) if isinstance(value, dict) else set()
    rows = rows_of(value)
    first: Any = rows[0] if rows else value
    if isinstance(first, dict) and first.get("type") in ("entity", "relation"):
        return "mcp"
    if isinstance(value, list) and not isinstance(first, dict):
        return "json"
    keys = own | (set(first) if isinstance(first, dict) else set())
    return _kind_of_keys(keys, is_document=rows is not None and own.isdisjoint(_OF_ONE))


def _transcript(keys: set[str]) -> Literal["claude-code", "codex"] | None:
    """Whose session a first line is of."""
    if {"timestamp", "type", "payload"} <= keys or {"id", "timestamp", "instructions"} <= keys:
        return "codex"
    own = ({"sessionId"}, {"summary", "leafUuid"}, {"messageId", "snapshot"})
    return "claude-code" if "type" in keys and any(some <= keys for some in own) else None


def _kind_of_keys(keys: set[str], *, is_document: bool) -> JsonKind | None:
    if not is_document and (transcript := _transcript(keys)):
        return transcript
    if "chat_messages" in keys:
        return "claude"
    if "mapping" in keys and keys & {"current_node", "create_time"}:
        return "chatgpt"
    if "content_hash" in keys or "export_metadata" in keys:
        return "mcp-memory-service"
    if "documents" in keys and "ids" in keys:
        return "chroma"
    if "observations" in keys or "entityType" in keys or keys & {"entities", "relations"}:
        return "mcp"
    if "memory" in keys and keys.isdisjoint(("text", "content")):
        return "mem0"
    if keys & {*TEXT_NAMES, "type", "_header"}:
        return "json" if is_document else "jsonl"
    if "results" in keys:
        return "mem0"
    return "json" if is_document and keys else None
