"""Finding and reading memories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from engine.namespaces import EVERY, is_covered
from engine.operations.operation import Directory, DirectoryOperation, Lane, MemoryOperation
from engine.records import (
    FloatMatrix,
    FloatVector,
    IndexStats,
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
    from engine.namespace import Namespace
    from engine.several_namespaces import SeveralNamespaces

_ANSWER_CHARS = 1 << 20
"""Of all texts found, when one more search is not answered with the others."""


class _Searched(Protocol):
    def search(
        self, embeddings: FloatMatrix, queries: Sequence[SearchQuery]
    ) -> list[SearchHits]: ...


def _search_some(
    memories: _Searched, embeddings: FloatMatrix, queries: Sequence[SearchQuery]
) -> list[SearchHits]:
    found: list[SearchHits] = []
    n_chars = 0
    while len(found) < len(queries) and n_chars < _ANSWER_CHARS:
        at = slice(len(found), len(found) + 1)
        found += memories.search(embeddings[at], queries[at])
        n_chars += sum(len(hit.memory.text) for hit in found[-1])
    return found


@dataclass(frozen=True, slots=True)
class Search(MemoryOperation[list[SearchHits]]):
    """Answer the first of several searches, best hits first.

    At least one, and as many as make an answer of a few megabytes.
    """

    embeddings: FloatMatrix
    """A row for each query."""
    queries: Sequence[SearchQuery]

    def run(self, index: Namespace) -> list[SearchHits]:
        return _search_some(index, self.embeddings, self.queries)


@dataclass(frozen=True, slots=True)
class Timeline(MemoryOperation[list[TimelineEntry]]):
    """The k best memories for a query, or the k newest, in order of time."""

    query: SearchQuery
    embedding: FloatVector | None
    """Of the query; None: whatever passes its filter is meant."""

    def run(self, index: Namespace) -> list[TimelineEntry]:
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

    def run(self, index: Namespace) -> Neighbour | None:
        return index.nearest(self.embedding, self.text)


@dataclass(frozen=True, slots=True)
class GetMemory(MemoryOperation[Memory]):
    """One memory. Raises `MemoryNotFoundError`."""

    memory_id: MemoryId

    def run(self, index: Namespace) -> Memory:
        return index.get(self.memory_id)


@dataclass(frozen=True, slots=True)
class ListMemories(MemoryOperation[MemoryPage]):
    """A page in order of time; `cursor` (of the page before) wins over `offset`."""

    where: MemoryFilter
    offset: int
    limit: int
    newest_first: bool = False
    cursor: str | None = None

    def run(self, index: Namespace) -> MemoryPage:
        return index.list_memories(
            self.where,
            offset=self.offset,
            limit=self.limit,
            newest_first=self.newest_first,
            cursor=self.cursor,
        )


@dataclass(frozen=True, slots=True)
class NamespaceStats(MemoryOperation[IndexStats]):
    """The state of one namespace's index; sizes on disk, backups and queue are the directory's."""

    def run(self, index: Namespace) -> IndexStats:
        return index.stats()


@dataclass(frozen=True, slots=True)
class KnownEmbeddings(MemoryOperation[dict[int, FloatMatrix]]):
    """The embeddings of texts that are stored already, by position; some may be missing."""

    lane = Lane.SLOW

    texts: Sequence[str]

    def run(self, index: Namespace) -> dict[int, FloatMatrix]:
        return index.known_embeddings(self.texts)


@dataclass(frozen=True, slots=True)
class Among:
    """Several namespaces: those that a caller asks for and may use."""

    asked: tuple[str, ...]
    """Names and globs."""
    allowed: tuple[str, ...]
    """Globs; what a glob asks for beyond them is passed over."""

    def of(self, index: MemoryIndex) -> SeveralNamespaces:
        """Their memories. Raises `InvalidInputError`: they are too many, or one is no name."""
        names = [glob for glob in self.asked if not glob.endswith(EVERY)]
        if len(names) < len(self.asked):
            names += [name for name in index.names() if is_covered(name, self.asked)]
        return index.several([name for name in names if is_covered(name, self.allowed)])


@dataclass(frozen=True, slots=True)
class SearchAmong(DirectoryOperation[list[SearchHits]]):
    """As `Search`, in several namespaces at once."""

    embeddings: FloatMatrix
    queries: Sequence[SearchQuery]
    among: Among

    def run(self, directory: Directory) -> list[SearchHits]:
        return _search_some(self.among.of(directory.index), self.embeddings, self.queries)


@dataclass(frozen=True, slots=True)
class ListAmong(DirectoryOperation[MemoryPage]):
    """As `ListMemories`, in several namespaces at once."""

    where: MemoryFilter
    among: Among
    offset: int
    limit: int
    newest_first: bool = False
    cursor: str | None = None

    def run(self, directory: Directory) -> MemoryPage:
        return self.among.of(directory.index).list_memories(
            self.where,
            offset=self.offset,
            limit=self.limit,
            newest_first=self.newest_first,
            cursor=self.cursor,
        )
