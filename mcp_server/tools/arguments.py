"""The tools' arguments: those of the service, and the leniencies that hosts and models need."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self, override

from wire import limits, requests
from wire.memory import Id

DEFAULT_MAX_CHARS = 40_000
MAX_SHOWN = 50
"""Memories that one answer may hold: fewer than the service's, a model reads them all."""
NOTE_OVERHEAD_CHARS = 10
MOST_NAMED = 3
LONGEST_NAME_CHARS = 16

_NOT_A_NAME = re.compile(r"[^\w.$-]")

MemoryId = Annotated[Id, Field(description="Id of the memory.")]


def _parsed(value: object) -> object:
    """An object or list that a model sent as its JSON text."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _is_absent(value: object) -> bool:
    return value is None or value in ("", "null")


class Arguments(BaseModel):
    """Base of every tool's arguments.

    Hosts and models give what they have no value for as null, "null" or "": an optional argument
    given so counts as absent. Those that a tool does not take are named in its answer.
    """

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _as_meant(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        required = {name for name, field in cls.model_fields.items() if field.is_required()}
        return {
            name: _parsed(value) if name in ("metadata", "memories") else value
            for name, value in given.items()
            if name in required or not _is_absent(value)
        }

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


class Search(Bounded, requests.Filters, requests.Query):
    """Arguments of memory_search."""

    k: int = Field(limits.HITS, ge=1, le=MAX_SHOWN, description=requests.K_DESCRIPTION)
    mode: Annotated[
        Literal["hybrid", "meaning", "words"] | None,
        Field(description="hybrid (default), by meaning only, or by exact words only."),
    ] = None
    hybrid: Annotated[bool, Field(description="false is mode meaning; mode wins.")] = True

    def body(self) -> dict[str, Any]:
        """The service's own form of this search."""
        body = self.model_dump(mode="json", exclude={"mode", "max_chars"})
        if self.mode is not None:
            body["hybrid"] = self.mode != "meaning"
        if self.mode == "words":
            body["vector_weight"] = 0
        return body

    @property
    def asks_by_time(self) -> bool:
        """Whether it matters when something was stored."""
        return self.order != "best" or self.since is not None or self.until is not None


class Timeline(Bounded, requests.TimelineRequest):
    """Arguments of memory_timeline."""

    k: int = Field(limits.PAGE, ge=1, le=MAX_SHOWN, description=requests.K_DESCRIPTION)

    def body(self) -> dict[str, Any]:
        """The service's own form of this."""
        return self.model_dump(mode="json", exclude={"max_chars"})


class Add(Arguments, requests.AddRequest):
    """Arguments of memory_add."""


class BatchMemory(Arguments, requests.AddBatchItem):
    """One memory of memory_add_batch."""


class AddBatch(Arguments, requests.AddBatchRequest):
    """Arguments of memory_add_batch."""

    memories: list[BatchMemory] = Field(  # type: ignore[assignment]  # of the same fields
        min_length=1,
        max_length=limits.MAX_ADDED,
        description="The memories; all are added or none.",
    )

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


class Update(Arguments, requests.PatchRequest):
    """Arguments of memory_update."""

    id: MemoryId

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.text is None and self.source is None and self.metadata is None:
            raise ValueError("give at least one of text, source and metadata")
        return self


class Delete(Arguments):
    """Arguments of memory_delete."""

    id: MemoryId


class DeleteBySource(Arguments, requests.DeleteBySourceRequest):
    """Arguments of memory_delete_by_source."""

    def which(self) -> str:
        """What is true of the sources meant, after "a source that"."""
        contains = self.source_pattern and f'contains "{self.source_pattern}"'
        same = self.source_exact and f'is "{self.source_exact}"'
        return " and ".join(filter(None, (contains, same)))


class ListMemories(Bounded, requests.Filters):
    """Arguments of memory_list."""

    offset: int = requests.OFFSET
    limit: int = Field(limits.PAGE, ge=1, le=MAX_SHOWN, description=requests.LIMIT_DESCRIPTION)
    cursor: Annotated[
        str | None,
        Field(
            max_length=60,
            pattern=r"^[0-9]{1,16}--?[0-9]{1,18}\.[0-9]{1,18}$",
            description="`next_cursor` of the page before, in the place of offset.",
        ),
    ] = None

    def where(self) -> dict[str, Any]:
        """Which memories, as the service's own parameters."""
        return self.model_dump(mode="json", include=set(requests.Filters.model_fields))

    def start(self) -> tuple[int, str | None]:
        """How many memories come before the page, and the service's own cursor."""
        if self.cursor is None:
            return self.offset, None
        n_before, _, cursor = self.cursor.partition("-")
        return int(n_before), cursor


class Stats(Arguments):
    """memory_stats takes none."""


class IsNovel(Arguments, requests.IsNovelRequest):
    """Arguments of memory_is_novel."""


def not_taken_note(tool: str, names: Sequence[str]) -> str:
    """What to say about arguments that a tool does not take; nothing when there are none."""
    if not names:
        return ""
    shown = [_NOT_A_NAME.sub("?", name[:LONGEST_NAME_CHARS]) for name in names[:MOST_NAMED]]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{tool} takes no {', '.join(shown)}{more}: not used."
