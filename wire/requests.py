"""Request bodies and query parameters: shapes, defaults, bounds.

Coercion is pydantic's lax one (`"3"` is 3) and unknown keys are ignored; the OpenAPI document
tells the strict types alone, as generators of clients want them. Lone surrogates, NaN and
excessive nesting never get here: the JSON reader refuses them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, Field
from pydantic_core import PydanticCustomError

from wire import limits
from wire.memory import Id, Input, Key, Metadata, Source, Text, UnitFloat, Visible, prose
from wire.moments import Instant, Since, TimeZone, Until, period

SourceFilter = Annotated[
    str | None,
    Field(
        max_length=limits.SOURCE_CHARS,
        description="Only sources that contain this, case-sensitive.",
    ),
]
SourcePrefix = Annotated[
    str | None,
    Field(max_length=limits.SOURCE_CHARS, description="Only sources that start with this."),
]


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise PydanticCustomError("nul", "A path cannot contain a NUL character")
    return value


class Filters(Input):
    """Which memories are meant."""

    source: SourceFilter = None
    source_prefix: SourcePrefix = None
    timezone: TimeZone = None
    since: Since = None
    until: Until = None

    def between_us(self) -> tuple[int | None, int | None]:
        """The first and the last microsecond, since the epoch, that since and until allow."""
        return (
            None if self.since is None else period(self.since, self.timezone)[0],
            None if self.until is None else period(self.until, self.timezone)[1],
        )


class SearchRequest(Filters):
    """A search."""

    query: Annotated[str, prose(limits.QUERY_CHARS, "What to look for, in plain words."), Visible]
    k: int = Field(
        limits.HITS,
        ge=1,
        le=limits.MAX_HITS,
        description="How many memories to return at most.",
    )
    hybrid: bool = Field(True, description="Combine meaning and keywords; false: meaning alone.")
    threshold: UnitFloat | None = Field(None, description="Least cosine similarity.")
    vector_weight: UnitFloat = Field(
        limits.VECTOR_WEIGHT, description="Weight of meaning over keywords."
    )
    metadata: Metadata | None = Field(None, description="Values the metadata must equal.")
    fusion: Literal["score", "rrf"] = Field(
        "score",
        description="How a hybrid search orders: by score, or by reciprocal ranks as the original.",
    )
    min_score: UnitFloat | None = Field(None, description="Least score; hybrid only.")
    neighbours: bool = Field(
        True, description="Whether memories beside a good one in the same source rise."
    )


class BatchSearchRequest(Input):
    """Several searches at once."""

    queries: list[SearchRequest] = Field(min_length=1, max_length=limits.MAX_QUERIES)


class AddRequest(Input):
    """A memory to add."""

    text: Text
    source: Source
    metadata: Metadata | None = None
    deduplicate: bool = Field(True, description="Skip it when a memory says the same.")


class AddBatchItem(Input):
    """One memory of a batch."""

    text: Text
    source: Source
    metadata: Metadata | None = None
    deduplicate: bool | None = Field(None, description="Wins over the batch's own.")


class AddBatchRequest(Input):
    """Memories to add, all or none."""

    memories: list[AddBatchItem] = Field(min_length=1, max_length=limits.MAX_ADDED)
    deduplicate: bool = Field(True, description="Skip memories that say the same as another.")


class UpsertRequest(Input):
    """A memory to add, or to put in the place of the one with this source and key."""

    text: Text
    source: Source
    key: Key
    metadata: Metadata | None = None


class PatchRequest(Input):
    """The fields of a memory to change; an absent or null one stays."""

    text: Text | None = None
    source: Source | None = None
    metadata: Metadata | None = None


class DeleteBySourceRequest(Input):
    """Which memories to delete by source."""

    source_pattern: str = Field(
        min_length=1,
        max_length=limits.SOURCE_CHARS,
        description="Case-sensitive substring of the source.",
    )


class DeleteBatchRequest(Input):
    """Which memories to delete by id."""

    ids: list[Id] = Field(min_length=1, max_length=limits.MAX_DELETED)


class IsNovelRequest(Input):
    """A text to compare with what is stored."""

    text: Text
    threshold: UnitFloat = Field(limits.NOVEL_BELOW, description="Novel below this similarity.")


class DeduplicateRequest(Input):
    """What counts as a duplicate, and whether to remove them."""

    threshold: float = Field(
        limits.DUPLICATE_FROM,
        ge=limits.LEAST_DUPLICATE,
        le=1,
        description="Least cosine of duplicates.",
    )
    by: Literal["same", "similarity"] = Field(
        "same", description="same: only memories that say the same; similarity: the cosine alone."
    )
    dry_run: bool = Field(True, description="Only report.")


class BuildRequest(Input):
    """Which workspace files to read."""

    sources: (
        list[Annotated[str, AfterValidator(_no_nul), Field(max_length=limits.PATH_CHARS)]] | None
    ) = Field(
        None,
        max_length=limits.MAX_BUILD_SOURCES,
        description="Files, directories or globs under the workspace; null: all of it.",
    )
    replace_all: bool = Field(False, description="Remove every other memory too.")


class BackupNameRequest(Input):
    """Which backup."""

    backup_name: str = Field(min_length=1, max_length=limits.BACKUP_NAME_CHARS)


class ListQuery(Filters):
    """Which memories to list."""

    offset: int = Field(0, ge=0, le=limits.MAX_ID)
    limit: int = Field(limits.PAGE, ge=1, le=limits.MAX_PAGE)
    order: Literal["asc", "desc"] = Field("asc", description="By time: asc: oldest first.")
    cursor: str | None = Field(
        None,
        max_length=limits.CURSOR_CHARS,
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


class ImportLine(Input):
    """One memory to import. Other keys, `id` among them, are ignored."""

    text: Text
    source: Source
    metadata: Metadata | None = None
    key: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=limits.KEY_CHARS,
            description="Put it in the place of this one.",
        ),
    ] = None
    timestamp: Annotated[
        Instant | None, Field(validation_alias=AliasChoices("timestamp", "created_at"))
    ] = None
    updated_at: Instant | None = None
    embedding: Annotated[
        str | list[float] | None,
        Field(description="Base64 of little-endian float32, or numbers; of unit length."),
    ] = None
    deduplicate: bool | None = Field(None, description="Wins over the import's own.")


class ExportQuery(Filters):
    """Which memories to export."""

    embeddings: bool = Field(False, description="With the embedding of each: base64, float32.")
