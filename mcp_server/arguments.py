"""The tools' arguments: their JSON Schemas, bounds and leniencies."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from typing_extensions import Self

DEFAULT_MAX_CHARS = 40_000
MAX_ID = 2**53 - 1


def _parsed(value: object) -> object:
    """Accept an object or list that a model sent as its JSON text."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


MemoryId = Annotated[int, Field(ge=0, le=MAX_ID, description="Id of the memory.")]
Text = Annotated[
    str, Field(min_length=1, max_length=50_000, description="One self-contained fact or passage.")
]
Source = Annotated[
    str,
    Field(
        min_length=1,
        max_length=500,
        description="Where it comes from, e.g. `conversation`, `project-x/decisions`, a file path.",
    ),
]
Metadata = Annotated[dict[str, Any], BeforeValidator(_parsed)]
MaxChars = Annotated[
    int,
    Field(
        ge=1_000,
        le=1_000_000,
        description="Bound on the length of the answer; what is cut says how to read on.",
    ),
]
SourcePart = Annotated[
    str | None,
    Field(max_length=500, description="Only sources containing this (case-sensitive)."),
]


class Arguments(BaseModel):
    """Base of every tool's arguments. Unknown ones are ignored, as the service does."""

    model_config = ConfigDict(extra="ignore")


class Search(Arguments):
    """Arguments of memory_search."""

    query: Annotated[
        str,
        Field(
            min_length=1,
            max_length=10_000,
            description="What to recall, as a question or as keywords.",
        ),
    ]
    k: Annotated[int, Field(ge=1, le=50, description="Most memories to return.")] = 5
    hybrid: Annotated[
        bool, Field(description="Combine meaning and keywords; false: meaning only.")
    ] = True
    threshold: Annotated[
        float | None,
        Field(ge=0, le=1, description="Least similarity of a result; 0.3 cuts unrelated ones."),
    ] = None
    source: SourcePart = None
    since: Annotated[
        str | None, Field(description="Only memories created at or after this ISO-8601 time.")
    ] = None
    until: Annotated[
        str | None, Field(description="Only memories created at or before this ISO-8601 time.")
    ] = None
    max_chars: MaxChars = DEFAULT_MAX_CHARS


class Add(Arguments):
    """Arguments of memory_add."""

    text: Text
    source: Source
    deduplicate: Annotated[
        bool, Field(description="Skip it when a very similar memory already exists.")
    ] = True
    metadata: Annotated[
        Metadata | None, Field(description="Any JSON object to keep with the memory.")
    ] = None


class BatchMemory(Arguments):
    """One memory of memory_add_batch."""

    text: Text
    source: Source
    deduplicate: Annotated[
        bool | None, Field(description="Overrides the batch's own for this memory.")
    ] = None
    metadata: Annotated[
        Metadata | None, Field(description="Any JSON object to keep with the memory.")
    ] = None


class AddBatch(Arguments):
    """Arguments of memory_add_batch."""

    memories: Annotated[
        list[BatchMemory],
        BeforeValidator(_parsed),
        Field(min_length=1, max_length=500, description="The memories; all are added or none."),
    ]
    deduplicate: Annotated[
        bool, Field(description="Skip those very similar to a stored or earlier one.")
    ] = True


class Get(Arguments):
    """Arguments of memory_get."""

    id: MemoryId
    start: Annotated[
        int, Field(ge=0, description="Character to start from, to read on in a long text.")
    ] = 0
    max_chars: MaxChars = DEFAULT_MAX_CHARS


class Update(Arguments):
    """Arguments of memory_update."""

    id: MemoryId
    text: Annotated[
        str | None, Field(min_length=1, max_length=50_000, description="The new text.")
    ] = None
    source: Annotated[
        str | None, Field(min_length=1, max_length=500, description="The new source.")
    ] = None
    metadata: Annotated[
        Metadata | None, Field(description="The new metadata, in place of the old.")
    ] = None

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.text is None and self.source is None and self.metadata is None:
            raise ValueError("give at least one of text, source and metadata")
        return self


class Delete(Arguments):
    """Arguments of memory_delete."""

    id: MemoryId


class DeleteBySource(Arguments):
    """Arguments of memory_delete_by_source."""

    source_pattern: Annotated[
        str,
        Field(
            min_length=1,
            max_length=500,
            description="Every memory whose source contains this (case-sensitive) is deleted.",
        ),
    ]


class ListMemories(Arguments):
    """Arguments of memory_list."""

    offset: Annotated[int, Field(ge=0, le=MAX_ID, description="Memories to skip.")] = 0
    limit: Annotated[int, Field(ge=1, le=50, description="Most memories to return.")] = 20
    source: SourcePart = None
    max_chars: MaxChars = DEFAULT_MAX_CHARS


class Stats(Arguments):
    """memory_stats takes none."""


class IsNovel(Arguments):
    """Arguments of memory_is_novel."""

    text: Text
    threshold: Annotated[
        float, Field(ge=0, le=1, description="Similarity from which a text is not novel.")
    ] = 0.88
