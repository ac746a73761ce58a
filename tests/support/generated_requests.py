"""Requests made from schemas, that ask for what a test names wherever a schema has room for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """One request of a generated kind."""

    method: str
    path: str
    query: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | None = None


@dataclass(frozen=True)
class Wanted:
    """What to put where: by the name of a property or parameter, each in turn."""

    values: Mapping[str, list[Any]]
    lines: bytes
    """The body of what takes a stream."""


def requests_of(document: Json, wanted: Wanted) -> Iterator[tuple[str, Request]]:
    """Several requests for each operation of an OpenAPI document, by its id.

    The least that it takes, all that it takes, and the least with each of the others.
    """
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for request in _of_operation(document, path, method, operation, wanted):
                yield operation["operationId"], request


def _of_operation(
    document: Json, path: str, method: str, operation: Json, wanted: Wanted
) -> Iterator[Request]:
    parameters = [p for p in operation.get("parameters", ()) if p["in"] != "header"]
    for place in (p for p in parameters if p["in"] == "path"):
        path = path.replace(f"{{{place['name']}}}", str(wanted.values[place["name"]][0]))
    bodies: list[bytes | None] = [None]
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" in content:
        schema = content["application/json"]["schema"]
        bodies = [json.dumps(each).encode() for each in objects(schema, document, wanted)]
    elif content:
        bodies = [wanted.lines]
    asked = {
        "type": "object",
        "properties": {p["name"]: p["schema"] for p in parameters if p["in"] == "query"},
        "required": [p["name"] for p in parameters if p["in"] == "query" and p.get("required")],
    }
    for query in objects(asked, document, wanted):
        pairs = [
            (name, one if isinstance(one, str) else json.dumps(one))
            for name, value in query.items()
            for one in (value if isinstance(value, list) else [value])
        ]
        for body in bodies:
            yield Request(method.upper(), path, pairs, body)


def objects(schema: Json, document: Json, wanted: Wanted) -> Iterator[Json]:
    """Several objects of a schema: see `requests_of`."""
    schema = _resolved(schema, document)
    properties, required = schema.get("properties", {}), schema.get("required", [])
    least = {name: _value(name, properties[name], document, wanted) for name in required}
    yield least
    for name in properties:
        if name in required:
            continue
        for value in _values(name, properties[name], document, wanted):
            yield {**least, name: value}
    if len(properties) > len(required) + 1:
        yield {name: _value(name, properties[name], document, wanted) for name in properties}


def _value(name: str, schema: Json, document: Json, wanted: Wanted) -> Any:
    return _values(name, schema, document, wanted)[0]


def _values(name: str, schema: Json, document: Json, wanted: Wanted) -> list[Any]:
    schema = _resolved(schema, document)
    if name in wanted.values:
        return list(wanted.values[name])
    if "enum" in schema:
        return list(schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        items = schema.get("items", {})
        if _resolved(items, document).get("type") == "object":
            return [list(objects(items, document, wanted))[:3]]
        return [[_value(name, items, document, wanted)]]
    if kind == "object":
        return [next(objects(schema, document, wanted))]
    defaults: dict[str | None, list[Any]] = {
        "boolean": [True, False],
        "integer": [schema.get("maximum", schema.get("minimum", 1))],
        "number": [schema.get("minimum", 0), schema.get("maximum", 1)],
    }
    return defaults.get(kind, ["value"])


def _resolved(schema: Json, document: Json) -> Json:
    """A schema without references, and the first of its choices that is not null."""
    while True:
        if "$ref" in schema:
            found: Any = document
            for part in schema["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            schema = found
        elif choices := schema.get("anyOf") or schema.get("oneOf"):
            schema = next(each for each in choices if each.get("type") != "null")
        elif len(schema.get("allOf", ())) == 1:
            schema = schema["allOf"][0]
        else:
            return schema
