"""Request bodies and query parameters: shapes, defaults, bounds.

Coercion is pydantic's lax one (`"3"` is 3) and unknown keys are ignored; the OpenAPI document
tells the strict types alone, as generators of clients want them. Lone surrogates, NaN and
excessive nesting never get here: the JSON reader refuses them.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from deployments.http.moments import Since, TimeZone, Until
from engine.records import MemoryFilter

MAX_ID = 2**53 - 1
"""Ids stay exact in every JSON reader, the ones that know only doubles included."""
MAX_METADATA_BYTES = 64 * 1024

# One character that no regular expression dialect counts as white space.
_VISIBLE = r"[^\s\x1c-\x1f\x85\ufeff]"
_VISIBLE_RE = re.compile(_VISIBLE)
# JSON Schema searches, but generated clients look at the beginning alone.
_VISIBLE_ANYWHERE = r"^[\s\S]*" + _VISIBLE


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
    if size > MAX_METADATA_BYTES:
        raise PydanticCustomError(
            "metadata_too_large",
            "Metadata must be at most {max_bytes} bytes of JSON",
            {"max_bytes": MAX_METADATA_BYTES},
        )
    return value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise PydanticCustomError("nul", "A path cannot contain a NUL character")
    return value


def _text(max_length: int, description: str) -> Any:  # noqa: ANN401 - pydantic's field marker
    return Field(
        min_length=1,
        max_length=max_length,
        description=description,
        json_schema_extra={"pattern": _VISIBLE_ANYWHERE},
    )


Visible = AfterValidator(_visible)
UnitFloat = Annotated[float, Field(ge=0, le=1)]

MemoryText = Annotated[str, _text(50_000, "What to remember."), Visible]
Source = Annotated[
    str, Field(min_length=1, max_length=500, description="Where the memory comes from.")
]
SourceFilter = Annotated[
    str | None, Field(max_length=500, description="Only sources that contain this, case-sensitive.")
]
SourcePrefix = Annotated[
    str | None, Field(max_length=500, description="Only sources that start with this.")
]
Metadata = Annotated[
    dict[str, Any],
    AfterValidator(_bounded),
    Field(description="Any JSON object of at most 64 KiB, stored as given."),
]


class Input(BaseModel):
    """A body, or a line of one."""

    # "NaN" in quotes would pass for a number.
    model_config = ConfigDict(allow_inf_nan=False)


class Filters(Input):
    """Which memories are meant."""

    source: SourceFilter = None
    source_prefix: SourcePrefix = None
    timezone: TimeZone = None
    since: Since = None
    until: Until = None

    def where(self) -> MemoryFilter:
        """The filter that these make; an empty one lets every memory pass."""
        return MemoryFilter(
            source=self.source or None,
            source_prefix=self.source_prefix or None,
            since_us=self.since,
            until_us=self.until,
        )


class SearchRequest(Filters):
    """A search."""

    query: Annotated[str, _text(10_000, "What to look for, in plain words."), Visible]
    k: int = Field(5, ge=1, le=100, description="How many memories to return at most.")
    hybrid: bool = Field(True, description="Combine meaning and keywords; false: meaning alone.")
    threshold: UnitFloat | None = Field(None, description="Least cosine similarity.")
    vector_weight: UnitFloat = Field(0.7, description="Weight of meaning over keywords.")
    metadata: Metadata | None = Field(None, description="Values the metadata must equal.")
    fusion: Literal["score", "rrf"] = Field(
        "score",
        description="How a hybrid search orders: by score, or by reciprocal ranks as the original.",
    )
    min_score: UnitFloat | None = Field(None, description="Least score; hybrid only.")
    neighbours: bool = Field(
        True, description="Whether memories beside a good one in the same source rise."
    )

    def where(self) -> MemoryFilter:
        """With the metadata."""
        return replace(super().where(), metadata=self.metadata or None)


class BatchSearchRequest(Input):
    """Several searches at once."""

    queries: list[SearchRequest] = Field(min_length=1, max_length=100)


class AddRequest(Input):
    """A memory to add."""

    text: MemoryText
    source: Source
    metadata: Metadata | None = None
    deduplicate: bool = Field(True, description="Skip it when a memory says the same.")


class AddBatchItem(Input):
    """One memory of a batch."""

    text: MemoryText
    source: Source
    metadata: Metadata | None = None
    deduplicate: bool | None = Field(None, description="Wins over the batch's own.")


class AddBatchRequest(Input):
    """Memories to add, all or none."""

    memories: list[AddBatchItem] = Field(min_length=1, max_length=500)
    deduplicate: bool = Field(True, description="Skip memories that say the same as another.")


class UpsertRequest(Input):
    """A memory to add, or to put in the place of the one with this source and key."""

    text: MemoryText
    source: Source
    key: str = Field(min_length=1, max_length=500, description="Unique within its source.")
    metadata: Metadata | None = None


class PatchRequest(Input):
    """The fields of a memory to change; an absent or null one stays."""

    text: MemoryText | None = None
    source: Source | None = None
    metadata: Metadata | None = None


class DeleteBySourceRequest(Input):
    """Which memories to delete by source."""

    source_pattern: str = Field(
        min_length=1, max_length=500, description="Case-sensitive substring of the source."
    )


class DeleteBatchRequest(Input):
    """Which memories to delete by id."""

    ids: list[Annotated[int, Field(ge=0, le=MAX_ID)]] = Field(min_length=1, max_length=1000)


class IsNovelRequest(Input):
    """A text to compare with what is stored."""

    text: MemoryText
    threshold: UnitFloat = Field(0.88, description="Novel below this similarity.")


class DeduplicateRequest(Input):
    """What counts as a duplicate, and whether to remove them."""

    threshold: float = Field(0.90, ge=0.5, le=1, description="Least cosine of duplicates.")
    by: Literal["same", "similarity"] = Field(
        "same", description="same: only memories that say the same; similarity: the cosine alone."
    )
    dry_run: bool = Field(True, description="Only report.")


class BuildRequest(Input):
    """Which workspace files to read."""

    sources: list[Annotated[str, AfterValidator(_no_nul), Field(max_length=4096)]] | None = Field(
        None,
        max_length=1000,
        description="Files, directories or globs under the workspace; null: all of it.",
    )
    replace_all: bool = Field(False, description="Remove every other memory too.")


class BackupNameRequest(Input):
    """Which backup."""

    backup_name: str = Field(min_length=1, max_length=200)


class ListQuery(Filters):
    """Which memories to list."""

    offset: int = Field(0, ge=0, le=MAX_ID)
    limit: int = Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = Field("asc", description="By time: asc: oldest first.")
    cursor: str | None = Field(
        None,
        max_length=500,
        description="`next_cursor` of the page before; wins over offset.",
        json_schema_extra={
            "pattern": r"^-?[0-9]{1,18}\.[0-9]{1,16}$"
        },  # another one is a 400 of the index
    )


class ImportQuery(Input):
    """How a stream is imported."""

    on_error: Literal["continue", "stop"] = Field(
        "continue", description="Whether a line with an error stops the import."
    )
    deduplicate: bool = Field(True, description="Skip what a stored memory says already.")
    report: Literal["all", "errors"] = Field(
        "all",
        description="errors: leave out the answers of lines that have none. For clients that "
        "cannot read while they send.",
    )


class ExportQuery(Filters):
    """Which memories to export."""

    embeddings: bool = Field(False, description="With the embedding of each: base64, float32.")
