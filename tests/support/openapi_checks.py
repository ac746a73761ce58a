"""What generated requests are checked for, and where a schema cannot say what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import schemathesis
from schemathesis.checks import CHECKS
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from wire.limits import MAX_ID

_SCHEMAS = "#/components/schemas/"
_BOOLEANS = ["0", "1", "true", "false", "yes", "no", "on", "off", "t", "f", "y", "n"]
_SPELLINGS = {
    (1, 100): r"^(100|[1-9][0-9]?)$",
    (1, 100_000): r"^(100000|[1-9][0-9]{0,4})$",
    (0, MAX_ID): r"^[0-9]{1,15}$",
    (0.01, 36_500): r"^[1-9][0-9]{0,3}$",
    (0, 0.2): r"^0(\.(1[0-9]{0,8}|2))?$",
    (0, 1): r"^(0(\.[0-9]{1,9})?|1(\.0{1,9})?)$",
    (0.5, 1): r"^(0\.[5-9][0-9]{0,8}|1(\.0{1,9})?)$",
}
"""Of numbers as strings, by their bounds."""
_ZONES = ["UTC", "Europe/Berlin"]
"""No pattern can tell which ones there are."""


@schemathesis.serializer("application/x-ndjson", "application/octet-stream")
def _as_it_is(_context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


@schemathesis.hook
def before_load_schema(_context: Any, document: dict[str, Any]) -> None:
    """Let bodies hold what the parser takes for a number or a boolean, and zones be zones.

    The document tells the strict types alone, and requests that break them may be answered.
    """
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "timezone":
                    parameter["schema"] = {"enum": _ZONES}
    schemas = document["components"]["schemas"]
    waiting = [
        reference
        for operations in document["paths"].values()
        for operation in operations.values()
        for reference in _references(operation.get("requestBody"))
    ]
    loosened: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in loosened:
            loosened.add(name)
            waiting += _references(schemas[name])
            schemas[name] = _loosened(schemas[name])


def _references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"].removeprefix(_SCHEMAS)
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _loosened(node: Any) -> Any:
    if isinstance(node, list):
        return [_loosened(value) for value in node]
    if not isinstance(node, dict):
        return node
    node = {
        name: {"enum": [None, *_ZONES]} if name == "timezone" else _loosened(value)
        for name, value in node.items()
    }
    if node.get("type") == "boolean":
        return {"anyOf": [{"type": "boolean"}, {"enum": [0, 1, *_BOOLEANS]}]}
    if node.get("type") in ("integer", "number"):
        low, high = node["minimum"], node["maximum"]
        strings = {"type": "string", "pattern": _SPELLINGS[low, high]}
        booleans = [value for value in (False, True) if low <= value <= high]
        return {"anyOf": [node, strings, {"type": "boolean", "enum": booleans}]}
    return node


def checks_for(path: str) -> list[Callable[..., Any]]:
    """Those that hold for every request to a path."""
    checks = [check for check in CHECKS.get_all() if not isinstance(check, type)]
    # A schema cannot say which files and namespaces exist, that sync is on, what `confirm` must
    # be, or that one of two must be given: each is refused by contract.
    if path in ("/index/build", "/memory/move") or path.startswith(("/sync/", "/namespaces/")):
        checks.remove(positive_data_acceptance)
    if path == "/import":  # bad lines are answered line by line, in a 200
        checks.remove(negative_data_rejection)
    return checks
