"""Answers `initialize` and `tools/list` before the SDK is loaded.

Loading the SDK takes most of a second on a small machine, seconds on a busy one (hundreds of
protocol models are built), and clients give up on a server that is slow to start. So the first
lines of stdin are read here. An `initialize` whose answer is certain is answered at once; the SDK
is later given the same message, with its own answer withheld. So is a `tools/list` after it, from
a file. Anything else is left to the SDK.

Only the standard library is imported. Tests compare the early answers with the SDK's.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mcp_server import identity
from mcp_server.transport.jsonrpc_line import parsed

VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
"""Protocol versions whose `initialize` is answered early; others are the SDK's to judge."""

TOOLS_FILE = Path(__file__).parent.parent / "tools" / "tools_list.json"
"""What the SDK answers to `tools/list`, made by `python -m mcp_server.tools.described_tools`."""

CAPABILITIES = {
    "prompts": {"listChanged": False},
    "resources": {"subscribe": False, "listChanged": False},
    "tools": {"listChanged": False},
}


def read_line(fd: int) -> bytes:
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
        message: Any = parsed(line)
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


def early_tools(line: bytes) -> dict[str, Any] | None:
    """The answer to a plain `tools/list`, whole; None to leave the message to the SDK."""
    try:
        message: Any = parsed(line)
        plain = (
            message["jsonrpc"] == "2.0"
            and message["method"] == "tools/list"
            and type(message["id"]) in (int, str)
            and not message.get("params")
        )
    except (ValueError, KeyError, TypeError):
        return None
    if not plain:
        return None
    result = json.loads(TOOLS_FILE.read_bytes())
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


def is_initialized(line: bytes) -> bool:
    """Whether a line is the client's word that it has taken in the answer to `initialize`."""
    try:
        message: Any = parsed(line)
        return bool(message["method"] == "notifications/initialized")
    except (ValueError, KeyError, TypeError):
        return False


def write_line(fd: int, answer: dict[str, Any]) -> None:
    """Write one message, whole."""
    line = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    while line:
        line = line[os.write(fd, line) :]
