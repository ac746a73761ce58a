"""Numbers and booleans as request bodies may write them: pydantic's lax coercion, documented.

`"k": "3"` is accepted, so the OpenAPI document says so; else a generated client, or a test that
reads the document, would take the lenience for a fault.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

MAX_ID = 2**53 - 1
"""Ids stay exact in every JSON reader, the ones that know only doubles included."""

_BOOLEAN_SPELLINGS = ["0", "1", "true", "false", "yes", "no", "on", "off", "t", "f", "y", "n"]


def _number_schema(kind: str, low: float, high: float, spelling: str) -> WithJsonSchema:
    """JSON Schema of a number in [low, high], or a string or boolean that stands for one."""
    number: dict[str, Any] = {"type": kind, "minimum": low, "maximum": high}
    alternatives = [number, {"type": "string", "pattern": spelling}]
    booleans = [value for value in (False, True) if low <= value <= high]
    return WithJsonSchema({"anyOf": [*alternatives, {"type": "boolean", "enum": booleans}]})


LaxBool = Annotated[
    bool,
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"enum": [0, 1, *_BOOLEAN_SPELLINGS]}]}),
]

HitCount = Annotated[
    int, Field(ge=1, le=100), _number_schema("integer", 1, 100, r"^(100|[1-9][0-9]?)$")
]

MemoryNumber = Annotated[
    int, Field(ge=0, le=MAX_ID), _number_schema("integer", 0, MAX_ID, r"^[0-9]{1,15}$")
]

UnitFloat = Annotated[
    float, Field(ge=0, le=1), _number_schema("number", 0, 1, r"^(0(\.[0-9]{1,9})?|1(\.0{1,9})?)$")
]

UpperHalfFloat = Annotated[
    float,
    Field(ge=0.5, le=1),
    _number_schema("number", 0.5, 1, r"^(0\.[5-9][0-9]{0,8}|1(\.0{1,9})?)$"),
]
