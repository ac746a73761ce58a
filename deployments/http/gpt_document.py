"""The OpenAPI document for a Custom GPT: five operations, in the 3.0 form that its editor reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

OPERATION_IDS = frozenset({"searchMemory", "addMemory", "isNovel", "listMemories", "getStats"})
_SCHEMAS = "#/components/schemas/"
_NULL = {"type": "null"}

Json = dict[str, Any]


def gpt_document(document: Json) -> Json:
    """The part of an OpenAPI 3.1 document that a Custom GPT calls, as OpenAPI 3.0.

    A GPT takes at most 30 operations, no header parameters, and objects only with `properties`.
    """
    paths = _as_3_0({path: _kept(operations) for path, operations in document["paths"].items()})
    paths = {path: operations for path, operations in paths.items() if operations}
    schemas = document["components"]["schemas"]
    return {
        "openapi": "3.0.3",
        "info": document["info"],
        "servers": document["servers"],
        "paths": paths,
        "components": {
            "securitySchemes": document["components"]["securitySchemes"],
            "schemas": {
                name: _as_3_0(schemas[name]) for name in sorted(_reachable(paths, schemas))
            },
        },
    }


def _kept(operations: Json) -> Json:
    return {
        method: _operation(operation)
        for method, operation in operations.items()
        if operation["operationId"] in OPERATION_IDS
    }


def _operation(operation: Json) -> Json:
    """With its good answer alone, and an *Always allow* button in ChatGPT."""
    shown = {
        **operation,
        "responses": {"200": operation["responses"]["200"]},
        "parameters": [p for p in operation.get("parameters", ()) if p["in"] != "header"],
        "x-openai-isConsequential": False,
    }
    return {name: value for name, value in shown.items() if name != "tags"}


def _reachable(node: object, schemas: Json) -> set[str]:
    """Names of the schemas that a node refers to, over others too."""
    names: set[str] = set()
    waiting = [node]
    while waiting:
        found = set(_references(waiting.pop())) - names
        names |= found
        waiting += (schemas[name] for name in found)
    return names


def _references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"].removeprefix(_SCHEMAS)
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _as_3_0(node: Any) -> Any:  # noqa: ANN401 - any part of a document
    """A part of a document without the type `null`, which 3.0 writes as `nullable`."""
    if isinstance(node, list):
        return [_as_3_0(value) for value in node]
    if not isinstance(node, dict):
        return node
    node = {name: _as_3_0(value) for name, value in node.items()}
    if node.get("type") == "object":
        node.setdefault("properties", {})
    if _NULL not in node.get("anyOf", ()):
        return node
    others = [choice for choice in node.pop("anyOf") if choice != _NULL]
    if len(others) == 1 and "$ref" not in others[0]:
        return {**others[0], **node, "nullable": True}
    return {"allOf" if len(others) == 1 else "anyOf": others, **node, "nullable": True}
