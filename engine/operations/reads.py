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
    SearchQuery,
)

if TYPE_CHECKING:
    from engine.memory_index import MemoryIndex

_ANSWER_CHARS = 1 << 20
"""Of all texts found, when one more search is not answered with the others."""


@dataclass(frozen=True, slots=True)
class Search(MemoryOperation[list[list[SearchHit]]]):
    """Answer the first of several searches, best hits first.

    At least one, and as many as make an answer of a few megabytes.
    """

    embeddings: FloatMatrix
    """A row for each query."""
    queries: Sequence[SearchQuery]

    def run(self, index: MemoryIndex) -> list[list[SearchHit]]:
        found: list[list[SearchHit]] = []
        n_chars = 0
        while len(found) < len(self.queries) and n_chars < _ANSWER_CHARS:
            at = slice(len(found), len(found) + 1)
            found += index.search(self.embeddings[at], self.queries[at])
            n_chars += sum(len(hit.memory.text) for hit in found[-1])
        return found


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
