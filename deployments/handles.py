"""Typed clients of the other deployments over Serve handles.

The only module that calls `.remote()`; see `deployments.clients` for what each call does.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TypeVar

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from engine.errors import (
    DeadlinePassedError,
    EngineError,
    NotReadyError,
    OverloadedError,
    ShuttingDownError,
    UnknownOutcomeError,
)
from engine.exports import ExportFacts
from engine.imports import ImportAttempt, ImportOutcome
from engine.offsite.cloud_sync import SyncStatus
from engine.offsite.download import Download
from engine.offsite.snapshots import RemoteSnapshot
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

T = TypeVar("T")

_REPLICA_GONE = (RayActorError, ReplicaUnavailableError, DeploymentUnavailableError)
_RETRY_PAUSE_S = 0.1
_LONGEST_GRACE_S = 10.0
"""How much longer than its deadline a write is waited for: its commit may just be under way."""


class _Calls:
    """Calls of one deployment: its errors unwrapped, those that met a dying replica sent again.

    Sending again is safe for all of them: reads change nothing, and writes carry a request id.
    """

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    async def answer(self, send: Callable[[], Awaitable[T]], *, timeout_s: float = 0.0) -> T:
        """Await the answer to a read; `timeout_s` is for long work, restarts included.

        Raises:
            EngineError: what the replica raised.
            OverloadedError: its queue is full.
            NotReadyError: no replica answered in time.
        """
        patience_s = timeout_s or self._timeout_s
        try:
            return await _until_answered(lambda _: send(), patience_s=patience_s, grace_s=0.0)
        except asyncio.TimeoutError:
            raise NotReadyError(
                f"no answer within {patience_s:g} s; the service may be starting"
            ) from None

    async def write(self, send: Callable[[float], Awaitable[T]], *, timeout_s: float = 0.0) -> T:
        """Await the answer to a write; `send` is given its deadline, in seconds since the epoch.

        The index applies nothing past the deadline and says so itself, so it is waited for a
        little longer. Only when it still says nothing is the outcome unknown.

        Raises:
            EngineError: what the replica raised.
            OverloadedError, NotReadyError: nothing was applied.
            UnknownOutcomeError: no replica answered.
        """
        patience_s = timeout_s or self._timeout_s
        try:
            return await _until_answered(
                send, patience_s=patience_s, grace_s=min(patience_s, _LONGEST_GRACE_S)
            )
        except asyncio.TimeoutError:
            raise UnknownOutcomeError(
                f"no answer within {patience_s:g} s: the request may or may not have been applied; "
                "send it again with the same Idempotency-Key"
            ) from None


async def _until_answered(
    send: Callable[[float], Awaitable[T]], *, patience_s: float, grace_s: float
) -> T:
    """Send until a replica answers. Raises `asyncio.TimeoutError`."""
    deadline_s = time.monotonic() + patience_s
    # The index may be on another machine, which has another monotonic clock.
    send_until_s = time.time() + patience_s
    lost = False
    while True:
        try:
            return await _unwrapped(
                functools.partial(send, send_until_s), until_s=deadline_s + grace_s
            )
        except _REPLICA_GONE:
            lost = True
        except DeadlinePassedError:
            raise
        except ShuttingDownError:
            if not lost and time.monotonic() > deadline_s:
                raise
        except (NotReadyError, OverloadedError):
            # Says nothing of an earlier sending that died with its replica.
            if not lost:
                raise
        await asyncio.sleep(_RETRY_PAUSE_S)


async def _unwrapped(send: Callable[[], Awaitable[T]], *, until_s: float) -> T:
    """Send once; errors as the replica raised them."""
    try:
        return await asyncio.wait_for(_sent(send), max(until_s - time.monotonic(), 0.0))
    except RayTaskError as exc:
        if isinstance(exc.cause, EngineError):
            raise exc.cause from None
        raise
    except BackPressureError as exc:
        raise OverloadedError("the service is busy; try again shortly") from exc


async def _sent(send: Callable[[], Awaitable[T]]) -> T:
    return await send()


async def _first_answer(ask: Callable[[], Coroutine[None, None, T]], *, pause_s: float) -> T:
    """Ask; after a silence ask once more, likely another replica, and take the first answer.

    A replica that says nothing may be slow, or on a machine that has lost its power: nothing
    tells the two apart for half a minute.
    """
    asked = {asyncio.ensure_future(ask())}
    unanswered = set(asked)
    patience_s: float | None = pause_s
    try:
        while True:
            answered, unanswered = await asyncio.wait(
                unanswered, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED
            )
            for each in sorted(answered, key=lambda each: each.exception() is not None):
                if not unanswered or each.exception() is None:
                    return each.result()
            if not answered:
                patience_s = None
                asked.add(again := asyncio.ensure_future(ask()))
                unanswered.add(again)
    finally:
        for each in asked:
            each.cancel()


class ServeEmbedderClient:
    """`EmbedderClient` over a Serve handle."""

    def __init__(
        self, handle: DeploymentHandle, *, timeout_s: float, long_timeout_s: float
    ) -> None:
        self._handle = handle
        self._calls = _Calls(timeout_s=timeout_s)
        self._timeout_s = timeout_s
        self._long_timeout_s = long_timeout_s

    async def embed_query(self, text: str) -> FloatVector:
        """Embed one query."""
        return await _first_answer(
            lambda: self._asked(lambda: self._handle.embed_query.remote(text), self._timeout_s),
            pause_s=self._timeout_s / 10,
        )

    async def embed(self, texts: Sequence[str]) -> FloatMatrix:
        """Embed texts in bulk, in order."""
        return await self._calls.answer(lambda: self._handle.embed.remote(texts))

    async def embed_long(self, texts: Sequence[str]) -> FloatMatrix:
        """Embed texts in bulk, in order, however long that takes a busy pool."""
        return await _first_answer(
            lambda: self._asked(lambda: self._handle.embed.remote(texts), self._long_timeout_s),
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

    async def counters(self) -> Mapping[str, float]:
        """Counters of one replica of the pool."""
        return await self._calls.answer(lambda: self._handle.counters.remote())


class ServeIndexClient:
    """`IndexClient` over a Serve handle."""

    def __init__(
        self, handle: DeploymentHandle, *, timeout_s: float, long_timeout_s: float
    ) -> None:
        self._handle = handle
        self._calls = _Calls(timeout_s=timeout_s)
        self._long_timeout_s = long_timeout_s

    async def count(self) -> int:
        """Memories stored. In memory; answers in the middle of anything."""
        return await self._calls.answer(lambda: self._handle.count.remote())

    async def stats(self) -> IndexStats:
        """The state of the index, for operators."""
        return await self._calls.answer(lambda: self._handle.stats.remote())

    async def search(
        self, embeddings: FloatMatrix, queries: Sequence[SearchQuery]
    ) -> list[list[SearchHit]]:
        """Answer several searches, each with its row of `embeddings`, best hits first."""
        return await self._calls.answer(lambda: self._handle.search.remote(embeddings, queries))

    async def nearest(self, embedding: FloatVector) -> Neighbour | None:
        """The memory with the highest cosine; None only on an empty store."""
        return await self._calls.answer(lambda: self._handle.nearest.remote(embedding))

    async def add(
        self, memories: Sequence[NewMemory], embeddings: FloatMatrix, *, request_id: str
    ) -> list[AddOutcome]:
        """Add all or none. Durable and visible to searches when this returns."""
        return await self._calls.write(
            lambda deadline_s: self._handle.add.remote(
                memories, embeddings, request_id=request_id, deadline_s=deadline_s
            )
        )

    async def known_embeddings(self, texts: Sequence[str]) -> dict[int, FloatVector]:
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
            )
        )

    async def begin_export(self, where: MemoryFilter, *, with_embeddings: bool) -> ExportFacts:
        """Open an export as of now."""
        return await self._calls.answer(
            lambda: self._handle.begin_export.remote(where, with_embeddings=with_embeddings)
        )

    async def read_export(self, export_id: str, n: int) -> bytes:
        """The next memories of an export as NDJSON, at most n; empty at its end."""
        return await self._calls.answer(lambda: self._handle.read_export.remote(export_id, n))

    async def end_export(self, export_id: str) -> None:
        """Close an export before its end."""
        await self._calls.answer(lambda: self._handle.end_export.remote(export_id))

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
        embedding: FloatVector | None,
        *,
        request_id: str,
    ) -> Memory:
        """Change a memory; `embedding` goes with a new text."""
        return await self._calls.write(
            lambda deadline_s: self._handle.update.remote(
                memory_id, patch, embedding, request_id=request_id, deadline_s=deadline_s
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
        """A page in order of id; `cursor` (of the page before) wins over `offset`."""
        return await self._calls.answer(
            lambda: self._handle.list_memories.remote(
                where, offset=offset, limit=limit, newest_first=newest_first, cursor=cursor
            )
        )

    async def deduplicate(
        self, threshold: float, *, dry_run: bool, request_id: str
    ) -> DedupeReport:
        """Find groups of duplicates; unless `dry_run`, keep only the earliest of each."""
        return await self._calls.write(
            lambda _: self._handle.deduplicate.remote(
                threshold, dry_run=dry_run, request_id=request_id
            ),
            timeout_s=self._long_timeout_s,
        )

    async def plan_build(self, sources: Sequence[str] | None, *, replace_all: bool) -> BuildPlan:
        """Read and chunk workspace files. Raises `PathNotAllowedError`, `InvalidInputError`."""
        return await self._calls.answer(
            lambda: self._handle.plan_build.remote(sources, replace_all=replace_all),
            timeout_s=self._long_timeout_s,
        )

    async def apply_build(
        self, plan: BuildPlan, embeddings: FloatMatrix, *, request_id: str
    ) -> BuildReport:
        """Apply a plan; `embeddings` has a row for each of `plan.to_embed`."""
        return await self._calls.write(
            lambda _: self._handle.apply_build.remote(plan, embeddings, request_id=request_id),
            timeout_s=self._long_timeout_s,
        )

    async def backups(self) -> list[BackupSummary]:
        """Every restorable backup, newest first."""
        return await self._calls.answer(lambda: self._handle.backups.remote())

    async def backup(self, prefix: str) -> BackupSummary:
        """Make a backup named `<prefix>_<UTC time>`. Durable when this returns."""
        return await self._calls.write(
            lambda _: self._handle.backup.remote(prefix), timeout_s=self._long_timeout_s
        )

    async def verify_backup(self, name: str) -> BackupCheck:
        """Check that a backup can be restored. Raises `BackupNotFoundError`."""
        return await self._calls.answer(
            lambda: self._handle.verify_backup.remote(name), timeout_s=self._long_timeout_s
        )

    async def restore(self, name: str) -> int:
        """Restore a backup; returns how many memories there are now."""
        return await self._calls.write(
            lambda _: self._handle.restore.remote(name), timeout_s=self._long_timeout_s
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
        return await self._calls.answer(
            lambda: self._handle.sync_upload.remote(prefix, overwrite=overwrite),
            timeout_s=self._long_timeout_s,
        )

    async def sync_download(self, name: str | None) -> Download:
        """Make a snapshot a local backup."""
        return await self._calls.answer(
            lambda: self._handle.sync_download.remote(name), timeout_s=self._long_timeout_s
        )

    async def sync_restore(self, name: str) -> tuple[Download, int]:
        """Download a snapshot and restore it."""
        return await self._calls.answer(
            lambda: self._handle.sync_restore.remote(name), timeout_s=self._long_timeout_s
        )
