"""JSON Schemas without the titles and docstrings that would only repeat a model's names."""

from __future__ import annotations

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema
from typing_extensions import override


class PlainSchema(GenerateJsonSchema):
    """A generator whose schemas spend a model's context on what matters."""

    @override
    def field_title_should_be_set(self, schema: object) -> bool:
        return False

    @override
    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        json_schema = super().model_schema(schema)
        return {k: v for k, v in json_schema.items() if k not in ("title", "description")}
