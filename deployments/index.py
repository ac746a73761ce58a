"""The index actor: the engine's single writer behind an event loop that never blocks."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from deployments import rendering
from deployments.logs import configure_logging
from deployments.settings import Settings
from engine.errors import OverloadedError
from engine.exports import ExportFacts
from engine.imports import ImportAttempt, ImportOutcome
from engine.memory_index import IndexOptions, MemoryIndex
from engine.records import (
    AddOutcome,
    BackupCheck,
    BackupSummary,
    BuildPlan,
    BuildReport,
    DedupeReport,
    DeleteOutcome,
    FloatMatrix,
    FloatVector,
    IndexStats,
    Memory,
    MemoryFilter,
    MemoryId,
    MemoryPage,
    MemoryPatch,
    Neighbour,
    NewMemory,
    SearchHit,
    SearchQuery,
    UpsertOutcome,
)
from engine.tokeniser import Tokeniser

T = TypeVar("T")

_READER_THREADS = 2
_SLOW_THREADS = 2
_MAX_WAITING_READS = 512
_SWITCH_INTERVAL_S = 0.001
"""How long the writer thread may keep the interpreter while a search waits for it."""


class IndexReplica:
    """Implements `deployments.clients.IndexClient` for callers in other processes.

    Reads run in a few threads, long work (builds, deduplication, backups) in others, writes in
    the engine's own; `count` answers from the event loop, in the middle of anything.
    """

    def __init__(self, settings: Settings, options: IndexOptions, model_dir: Path) -> None:
        """Open the data directory; the replica is ready when this returns.

        Raises:
            StorageError, EmbeddingError: see `MemoryIndex`.
        """
        configure_logging(settings, component="index")
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        os.umask(0o077)  # memories are their owner's alone
        self._index = MemoryIndex(options, count_pieces=Tokeniser(model_dir).count_pieces)
        self._readers = ThreadPoolExecutor(_READER_THREADS, "reader")
        self._slow = ThreadPoolExecutor(_SLOW_THREADS, "slow")
        self._n_reads = 0

    def __del__(self) -> None:
        """Close the store; Serve calls this when it stops the replica."""
        index = getattr(self, "_index", None)
        if index is not None:
            index.close()

    def check_health(self) -> None:
        """Raise when only a restart can make the answers right; Serve then starts a new one."""
        self._index.check()

    async def _read(self, function: Callable[[], T]) -> T:
        if self._n_reads >= _MAX_WAITING_READS:
            raise OverloadedError("too many reads are waiting; try again shortly")
        self._n_reads += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, function)
        finally:
            self._n_reads -= 1

    async def _run_slow(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._slow, function)

    async def count(self) -> int:
        """Memories stored."""
        return self._index.count()

    async def stats(self) -> IndexStats:
        """The state of the index."""
        return await self._read(self._index.stats)

    async def search(
        self, embeddings: FloatMatrix, queries: Sequence[SearchQuery]
    ) -> list[list[SearchHit]]:
        """Answer several searches."""
        return await self._read(functools.partial(self._index.search, embeddings, queries))

    async def nearest(self, embedding: FloatVector) -> Neighbour | None:
        """The memory with the highest cosine."""
        return await self._read(functools.partial(self._index.nearest, embedding))

    async def get(self, memory_id: MemoryId) -> Memory:
        """One memory."""
        return await self._read(functools.partial(self._index.get, memory_id))

    async def list_memories(
        self,
        where: MemoryFilter,
        *,
        offset: int,
        limit: int,
        newest_first: bool = False,
        cursor: str | None = None,
    ) -> MemoryPage:
        """A page in order of id."""
        return await self._read(
            functools.partial(
                self._index.list_memories,
                where,
                offset=offset,
                limit=limit,
                newest_first=newest_first,
                cursor=cursor,
            )
        )

    async def add(
        self, memories: Sequence[NewMemory], embeddings: FloatMatrix, *, request_id: str
    ) -> list[AddOutcome]:
        """Add all or none."""
        return await asyncio.wrap_future(
            self._index.add(memories, embeddings, request_id=request_id)
        )

    async def known_embeddings(self, texts: Sequence[str]) -> dict[int, FloatVector]:
        """The embeddings of texts that are stored already, by position."""
        return await self._run_slow(functools.partial(self._index.known_embeddings, texts))

    async def ingest(
        self,
        memories: Sequence[NewMemory],
        embeddings: FloatMatrix,
        *,
        request_id: str,
        after: str | None,
        attempt: ImportAttempt | None,
    ) -> list[ImportOutcome]:
        """Apply lines of an import in order."""
        return await asyncio.wrap_future(
            self._index.ingest(
                memories, embeddings, request_id=request_id, after=after, attempt=attempt
            )
        )

    async def begin_export(self, where: MemoryFilter, *, with_embeddings: bool) -> ExportFacts:
        """Open an export as of now."""
        return await self._run_slow(
            functools.partial(self._index.begin_export, where, with_embeddings=with_embeddings)
        )

    async def read_export(self, export_id: str, n: int) -> bytes:
        """The next memories of an export as NDJSON."""

        def read() -> bytes:
            return b"".join(map(rendering.exported, self._index.read_export(export_id, n)))

        return await self._run_slow(read)

    async def end_export(self, export_id: str) -> None:
        """Close an export before its end."""
        await self._run_slow(functools.partial(self._index.end_export, export_id))

    async def upsert(
        self, memory: NewMemory, embedding: FloatVector, *, request_id: str
    ) -> UpsertOutcome:
        """Replace the memory with this (source, key), or add it."""
        return await asyncio.wrap_future(
            self._index.upsert(memory, embedding, request_id=request_id)
        )

    async def update(
        self,
        memory_id: MemoryId,
        patch: MemoryPatch,
        embedding: FloatVector | None,
        *,
        request_id: str,
    ) -> Memory:
        """Change a memory."""
        return await asyncio.wrap_future(
            self._index.update(memory_id, patch, embedding, request_id=request_id)
        )

    async def delete(self, ids: Sequence[MemoryId], *, request_id: str) -> DeleteOutcome:
        """Delete those that exist."""
        return await asyncio.wrap_future(self._index.delete(ids, request_id=request_id))

    async def delete_by_source(self, pattern: str, *, request_id: str) -> int:
        """Delete every memory whose source contains `pattern`."""
        return await asyncio.wrap_future(
            self._index.delete_by_source(pattern, request_id=request_id)
        )

    async def deduplicate(
        self, threshold: float, *, dry_run: bool, request_id: str
    ) -> DedupeReport:
        """Find groups of duplicates, and remove all but the earliest of each."""
        return await self._run_slow(
            functools.partial(
                self._index.deduplicate, threshold, dry_run=dry_run, request_id=request_id
            )
        )

    async def plan_build(self, sources: Sequence[str] | None, *, replace_all: bool) -> BuildPlan:
        """Read and chunk workspace files."""
        return await self._run_slow(
            functools.partial(self._index.plan_build, sources, replace_all=replace_all)
        )

    async def apply_build(
        self, plan: BuildPlan, embeddings: FloatMatrix, *, request_id: str
    ) -> BuildReport:
        """Apply a plan."""
        return await self._run_slow(
            functools.partial(self._index.apply_build, plan, embeddings, request_id=request_id)
        )

    async def backups(self) -> list[BackupSummary]:
        """Every restorable backup, newest first."""
        return await self._read(self._index.backups)

    async def backup(self, prefix: str) -> BackupSummary:
        """Make a backup."""
        return await self._run_slow(functools.partial(self._index.backup, prefix))

    async def verify_backup(self, name: str) -> BackupCheck:
        """Check that a backup can be restored."""
        return await self._run_slow(functools.partial(self._index.verify_backup, name))

    async def restore(self, name: str) -> int:
        """Restore a backup."""
        return await asyncio.wrap_future(self._index.restore(name))
