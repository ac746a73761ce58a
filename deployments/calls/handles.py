"""Typed clients of the other deployments over Serve handles.

The only module that calls `.remote()`; see `deployments.calls.protocols` for what each call does.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from ray.serve.handle import DeploymentHandle, DeploymentResponse

from deployments.calls.parcels import ParcelHandle
from deployments.calls.part_reports import PartReport
from deployments.calls.planned_builds import PlannedBuild
from deployments.calls.replica_calls import ReplicaCalls, first_answer
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
    EmbeddedQuery,
    Embeddings,
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

T = TypeVar("T")
ALL_WINDOWS = sys.maxsize
_SEE_BACKUPS = "GET /backups tells"
_LEAST_CHARS_PER_S = 250_000
"""Of texts that the index takes in, a tenth of what it does on an idle machine."""


class ServeEmbedderClient:
    """`EmbedderClient` over a Serve handle."""

    def __init__(
        self, handle: DeploymentHandle, *, timeout_s: float, long_timeout_s: float
    ) -> None:
        self._handle = handle
        self._calls = ReplicaCalls(timeout_s=timeout_s)
        self._timeout_s = timeout_s
        self._long_timeout_s = long_timeout_s

    async def embed_query(self, text: str) -> EmbeddedQuery:
        """Embed one query."""
        return await first_answer(
            lambda: self._asked(lambda: self._handle.embed_query.remote(text), self._timeout_s),
            pause_s=self._timeout_s / 10,
        )

    async def embed_queries(self, texts: Sequence[str]) -> list[EmbeddedQuery]:
        """Embed queries in bulk, in order."""
        return await self._calls.answer(lambda: self._handle.embed_queries.remote(texts))

    async def embed_one(self, text: str) -> Embeddings:
        """Embed one text ahead of bulk work."""
        return await first_answer(
            lambda: self._asked(lambda: self._handle.embed_one.remote(text), self._timeout_s),
            pause_s=self._timeout_s / 10,
        )

    async def embed(self, texts: Sequence[str], max_windows: int = 1) -> Embeddings:
        """Embed texts in bulk, in order."""
        return await self._calls.answer(lambda: self._handle.embed.remote(texts, max_windows))

    async def embed_long(self, texts: Sequence[str], max_windows: int = 1) -> Embeddings:
        """Embed texts in bulk, in order, however long that takes a busy pool."""
        return await first_answer(
            lambda: self._asked(
                lambda: self._handle.embed.remote(texts, max_windows), self._long_timeout_s
            ),
            pause_s=self._timeout_s,
        )

    async def _asked(self, send: Callable[[], DeploymentResponse[T]], timeout_s: float) -> T:
        """The answer of whichever replica; cancelled, the replica embeds no longer for nobody."""
        responses: list[DeploymentResponse[T]] = []

        def sent() -> DeploymentResponse[T]:
            responses.append(send())
            return responses[-1]

        try:
            return await self._calls.answer(sent, timeout_s=timeout_s)
        except asyncio.CancelledError:
            for response in responses[-1:]:
                response.cancel()
            raise

    async def reports(self) -> list[PartReport]:
        """What each replica of the pool says of itself; one that is dying says nothing."""
        answers = await self._calls.answer(
            lambda: self._handle.broadcast("report").results_async(return_exceptions=True)
        )
        return [answer for answer in answers if isinstance(answer, PartReport)]


def blocking_embed(
    handle: DeploymentHandle, *, timeout_s: float
) -> Callable[[Sequence[str]], Embeddings]:
    """What embeds all windows of texts for a thread beside the event loop that runs now.

    It raises what the pool raises, and `OverloadedError` when that does not answer in time.
    """
    loop = asyncio.get_running_loop()
    client = ServeEmbedderClient(handle, timeout_s=timeout_s, long_timeout_s=timeout_s)

    def embed(texts: Sequence[str]) -> Embeddings:
        answer = asyncio.run_coroutine_threadsafe(client.embed_long(texts, ALL_WINDOWS), loop)
        return answer.result()

    return embed


class ServeIndexClient:
    """`IndexClient` over a Serve handle."""

    def __init__(
        self, handle: DeploymentHandle, *, timeout_s: float, long_timeout_s: float
    ) -> None:
        self._handle = ParcelHandle(handle)
        self._calls = ReplicaCalls(timeout_s=timeout_s)
        self._timeout_s = timeout_s
        self._long_timeout_s = long_timeout_s

    async def count(self) -> int:
        """Memories stored. In memory; answers in the middle of anything."""
        return await self._calls.answer(lambda: self._handle.count.remote())

    async def report(self) -> PartReport:
        """Memory and processor time of its process."""
        return await self._calls.answer(lambda: self._handle.report.remote())

    async def problem(self) -> str | None:
        """What keeps memories from being stored and backed up, if something does."""
        return await self._calls.answer(lambda: self._handle.problem.remote())

    async def stats(self) -> IndexStats:
        """The state of the index, for operators."""
        return await self._calls.answer(lambda: self._handle.stats.remote())

    async def search(
        self, embeddings: FloatMatrix, queries: Sequence[SearchQuery]
    ) -> list[list[SearchHit]]:
        """Answer the first of several searches, each with its row of `embeddings`."""
        return await self._calls.answer(lambda: self._handle.search.remote(embeddings, queries))

    async def nearest(self, embedding: FloatVector, text: str) -> Neighbour | None:
        """The memory with the highest cosine, and whether one says the same as the text."""
        return await self._calls.answer(lambda: self._handle.nearest.remote(embedding, text))

    async def add(
        self, memories: Sequence[NewMemory], embeddings: FloatMatrix, *, request_id: str
    ) -> list[AddOutcome]:
        """Add all or none. Durable and visible to searches when this returns."""
        return await self._calls.write(
            lambda deadline_s: self._handle.add.remote(
                memories, embeddings, request_id=request_id, deadline_s=deadline_s
            ),
            timeout_s=self._time_for(memories),
        )

    def _time_for(self, memories: Sequence[NewMemory]) -> float:
        """Seconds for a write of these, alone or behind others like it."""
        return self._timeout_s + sum(len(m.text) for m in memories) / _LEAST_CHARS_PER_S

    async def known_embeddings(self, texts: Sequence[str]) -> dict[int, FloatMatrix]:
        """The embeddings of texts that are stored already, by position."""
        return await self._calls.answer(lambda: self._handle.known_embeddings.remote(texts))

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
        return await self._calls.write(
            lambda deadline_s: self._handle.ingest.remote(
                memories,
                embeddings,
                request_id=request_id,
                after=after,
                attempt=attempt,
                deadline_s=deadline_s,
            ),
            timeout_s=self._time_for(memories),
        )

    async def begin_export(self, where: MemoryFilter, *, with_embeddings: bool) -> ExportFacts:
        """Open an export as of now."""
        return await self._calls.answer(
            lambda: self._handle.begin_export.remote(where, with_embeddings=with_embeddings)
        )

    async def read_export(self, export_id: str, max_bytes: int) -> bytes:
        """The next memories of an export as NDJSON, about so many; empty at its end."""
        return await self._calls.once(lambda: self._handle.read_export.remote(export_id, max_bytes))

    async def end_export(self, export_id: str) -> None:
        """Close an export before its end."""
        await self._calls.once(lambda: self._handle.end_export.remote(export_id))

    async def upsert(
        self, memory: NewMemory, embedding: FloatVector, *, request_id: str
    ) -> UpsertOutcome:
        """Replace the memory with this (source, key), or add it."""
        return await self._calls.write(
            lambda deadline_s: self._handle.upsert.remote(
                memory, embedding, request_id=request_id, deadline_s=deadline_s
            )
        )

    async def get(self, memory_id: MemoryId) -> Memory:
        """One memory. Raises `MemoryNotFoundError`."""
        return await self._calls.answer(lambda: self._handle.get.remote(memory_id))

    async def update(
        self,
        memory_id: MemoryId,
        patch: MemoryPatch,
        vectors: FloatMatrix | None,
        *,
        request_id: str,
    ) -> Memory:
        """Change a memory; `vectors`, shape (windows, dim), go with a new text."""
        return await self._calls.write(
            lambda deadline_s: self._handle.update.remote(
                memory_id, patch, vectors, request_id=request_id, deadline_s=deadline_s
            )
        )

    async def delete(self, ids: Sequence[MemoryId], *, request_id: str) -> DeleteOutcome:
        """Delete those that exist; never raises `MemoryNotFoundError`."""
        return await self._calls.write(
            lambda deadline_s: self._handle.delete.remote(
                ids, request_id=request_id, deadline_s=deadline_s
            )
        )

    async def delete_by_source(self, pattern: str, *, request_id: str) -> int:
        """Delete every memory whose source contains `pattern`."""
        return await self._calls.write(
            lambda deadline_s: self._handle.delete_by_source.remote(
                pattern, request_id=request_id, deadline_s=deadline_s
            )
        )

    async def list_memories(
        self,
        where: MemoryFilter,
        *,
        offset: int,
        limit: int,
        newest_first: bool = False,
        cursor: str | None = None,
    ) -> MemoryPage:
        """A page in order of time; `cursor` (of the page before) wins over `offset`."""
        return await self._calls.answer(
            lambda: self._handle.list_memories.remote(
                where, offset=offset, limit=limit, newest_first=newest_first, cursor=cursor
            )
        )

    async def deduplicate(
        self, threshold: float, *, by: DuplicateRule, dry_run: bool, request_id: str
    ) -> DedupeReport:
        """Find groups of duplicates; unless `dry_run`, keep only the earliest of each."""
        return await self._calls.write(
            lambda _: self._handle.deduplicate.remote(
                threshold, by=by, dry_run=dry_run, request_id=request_id
            ),
            timeout_s=self._long_timeout_s,
        )

    async def plan_build(self, sources: Sequence[str] | None, *, replace_all: bool) -> PlannedBuild:
        """Read and chunk workspace files. Raises `PathNotAllowedError`, `InvalidInputError`."""
        return await self._calls.answer(
            lambda: self._handle.plan_build.remote(sources, replace_all=replace_all),
            timeout_s=self._long_timeout_s,
        )

    async def texts_of_build(self, build_id: str, start: int) -> list[str]:
        """A page of the texts that a planned build needs embedded, from number `start` on."""
        return await self._calls.answer(lambda: self._handle.texts_of_build.remote(build_id, start))

    async def put_embeddings(self, build_id: str, start: int, embeddings: FloatMatrix) -> None:
        """Hand on the embeddings of the page that began at `start`."""
        await self._calls.answer(
            lambda: self._handle.put_embeddings.remote(build_id, start, embeddings)
        )

    async def drop_build(self, build_id: str) -> None:
        """Forget a planned build that will not be applied. Idempotent."""
        await self._calls.answer(lambda: self._handle.drop_build.remote(build_id))

    async def apply_build(self, build_id: str, *, request_id: str) -> BuildReport:
        """Apply a planned build whose texts are all embedded. Raises `LeaseLostError`."""
        return await self._calls.write(
            lambda _: self._handle.apply_build.remote(build_id, request_id=request_id),
            timeout_s=self._long_timeout_s,
        )

    async def backups(self) -> list[BackupSummary]:
        """Every restorable backup, newest first."""
        return await self._calls.answer(lambda: self._handle.backups.remote())

    async def backup(self, prefix: str) -> BackupSummary:
        """Make a backup named `<prefix>_<UTC time>`. Durable when this returns."""
        return await self._calls.write(
            lambda _: self._handle.backup.remote(prefix),
            timeout_s=self._long_timeout_s,
            if_unknown=_SEE_BACKUPS,
        )

    async def verify_backup(self, name: str) -> BackupCheck:
        """Check that a backup can be restored. Raises `BackupNotFoundError`."""
        return await self._calls.answer(
            lambda: self._handle.verify_backup.remote(name), timeout_s=self._long_timeout_s
        )

    async def restore(self, name: str, *, request_id: str) -> int:
        """Restore a backup; returns how many memories there are now."""
        return await self._calls.write(
            lambda _: self._handle.restore.remote(name, request_id=request_id),
            timeout_s=self._long_timeout_s,
        )

    async def sync_status(self) -> SyncStatus:
        """How the copy in the cloud stands."""
        return await self._calls.answer(lambda: self._handle.sync_status.remote())

    async def sync_snapshots(self) -> list[RemoteSnapshot]:
        """The snapshots in the cloud, newest first."""
        return await self._calls.answer(
            lambda: self._handle.sync_snapshots.remote(), timeout_s=self._long_timeout_s
        )

    async def sync_upload(self, prefix: str, *, overwrite: bool) -> str:
        """Back up and upload."""
        return await self._calls.write(
            lambda _: self._handle.sync_upload.remote(prefix, overwrite=overwrite),
            timeout_s=self._long_timeout_s,
            if_unknown="GET /sync/snapshots tells",
        )

    async def sync_download(self, name: str | None) -> Download:
        """Make a snapshot a local backup."""
        return await self._calls.answer(
            lambda: self._handle.sync_download.remote(name), timeout_s=self._long_timeout_s
        )

    async def sync_restore(self, name: str, *, request_id: str) -> tuple[Download, int]:
        """Download a snapshot and restore it."""
        return await self._calls.write(
            lambda _: self._handle.sync_restore.remote(name, request_id=request_id),
            timeout_s=self._long_timeout_s,
        )
