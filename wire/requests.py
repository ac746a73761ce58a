"""Request bodies and query parameters: shapes, defaults, bounds.

Coercion is pydantic's lax one (`"3"` is 3) and unknown keys are ignored; the OpenAPI document
tells the strict types alone, as generators of clients want them. Lone surrogates, NaN and
excessive nesting never get here: the JSON reader refuses them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError
from typing_extensions import Self

from wire import limits
from wire.memory import (
    AnyMetadata,
    Id,
    Input,
    Key,
    Metadata,
    MetadataFilter,
    Source,
    Text,
    UnitFloat,
    Visible,
    prose,
)
from wire.moments import Instant, Since, TimeZone, Until, period

REDACT: Any = Field(False, description="Replace secrets in the text by `[redacted:kind]`.")
REDACT_ITEM: Any = Field(None, description="Whether secrets are replaced; wins over the default.")
K_DESCRIPTION = "How many memories to return at most."
LIMIT_DESCRIPTION = "How many memories a page has at most."
METADATA_DESCRIPTION = "Values the metadata must equal."
MIN_SCORE_DESCRIPTION = "Least score of a hit; hybrid only."
TIME_ORDER_DESCRIPTION = "By time of creation: oldest first, or newest first."
OFFSET: Any = Field(0, ge=0, le=limits.MAX_ID, description="How many memories to skip.")

_CURSOR = r"^-?[0-9]{1,18}\.[0-9]{1,16}$"
"""Another one is a 400 of the index."""
_ONE_OF_TWO: Any = [
    {"required": [name], "properties": {name: {"type": "string"}}}
    for name in ("source_pattern", "source_exact")
]


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise PydanticCustomError("nul", "A path cannot contain a NUL character")
    return value


class Filters(Input):
    """Which memories are meant. What is empty counts as absent."""

    source: str | None = Field(
        None,
        max_length=limits.SOURCE_CHARS,
        description="Only sources that contain this, case-sensitive.",
    )
    source_exact: str | None = Field(
        None, max_length=limits.SOURCE_CHARS, description="Only this very source."
    )
    source_prefix: str | None = Field(
        None, max_length=limits.SOURCE_CHARS, description="Only sources that start with this."
    )
    timezone: TimeZone = None
    since: Since = None
    until: Until = None

    def between_us(self) -> tuple[int | None, int | None]:
        """The first and the last microsecond, since the epoch, that since and until allow."""
        return (
            None if self.since is None else period(self.since, self.timezone)[0],
            None if self.until is None else period(self.until, self.timezone)[1],
        )


Namespaces = Annotated[
    list[Annotated[str, StringConstraints(pattern=limits.NAMESPACE_GLOB)]] | None,
    Field(
        min_length=1,
        max_length=limits.MAX_GLOBS,
        description="Instead of the call's own: names, or team.* for all of yours that begin so.",
    ),
]

QueryText = Annotated[str, prose(limits.QUERY_CHARS, "What to look for, in plain words."), Visible]


class Query(Input):
    """What is looked for."""

    query: QueryText
    k: int = Field(limits.HITS, ge=1, le=limits.MAX_HITS, description=K_DESCRIPTION)
    hybrid: bool = Field(True, description="Combine meaning and keywords; false: meaning alone.")
    threshold: UnitFloat | None = Field(
        None, description="Least cosine similarity; 0.3 cuts unrelated memories."
    )
    metadata: MetadataFilter | None = Field(None, description=METADATA_DESCRIPTION)
    order: Literal["best", "newest", "oldest"] = Field(
        "best", description="How to list the k best: best first, or by time of creation."
    )


class Recency(Input):
    """How much age takes from a score."""

    half_life_days: float = Field(
        ge=limits.HALF_LIFE_DAYS[0],
        le=limits.HALF_LIFE_DAYS[1],
        description="Age in days at which half of weight is taken.",
    )
    weight: float = Field(
        limits.RECENCY_WEIGHT,
        ge=0,
        le=limits.MAX_RECENCY_WEIGHT,
        description="The most that age takes, as a share of the score.",
    )


class SearchRequest(Query, Filters):
    """A search."""

    namespaces: Namespaces = None
    vector_weight: UnitFloat = Field(
        limits.VECTOR_WEIGHT, description="Weight of meaning over keywords."
    )
    fusion: Literal["score", "rrf"] = Field(
        "score",
        description="How a hybrid search orders: by score, or by reciprocal ranks as the original.",
    )
    min_score: UnitFloat | None = Field(None, description=MIN_SCORE_DESCRIPTION)
    neighbours: bool = Field(
        True, description="Whether memories beside a good one in the same source rise."
    )
    recency: Recency | None = Field(
        None, description="Prefer what is newer, a little; null: age does not count. Hybrid only."
    )
    explain: bool = Field(False, description="Say why each hit came, and what was dropped.")


class TimelineRequest(Filters):
    """What to show in order of time."""

    query: QueryText | None = Field(
        None, description="What to look for, in plain words; null: the newest memories."
    )
    k: int = Field(limits.PAGE, ge=1, le=limits.MAX_HITS, description=K_DESCRIPTION)
    min_score: UnitFloat | None = Field(None, description=MIN_SCORE_DESCRIPTION)
    metadata: MetadataFilter | None = Field(None, description=METADATA_DESCRIPTION)
    order: Literal["oldest", "newest"] = Field("oldest", description=TIME_ORDER_DESCRIPTION)


class BatchSearchRequest(Input):
    """Several searches at once."""

    queries: list[SearchRequest] = Field(min_length=1, max_length=limits.MAX_QUERIES)


class NewMemory(Input):
    """What every new memory has."""

    text: Text
    source: Source
    metadata: AnyMetadata = None


class AddRequest(NewMemory):
    """A memory to add."""

    deduplicate: bool = Field(True, description="Skip it when a memory says the same.")
    redact: bool = REDACT


class AddBatchItem(NewMemory):
    """One memory of a batch."""

    deduplicate: bool | None = Field(None, description="Wins over the batch's own.")
    redact: bool | None = REDACT_ITEM


class AddBatchRequest(Input):
    """Memories to add, all or none."""

    memories: list[AddBatchItem] = Field(min_length=1, max_length=limits.MAX_ADDED)
    deduplicate: bool = Field(True, description="Skip memories that say the same as another.")
    redact: bool = REDACT


class UpsertRequest(NewMemory):
    """A memory to add, or to put in the place of the one with this source and key."""

    key: Key
    redact: bool = REDACT


class PatchRequest(Input):
    """The fields of a memory to change; an absent or null one stays."""

    text: Text | None = Field(None, description="The new text.")
    source: Source | None = Field(None, description="The new source.")
    metadata: Metadata | None = Field(
        None, description="The new metadata, any JSON object of at most 64 KiB."
    )
    redact: bool = REDACT


class DeleteBySourceRequest(Input):
    """Which memories to delete by source: give one of the two, or both, and both must hold."""

    model_config = ConfigDict(json_schema_extra={"anyOf": _ONE_OF_TWO})

    source_pattern: str | None = Field(
        None,
        min_length=1,
        max_length=limits.SOURCE_CHARS,
        description="Case-sensitive substring of the source.",
    )
    source_exact: str | None = Field(
        None, min_length=1, max_length=limits.SOURCE_CHARS, description="The whole source."
    )

    @model_validator(mode="after")
    def _names_a_source(self) -> Self:
        if self.source_pattern is None and self.source_exact is None:
            raise PydanticCustomError("missing", "Give source_pattern or source_exact")
        return self

    @property
    def source(self) -> str | None:
        """The pattern, as filters call it."""
        return self.source_pattern


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

    namespaces: Namespaces = None
    offset: int = OFFSET
    limit: int = Field(limits.PAGE, ge=1, le=limits.MAX_PAGE, description=LIMIT_DESCRIPTION)
    order: Literal["asc", "desc"] = Field("asc", description="By time: asc: oldest first.")
    cursor: str | None = Field(
        None,
        max_length=limits.CURSOR_CHARS,
        description="`next_cursor` of the page before; wins over offset.",
        json_schema_extra={"pattern": _CURSOR},
    )


class ImportQuery(Input):
    """How a stream is imported."""

    on_error: Literal["continue", "stop"] = Field(
        "continue", description="Whether a line with an error stops the import."
    )
    deduplicate: bool = Field(True, description="Skip what a stored memory says already.")
    redact: bool = REDACT
    report: Literal["all", "errors"] = Field(
        "all",
        description="errors: leave out the answers of lines that have none. For clients that "
        "cannot read while they send.",
    )


class ImportLine(NewMemory):
    """One memory to import. Other keys, `id` among them, are ignored."""

    key: Key | None = Field(None, description="Put it in the place of this one.")
    timestamp: Annotated[
        Instant | None, Field(validation_alias=AliasChoices("timestamp", "created_at"))
    ] = None
    updated_at: Instant | None = None
    embedding: Annotated[
        str | list[float] | None,
        Field(description="Base64 of little-endian float32, or numbers; of unit length."),
    ] = None
    deduplicate: bool | None = Field(None, description="Wins over the import's own.")
    redact: bool | None = REDACT_ITEM


class ExportQuery(Filters):
    """Which memories to export."""

    embeddings: bool = Field(False, description="With the embedding of each: base64, float32.")
