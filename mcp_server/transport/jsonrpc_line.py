"""Judges a line of stdin: one JSON-RPC message, or what to answer to a line that is none.

A host waits for an answer to everything it sent with an id, so a line that cannot be taken is
answered under the id that stands in it, as far as one can be read.

Only the standard library is imported: the handshake reads lines before the SDK loads.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

PARSE_ERROR = -32700
INVALID_REQUEST = -32600

MAX_NESTING = 100

Json = dict[str, Any]

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}:]|-?\d+(?=\s*[,}])')


def parsed(line: bytes) -> object:
    """The JSON of a line. Raises `ValueError`, also for what the SDK's parser would refuse."""
    try:
        message = json.loads(line.decode(), parse_constant=_refuse)
        # A lone surrogate has no UTF-8.
        json.dumps(message, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if _nesting(message) > MAX_NESTING:
        raise ValueError(f"nested more than {MAX_NESTING} levels deep")
    return message


def refusals(line: bytes) -> list[Json]:
    """The errors that answer a line; none for a blank line and for what may be a message."""
    if not line.strip():
        return []
    try:
        message = parsed(line)
    except ValueError as exc:
        return [error(PARSE_ERROR, str(exc), _id_within(line))]
    if isinstance(message, list):
        reason = "send each message on a line of its own"
        ids = [each["id"] for each in message if _is_request(each)]
        return [error(INVALID_REQUEST, reason, each) for each in ids or [None]]
    if not isinstance(message, dict):
        return [error(INVALID_REQUEST, "not a JSON object", None)]
    if {"id", "method"} <= message.keys() and not _has_id(message):
        return [error(INVALID_REQUEST, "id must be a string or an integer", None)]
    return []


def shape_refusal(line: bytes) -> Json:
    """The error that answers a JSON object that is no message."""
    message: Any = parsed(line)
    message_id = message["id"] if _has_id(message) else None
    return error(INVALID_REQUEST, "not a JSON-RPC 2.0 message", message_id)


def error(code: int, reason: str, message_id: int | str | None) -> Json:
    """An error response."""
    text = "Parse error" if code == PARSE_ERROR else "Invalid request"
    return {
        "jsonrpc": "2.0",
        "id": message_id,
        "error": {"code": code, "message": f"{text}: {reason}"},
    }


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _is_request(message: object) -> bool:
    return isinstance(message, dict) and "method" in message and _has_id(message)


def _has_id(message: Json) -> bool:
    return type(message.get("id")) in (int, str)


def _nesting(value: object) -> int:
    depth, level = 0, [value]
    while containers := [each for each in level if isinstance(each, (dict, list))]:
        depth += 1
        level = [
            child
            for each in containers
            for child in (each.values() if isinstance(each, dict) else each)
        ]
    return depth


def _id_within(line: bytes) -> int | str | None:
    """The id of the message that a broken line was to be: not one of those in its arguments."""
    depth, before = 0, ("", "")
    for match in _TOKEN.finditer(line.decode("utf-8", "replace")):
        token = match[0]
        if depth == 1 and before == ('"id"', ":"):
            return _id(token)
        depth += (token in "[{") - (token in "]}")
        before = (before[1], token)
    return None


def _id(token: str) -> int | str | None:
    try:
        value = parsed(token.encode())
    except ValueError:
        return None
    return value if type(value) in (int, str) else None  # type: ignore[return-value]
