"""The structured content of the tools' results, as models; their schemas are the output schemas."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Result(BaseModel):
    """Base of every structured result. What the service says beyond it is left out."""

    model_config = ConfigDict(extra="ignore")


class Memory(Result):
    """One memory; `text` may be an excerpt that ends with how to read on."""

    id: int
    text: str
    source: str
    timestamp: str
    metadata: dict[str, Any] = {}
    updated_at: str | None = None
    key: str | None = None


class Match(Memory):
    """A memory found, with the cosine similarity to what was asked."""

    similarity: float
    rrf_score: float | None = None
    bm25_score: float | None = None


class Searched(Result):
    """Result of memory_search."""

    query: str
    count: int
    results: list[Match]
    left_out: int = 0


class Added(Result):
    """Result of memory_add; `id` is null for a duplicate."""

    id: int | None
    message: str
    duplicate_of: int | None = None
    similarity: float | None = None


class BatchOutcome(Result):
    """What became of one memory of a batch; `id` is null for a duplicate."""

    id: int | None
    duplicate_of: int | None = None


class AddedBatch(Result):
    """Result of memory_add_batch, one outcome per input, in order."""

    count: int
    ids: list[int]
    results: list[BatchOutcome]


class Deleted(Result):
    """Result of memory_delete."""

    deleted_id: int
    deleted_text: str


class DeletedBySource(Result):
    """Result of memory_delete_by_source."""

    deleted_count: int


class Listed(Result):
    """Result of memory_list."""

    memories: list[Memory]
    total: int
    offset: int
    limit: int
    left_out: int = 0


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
    """Result of memory_is_novel; `most_similar` is null on an empty store."""

    is_novel: bool
    threshold: float
    most_similar: Match | None = None
