"""Answers `initialize` before the SDK is loaded.

Loading the SDK takes most of a second on a small machine (hundreds of protocol models are built),
and clients give up on a server that is slow to start. So the first line of stdin is read here; if
it is an `initialize` whose answer is certain, it is answered at once, and the SDK is then given
the same message with its own answer withheld. Anything else is left to the SDK alone.

Only the standard library is imported. A test compares the early answer with the SDK's.
"""

from __future__ import annotations

import json
import os
from typing import Any

from mcp_server import identity

VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""Protocol versions whose `initialize` is answered early; others are the SDK's to judge."""

CAPABILITIES = {
    "prompts": {"listChanged": False},
    "resources": {"subscribe": False, "listChanged": False},
    "tools": {"listChanged": False},
}


def read_first_line(fd: int) -> bytes:
    """Read one line, and not a byte more: the SDK reads the rest from the descriptor itself."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(fd, 1)
        if not byte:
            break
        line += byte
    return bytes(line)


def early_answer(line: bytes) -> dict[str, Any] | None:
    """The answer to a well-formed `initialize` of a known version; None to leave it to the SDK."""
    try:
        message = json.loads(line)
        params = message["params"]
        client = params["clientInfo"]
        certain = (
            message["jsonrpc"] == "2.0"
            and message["method"] == "initialize"
            and type(message["id"]) in (int, str)
            and params["protocolVersion"] in VERSIONS
            and isinstance(params["capabilities"], dict)
            and isinstance(client["name"], str)
            and isinstance(client["version"], str)
        )
    except (ValueError, KeyError, TypeError):
        return None
    if not certain:
        return None
    return {
        "jsonrpc": "2.0",
        "id": message["id"],
        "result": {
            "protocolVersion": params["protocolVersion"],
            "capabilities": CAPABILITIES,
            "serverInfo": {
                "name": identity.NAME,
                "title": identity.TITLE,
                "version": identity.version(),
            },
            "instructions": identity.INSTRUCTIONS,
        },
    }


def write_line(fd: int, answer: dict[str, Any]) -> None:
    """Write one message, whole."""
    line = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    while line:
        line = line[os.write(fd, line) :]
