"""Finding and reading memories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.operations.operation import Lane, MemoryOperation
from engine.records import (
    FloatMatrix,
    FloatVector,
    Memory,
    MemoryFilter,
    MemoryId,
    MemoryPage,
    Neighbour,
    SearchHit,
    SearchHits,
    SearchQuery,
    TimelineEntry,
)
from engine.search.by_time import moment_of

if TYPE_CHECKING:
    from engine.memory_index import MemoryIndex

_ANSWER_CHARS = 1 << 20
"""Of all texts found, when one more search is not answered with the others."""


@dataclass(frozen=True, slots=True)
class Search(MemoryOperation[list[SearchHits]]):
    """Answer the first of several searches, best hits first.

    At least one, and as many as make an answer of a few megabytes.
    """

    embeddings: FloatMatrix
    """A row for each query."""
    queries: Sequence[SearchQuery]

    def run(self, index: MemoryIndex) -> list[SearchHits]:
        found: list[SearchHits] = []
        n_chars = 0
        while len(found) < len(self.queries) and n_chars < _ANSWER_CHARS:
            at = slice(len(found), len(found) + 1)
            found += index.search(self.embeddings[at], self.queries[at])
            n_chars += sum(len(hit.memory.text) for hit in found[-1])
        return found


@dataclass(frozen=True, slots=True)
class Timeline(MemoryOperation[list[TimelineEntry]]):
    """The k best memories for a query, or the k newest, in order of time."""

    query: SearchQuery
    embedding: FloatVector | None
    """Of the query; None: whatever passes its filter is meant."""

    def run(self, index: MemoryIndex) -> list[TimelineEntry]:
        hits: list[SearchHit | None]
        if self.embedding is None:
            where = self.query.where
            page = index.list_memories(where, offset=0, limit=self.query.k, newest_first=True)
            hits, memories = [None] * len(page.memories), page.memories
        else:
            [found] = index.search(self.embedding[None], [self.query])
            hits, memories = [*found], [hit.memory for hit in found]
        beside = index.beside([memory.id for memory in memories])
        entries = [
            TimelineEntry(memory=memory, hit=hit, before=before, after=after)
            for memory, hit, (before, after) in zip(memories, hits, beside, strict=True)
        ]
        newest_first = self.query.order == "newest"
        return sorted(entries, key=lambda each: moment_of(each.memory), reverse=newest_first)


@dataclass(frozen=True, slots=True)
class Nearest(MemoryOperation[Neighbour | None]):
    """The memory with the highest cosine, and whether one says the same as the text."""

    embedding: FloatVector
    text: str

    def run(self, index: MemoryIndex) -> Neighbour | None:
        return index.nearest(self.embedding, self.text)


@dataclass(frozen=True, slots=True)
class GetMemory(MemoryOperation[Memory]):
    """One memory. Raises `MemoryNotFoundError`."""

    memory_id: MemoryId

    def run(self, index: MemoryIndex) -> Memory:
        return index.get(self.memory_id)


@dataclass(frozen=True, slots=True)
class ListMemories(MemoryOperation[MemoryPage]):
    """A page in order of time; `cursor` (of the page before) wins over `offset`."""

    where: MemoryFilter
    offset: int
    limit: int
    newest_first: bool = False
    cursor: str | None = None

    def run(self, index: MemoryIndex) -> MemoryPage:
        return index.list_memories(
            self.where,
            offset=self.offset,
            limit=self.limit,
            newest_first=self.newest_first,
            cursor=self.cursor,
        )


@dataclass(frozen=True, slots=True)
class KnownEmbeddings(MemoryOperation[dict[int, FloatMatrix]]):
    """The embeddings of texts that are stored already, by position; some may be missing."""

    lane = Lane.SLOW

    texts: Sequence[str]

    def run(self, index: MemoryIndex) -> dict[int, FloatMatrix]:
        return index.known_embeddings(self.texts)
