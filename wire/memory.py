"""The fields of a memory: their types, bounds and descriptions."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from wire import limits

# One character that no regular expression dialect counts as white space.
_VISIBLE = r"[^\s\x1c-\x1f\x85\ufeff]"
_VISIBLE_RE = re.compile(_VISIBLE)
# JSON Schema searches, but generated clients look at the beginning alone.
VISIBLE_ANYWHERE = r"^[\s\S]*" + _VISIBLE


def _visible(value: str) -> str:
    if not _VISIBLE_RE.search(value):
        raise PydanticCustomError("blank", "Must not be empty or only white space")
    return value


def _bounded(value: dict[str, Any]) -> dict[str, Any]:
    """Metadata that JSON can carry (a number like 1e999 became infinity) and that is not huge."""
    try:
        size = len(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
    except ValueError:
        raise PydanticCustomError("finite_number", "Numbers must be finite") from None
    if size > limits.METADATA_BYTES:
        raise PydanticCustomError(
            "metadata_too_large",
            "Metadata must be at most {max_bytes} bytes of JSON",
            {"max_bytes": limits.METADATA_BYTES},
        )
    return value


def prose(max_length: int, description: str) -> Any:  # noqa: ANN401 - pydantic's field marker
    """A text that somebody reads; together with `Visible`."""
    return Field(
        min_length=1,
        max_length=max_length,
        description=description,
        json_schema_extra={"pattern": VISIBLE_ANYWHERE},
    )


Visible = AfterValidator(_visible)
UnitFloat = Annotated[float, Field(ge=0, le=1)]

Id = Annotated[int, Field(ge=0, le=limits.MAX_ID)]
Text = Annotated[
    str, prose(limits.TEXT_CHARS, "What to remember: one self-contained fact or passage."), Visible
]
Source = Annotated[
    str,
    Field(
        min_length=1,
        max_length=limits.SOURCE_CHARS,
        description="Where it comes from, e.g. `conversation`, `project-x/decisions`, a file path.",
    ),
]
Key = Annotated[
    str,
    Field(min_length=1, max_length=limits.KEY_CHARS, description="Unique within its source."),
]
Metadata = Annotated[dict[str, Any], AfterValidator(_bounded)]
AnyMetadata = Annotated[
    Metadata | None,
    Field(description="Any JSON object of at most 64 KiB, stored as given."),
]
MetadataFilter = Annotated[
    dict[str, Any], Field(max_length=limits.MAX_METADATA_FILTERS), AfterValidator(_bounded)
]


class Input(BaseModel):
    """A body, or a line of one."""

    # "NaN" in quotes would pass for a number.
    model_config = ConfigDict(allow_inf_nan=False)
