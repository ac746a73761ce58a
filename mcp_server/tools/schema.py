"""JSON Schemas without the titles and docstrings that would only repeat a model's names."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema
from typing_extensions import override

_LEFT_OUT = ("title", "description", "anyOf")
"""Of a model; hosts take no `anyOf` at the top of a tool's arguments."""


class PlainSchema(GenerateJsonSchema):
    """A generator whose schemas spend a model's context on what matters."""

    @override
    def generate(self, schema: CoreSchema, mode: JsonSchemaMode = "validation") -> JsonSchemaValue:
        """Without patterns: they are long, and models do not write by them."""
        plain: JsonSchemaValue = _without_patterns(super().generate(schema, mode))
        return plain

    @override
    def field_title_should_be_set(self, schema: object) -> bool:
        return False

    @override
    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        json_schema = super().model_schema(schema)
        return {k: v for k, v in json_schema.items() if k not in _LEFT_OUT}


def _without_patterns(node: Any) -> Any:  # noqa: ANN401 - any part of a schema
    if isinstance(node, list):
        return [_without_patterns(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        name: _without_patterns(value)
        for name, value in node.items()
        if not (name == "pattern" and isinstance(value, str))
    }
