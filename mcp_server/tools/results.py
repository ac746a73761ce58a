"""The structured content of the tools' results, as models; their schemas are the output schemas.

Many hosts hand a model nothing but these: they are as lean as the texts.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class Result(BaseModel):
    """Base of every structured result."""

    note: str | None = None

    def lean(self) -> dict[str, Any]:
        """The result as JSON, without what it does not have."""
        return self.model_dump(mode="json", exclude_none=True)


class Memory(BaseModel):
    """One memory; `text` may be an excerpt that ends with how to read on."""

    id: int
    source: str
    date: str
    text: str
    metadata: dict[str, Any] | None = None


class Match(Memory):
    """A memory found, and how well it matches in percent."""

    match: int


class Searched(Result):
    """Result of memory_search, best first unless another order was asked for."""

    results: list[Match]
    left_out: int | None = None


class Beginning(BaseModel):
    """How a memory begins."""

    id: int
    text: str


class TimelineMemory(Memory):
    """A memory of a timeline, and what stands beside it in its source."""

    match: int | None = None
    before: Beginning | None = None
    after: Beginning | None = None


class Day(BaseModel):
    """The memories of a day."""

    date: str
    memories: list[TimelineMemory]


class Timeline(Result):
    """Result of memory_timeline, in order of time."""

    days: list[Day]
    left_out: int | None = None


class Similar(BaseModel):
    """The beginning of a memory much like one that was added."""

    id: int
    match: int
    text: str


class Added(Result):
    """Result of memory_add: the new `id`, or what it would have repeated."""

    added: bool
    id: int | None = None
    duplicate_of: int | None = None
    match: int | None = None
    duplicate_text: str | None = None
    similar: list[Similar] | None = None
    redacted: dict[str, int] | None = None


class BatchOutcome(BaseModel):
    """What became of one memory of a batch: its `id`, or the memory it would have repeated."""

    id: int | None = None
    duplicate_of: int | None = None
    redacted: dict[str, int] | None = None


class AddedBatch(Result):
    """Result of memory_add_batch, one outcome per input, in order."""

    count: int
    results: list[BatchOutcome]


class Got(Result, Memory):
    """Result of memory_get."""

    key: str | None = None


class Updated(Result):
    """Result of memory_update."""

    id: int
    source: str
    redacted: dict[str, int] | None = None


class Deleted(Result):
    """Result of memory_delete."""

    deleted_id: int
    deleted_text: str


class DeletedBySource(Result):
    """Result of memory_delete_by_source."""

    deleted_count: int


class Listed(Result):
    """Result of memory_list: beginnings of memories, and where the next page starts."""

    memories: list[Memory]
    total: int
    left_out: int | None = None
    next_cursor: str | None = None


class StoreStats(Result):
    """Result of memory_stats."""

    total_memories: int
    model: str
    dimension: int
    index_size_bytes: int
    backup_count: int
    created_at: str | None = None
    last_updated: str | None = None


class Novelty(Result):
    """Result of memory_is_novel; nothing is similar to a memory in an empty store."""

    is_novel: bool
    says_the_same: bool | None = None
    most_similar: Match | None = None
