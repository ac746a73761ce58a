"""The index actor: the engine's single writer behind an event loop that never blocks."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ray.serve.handle import DeploymentHandle

from deployments import rendering
from deployments.calls.handles import blocking_embed
from deployments.calls.parcels import ParcelReplica
from deployments.calls.part_reports import PartReport, own_report
from deployments.calls.planned_builds import PlannedBuild, PlannedBuilds
from deployments.index.open_index import OpenIndex
from deployments.index.thread_lane import ThreadLane
from deployments.logs import configure_logging
from deployments.settings import Settings
from engine.errors import LeaseLostError, OverloadedError, StorageError
from engine.index_options import IndexOptions
from engine.memory_index import MemoryIndex
from engine.model.tokeniser import Tokeniser
from engine.offsite.cloud_sync import SyncStatus
from engine.offsite.download import Download
from engine.offsite.snapshots import RemoteSnapshot
from engine.records import (
    AddOutcome,
    BackupCheck,
    BackupSummary,
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
from engine.store.exports import ExportFacts
from engine.writing.deduplication import DuplicateRule
from engine.writing.lines import ImportAttempt, ImportOutcome
from engine.writing.upkeep import VectorTools

T = TypeVar("T")

_log = logging.getLogger(__name__)

_READER_THREADS = 2
_SLOW_THREADS = 2
_CLOUD_THREADS = 2
_STATUS_PATIENCE_S = 2.0
_MAX_WAITING_READS = 512
_ANSWER_CHARS = 1 << 20
"""Of all texts found, when one more search is not answered with the others."""
_READ_PATIENCE_S = 60.0
_SLOW_PATIENCE_S = 1800.0
"""Builds take minutes; when all threads are away for half an hour, no backup is made either."""
_SWITCH_INTERVAL_S = 0.001
"""How long the writer thread may keep the interpreter while a search waits for it."""


class IndexReplica(ParcelReplica):
    """Implements `deployments.calls.protocols.IndexClient` for callers in other processes.

    Reads run in a few threads, long work (builds, deduplication, backups) in others, writes in
    the engine's own; `count` answers from the event loop, in the middle of anything.
    """

    def __init__(
        self,
        settings: Settings,
        options: IndexOptions,
        model_dir: Path,
        embedder: DeploymentHandle | None = None,
    ) -> None:
        """Open the data directory; the replica is ready when this returns.

        Args:
            settings: bounds, logs, the cloud.
            options: where the data is.
            model_dir: whose tokeniser measures texts.
            embedder: makes the vectors that writes left to be made; None leaves them.

        Raises:
            StorageError, EmbeddingError: see `MemoryIndex`.
        """
        super().__init__()
        configure_logging(settings, component="index")
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        os.umask(0o077)  # memories are their owner's alone
        tokeniser = Tokeniser(model_dir)
        tools = None
        if embedder is not None:
            embed = blocking_embed(embedder, timeout_s=settings.build_timeout_s)
            tools = VectorTools(read=tokeniser.facts, embed=embed)
        self._opened = OpenIndex(settings, options, tokeniser.count_pieces, tools)
        self._builds = PlannedBuilds()
        self._readers = ThreadLane("reader", _READER_THREADS, patience_s=_READ_PATIENCE_S)
        self._slow = ThreadLane("slow", _SLOW_THREADS, patience_s=_SLOW_PATIENCE_S)
        self._cloud = ThreadPoolExecutor(_CLOUD_THREADS, "cloud")
        self._listing: asyncio.Future[list[RemoteSnapshot]] | None = None
        self._n_reads = 0
        self._look: asyncio.Future[str | None] | None = None
        self._told: str | None = None

    def __del__(self) -> None:
        """Close the store; Serve calls this when it stops the replica."""
        opened = getattr(self, "_opened", None)
        if opened is not None:
            opened.close()

    @property
    def _index(self) -> MemoryIndex:
        """Raises `NotReadyError` while a new machine waits for its memories."""
        return self._opened.index

    def check_health(self) -> None:
        """Raise when only a restart can make the answers right; Serve then starts a new one."""
        self._opened.check()

    def stuck_threads(self) -> str | None:
        """What to tell an operator of threads that do not come back."""
        return self._readers.problem() or self._slow.problem()

    async def _read(self, function: Callable[[], T]) -> T:
        if self._n_reads >= _MAX_WAITING_READS:
            raise OverloadedError("too many reads are waiting; try again shortly")
        self._n_reads += 1
        try:
            return await self._readers.run(self._telling_of_moved_files(function))
        finally:
            self._n_reads -= 1

    async def _run_slow(self, function: Callable[[], T]) -> T:
        return await self._slow.run(self._telling_of_moved_files(function))

    def _telling_of_moved_files(self, function: Callable[[], T]) -> Callable[[], T]:
        """The same, which says so when it fails because the database was taken from under it."""

        def run() -> T:
            try:
                return function()
            except StorageError:
                self._index.check_in_place()
                raise

        return run

    async def count(self) -> int:
        """Memories stored."""
        return self._index.count()

    async def report(self) -> PartReport:
        """Memory and processor time, for the metrics."""
        return own_report()

    async def problem(self) -> str | None:
        """What keeps memories from being stored and backed up, if something does."""
        # It writes to the disk, and whoever likes may ask: one look at a time serves all.
        if self._look is None or self._look.done():
            self._look = asyncio.ensure_future(asyncio.to_thread(self._look_for_problem))
        return self.stuck_threads() or await asyncio.shield(self._look)

    def _look_for_problem(self) -> str | None:
        problem = self._index.problem()
        if problem is not None and problem != self._told:
            _log.warning("memories cannot be stored: %s", problem)
        self._told = problem
        return problem

    async def stats(self) -> IndexStats:
        """The state of the index."""
        return await self._read(self._index.stats)

    async def search(
        self, embeddings: FloatMatrix, queries: Sequence[SearchQuery]
    ) -> list[list[SearchHit]]:
        """Answer the first of several searches, as many as one message should hold."""
        index = self._index

        def search() -> list[list[SearchHit]]:
            found: list[list[SearchHit]] = []
            n_chars = 0
            while len(found) < len(queries) and n_chars < _ANSWER_CHARS:
                at = slice(len(found), len(found) + 1)
                found += index.search(embeddings[at], queries[at])
                n_chars += sum(len(hit.memory.text) for hit in found[-1])
            return found

        return await self._read(search)

    async def nearest(self, embedding: FloatVector, text: str) -> Neighbour | None:
        """The memory with the highest cosine, and whether one says the same as the text."""
        return await self._read(functools.partial(self._index.nearest, embedding, text))

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
        self,
        memories: Sequence[NewMemory],
        embeddings: FloatMatrix,
        *,
        request_id: str,
        deadline_s: float | None = None,
    ) -> list[AddOutcome]:
        """Add all or none."""
        return await asyncio.wrap_future(
            self._index.add(memories, embeddings, request_id=request_id, deadline_s=deadline_s)
        )

    async def known_embeddings(self, texts: Sequence[str]) -> dict[int, FloatMatrix]:
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
        deadline_s: float | None = None,
    ) -> list[ImportOutcome]:
        """Apply lines of an import in order."""
        return await asyncio.wrap_future(
            self._index.ingest(
                memories,
                embeddings,
                request_id=request_id,
                after=after,
                attempt=attempt,
                deadline_s=deadline_s,
            )
        )

    async def begin_export(self, where: MemoryFilter, *, with_embeddings: bool) -> ExportFacts:
        """Open an export as of now."""
        return await self._run_slow(
            functools.partial(self._index.begin_export, where, with_embeddings=with_embeddings)
        )

    async def read_export(self, export_id: str, max_bytes: int) -> bytes:
        """The next memories of an export as NDJSON."""

        def read() -> bytes:
            return b"".join(map(rendering.exported, self._index.read_export(export_id, max_bytes)))

        return await self._run_slow(read)

    async def end_export(self, export_id: str) -> None:
        """Close an export before its end."""
        await self._run_slow(functools.partial(self._index.end_export, export_id))

    async def upsert(
        self,
        memory: NewMemory,
        embedding: FloatVector,
        *,
        request_id: str,
        deadline_s: float | None = None,
    ) -> UpsertOutcome:
        """Replace the memory with this (source, key), or add it."""
        return await asyncio.wrap_future(
            self._index.upsert(memory, embedding, request_id=request_id, deadline_s=deadline_s)
        )

    async def update(
        self,
        memory_id: MemoryId,
        patch: MemoryPatch,
        vectors: FloatMatrix | None,
        *,
        request_id: str,
        deadline_s: float | None = None,
    ) -> Memory:
        """Change a memory."""
        return await asyncio.wrap_future(
            self._index.update(
                memory_id, patch, vectors, request_id=request_id, deadline_s=deadline_s
            )
        )

    async def delete(
        self, ids: Sequence[MemoryId], *, request_id: str, deadline_s: float | None = None
    ) -> DeleteOutcome:
        """Delete those that exist."""
        return await asyncio.wrap_future(
            self._index.delete(ids, request_id=request_id, deadline_s=deadline_s)
        )

    async def delete_by_source(
        self, pattern: str, *, request_id: str, deadline_s: float | None = None
    ) -> int:
        """Delete every memory whose source contains `pattern`."""
        return await asyncio.wrap_future(
            self._index.delete_by_source(pattern, request_id=request_id, deadline_s=deadline_s)
        )

    async def deduplicate(
        self, threshold: float, *, by: DuplicateRule, dry_run: bool, request_id: str
    ) -> DedupeReport:
        """Find groups of duplicates, and remove all but the earliest of each."""
        return await self._run_slow(
            functools.partial(
                self._index.deduplicate, threshold, by=by, dry_run=dry_run, request_id=request_id
            )
        )

    async def plan_build(self, sources: Sequence[str] | None, *, replace_all: bool) -> PlannedBuild:
        """Read and chunk workspace files; the chunks stay here."""
        plan = await self._run_slow(
            functools.partial(self._index.plan_build, sources, replace_all=replace_all)
        )
        return self._builds.begin(plan)

    async def texts_of_build(self, build_id: str, start: int) -> list[str]:
        """A page of the texts that a planned build needs embedded."""
        return self._builds.texts(build_id, start)

    async def put_embeddings(self, build_id: str, start: int, embeddings: FloatMatrix) -> None:
        """Take the embeddings of such a page."""
        self._builds.put(build_id, start, embeddings)

    async def drop_build(self, build_id: str) -> None:
        """Forget a planned build that will not be applied."""
        self._builds.drop(build_id)

    async def apply_build(self, build_id: str, *, request_id: str) -> BuildReport:
        """Apply a planned build, or tell what it changed when it was applied before."""

        def apply() -> BuildReport:
            try:
                plan, embeddings = self._builds.take(build_id)
            except LeaseLostError:
                return self._index.built_before(request_id)
            return self._index.apply_build(plan, embeddings, request_id=request_id)

        return await self._run_slow(apply)

    async def backups(self) -> list[BackupSummary]:
        """Every restorable backup, newest first."""
        return await self._read(self._index.backups)

    async def backup(self, prefix: str) -> BackupSummary:
        """Make a backup."""
        return await self._run_slow(functools.partial(self._index.backup, prefix))

    async def verify_backup(self, name: str) -> BackupCheck:
        """Check that a backup can be restored."""
        return await self._run_slow(functools.partial(self._index.verify_backup, name))

    async def restore(self, name: str, *, request_id: str) -> int:
        """Restore a backup."""
        return await asyncio.wrap_future(self._index.restore(name, request_id=request_id))

    # Cloud sync, in threads of its own: a bucket that does not answer holds nothing else up

    async def _run_cloud(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._cloud, function)

    async def sync_status(self) -> SyncStatus:
        """How the copy in the cloud stands; asks the bucket, but not for long."""
        sync = self._opened.sync
        if self._listing is None or self._listing.done():
            self._listing = asyncio.ensure_future(self._run_cloud(sync.snapshots))
            self._listing.add_done_callback(_retrieve)
        await asyncio.wait([self._listing], timeout=_STATUS_PATIENCE_S)
        return await self._read(sync.status)

    async def sync_snapshots(self) -> list[RemoteSnapshot]:
        """The snapshots in the cloud, newest first."""
        return await self._run_cloud(self._opened.sync.snapshots)

    async def sync_upload(self, prefix: str, *, overwrite: bool) -> str:
        """Back up and upload."""
        sync = self._opened.sync
        backup = await self.backup(prefix)
        await asyncio.wrap_future(sync.upload(backup.name, overwrite=overwrite))
        return backup.name

    async def sync_download(self, name: str | None) -> Download:
        """Make a snapshot a local backup."""
        sync = self._opened.sync
        return await self._run_cloud(functools.partial(sync.download, name))

    async def sync_restore(self, name: str, *, request_id: str) -> tuple[Download, int]:
        """Download a snapshot and restore it."""
        index, sync = self._index, self._opened.sync

        def put_in_place(backup: str) -> int:
            return index.restore(backup, request_id=request_id).result()

        # In one piece: once restored it is noted, also when the caller has gone.
        return await self._run_cloud(functools.partial(sync.restore, name, put_in_place))


def _retrieve(listing: asyncio.Future[list[RemoteSnapshot]]) -> None:
    """A listing that failed after nobody waited any more is no news: uploads say why."""
    if not listing.cancelled():
        listing.exception()
