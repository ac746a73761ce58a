"""The tools' arguments: their JSON Schemas, bounds and leniencies."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)
from typing_extensions import Self, override

DEFAULT_MAX_CHARS = 40_000
MAX_ID = 2**53 - 1
NOTE_OVERHEAD_CHARS = 10
MOST_NAMED = 3
LONGEST_NAME_CHARS = 16


def _parsed(value: object) -> object:
    """Accept an object or list that a model sent as its JSON text."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


_NOT_A_NAME = re.compile(r"[^\w.$-]")


def _is_absent(value: object) -> bool:
    return value is None or value in ("", "null")


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
SourcePart = Annotated[
    str | None,
    Field(max_length=500, description="Only sources containing this (case-sensitive)."),
]


class Arguments(BaseModel):
    """Base of every tool's arguments.

    Hosts and models give what they have no value for as null, "null" or "": an optional argument
    given so counts as absent. Those that a tool does not take are named in its answer.
    """

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _without_absent(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        required = {name for name, field in cls.model_fields.items() if field.is_required()}
        return {k: v for k, v in given.items() if k in required or not _is_absent(v)}

    @classmethod
    def not_taken(cls, given: Mapping[str, Any]) -> list[str]:
        """Names of given arguments that the tool does not take."""
        return [k for k, v in given.items() if k not in cls.model_fields and not _is_absent(v)]

    def with_room_for(self, note: str) -> Self:
        """Such that the answer and a note on it, sent twice, keep their bound."""
        return self


class Bounded(Arguments):
    """Base of the arguments of tools whose answers may be long."""

    max_chars: Annotated[
        int,
        Field(
            ge=1_000,
            le=1_000_000,
            description="Bound on all that is sent back; what is cut says how to read on.",
        ),
    ] = DEFAULT_MAX_CHARS

    @override
    def with_room_for(self, note: str) -> Self:
        taken = 2 * (len(note) + NOTE_OVERHEAD_CHARS) if note else 0
        return self.model_copy(update={"max_chars": self.max_chars - taken})


class Search(Bounded):
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
    mode: Annotated[
        Literal["hybrid", "meaning", "words"] | None,
        Field(description="hybrid (default), by meaning only, or by exact words only."),
    ] = None
    hybrid: Annotated[bool, Field(description="false is mode meaning; mode wins.")] = True
    threshold: Annotated[
        float | None,
        Field(ge=0, le=1, description="Least similarity of a result; 0.3 cuts unrelated ones."),
    ] = None
    source: SourcePart = None
    source_prefix: Annotated[
        str | None, Field(max_length=500, description="Only sources that start with this.")
    ] = None
    metadata: Annotated[
        Metadata | None, Field(description="Only memories whose metadata has these values.")
    ] = None
    since: Annotated[
        str | None,
        Field(
            description="Only memories created from then on: an ISO-8601 time, a day, a month "
            "(2026-03), today, yesterday, or days ago (7d)."
        ),
    ] = None
    until: Annotated[
        str | None, Field(description="Only those created until then; a day counts whole.")
    ] = None
    timezone: Annotated[
        str | None,
        Field(max_length=100, description="Whose days those are, e.g. Europe/Berlin; default UTC."),
    ] = None

    def body(self) -> dict[str, Any]:
        """The service's own form of this search."""
        body = self.model_dump(exclude={"mode", "max_chars"})
        if self.mode is not None:
            body["hybrid"] = self.mode != "meaning"
        if self.mode == "words":
            body["vector_weight"] = 0
        return body


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

    @override
    @classmethod
    def not_taken(cls, given: Mapping[str, Any]) -> list[str]:
        """Those of each memory too, once."""
        memories = _parsed(given.get("memories"))
        items = memories if isinstance(memories, list) else []
        of_items = [BatchMemory.not_taken(item) for item in items if isinstance(item, dict)]
        return list(dict.fromkeys([*super().not_taken(given), *chain.from_iterable(of_items)]))


class Get(Bounded):
    """Arguments of memory_get."""

    id: MemoryId
    start: Annotated[
        int, Field(ge=0, description="Character to start from, to read on in a long text.")
    ] = 0


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


class ListMemories(Bounded):
    """Arguments of memory_list."""

    offset: Annotated[int, Field(ge=0, le=MAX_ID, description="Memories to skip.")] = 0
    limit: Annotated[int, Field(ge=1, le=50, description="Most memories to return.")] = 20
    source: SourcePart = None
    cursor: Annotated[
        str | None,
        Field(
            max_length=60,
            pattern=r"^[0-9]{1,16}--?[0-9]{1,18}\.[0-9]{1,18}$",
            description="`next_cursor` of the page before, in the place of offset.",
        ),
    ] = None

    def start(self) -> tuple[int, str | None]:
        """How many memories come before the page, and the service's own cursor."""
        if self.cursor is None:
            return self.offset, None
        n_before, _, cursor = self.cursor.partition("-")
        return int(n_before), cursor


class Stats(Arguments):
    """memory_stats takes none."""


class IsNovel(Arguments):
    """Arguments of memory_is_novel."""

    text: Text
    threshold: Annotated[
        float, Field(ge=0, le=1, description="Similarity from which a text is not novel.")
    ] = 0.88


def not_taken_note(tool: str, names: Sequence[str]) -> str:
    """What to say about arguments that a tool does not take; nothing when there are none."""
    if not names:
        return ""
    shown = [_NOT_A_NAME.sub("?", name[:LONGEST_NAME_CHARS]) for name in names[:MOST_NAMED]]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{tool} takes no {', '.join(shown)}{more}: not used."
