"""What the ingress may ask of the other deployments.

It depends on these two protocols alone, so that tests hand it in-process fakes. Every method may
raise any `engine.errors.EngineError` but those its docstring excludes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from deployments.calls.part_reports import PartReport
from deployments.calls.planned_builds import PlannedBuild
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


class EmbedderClient(Protocol):
    """The embedding pool."""

    async def embed_query(self, text: str) -> EmbeddedQuery:
        """Embed one query in the lane that bulk work does not delay; repeated ones are cached."""

    async def embed_queries(self, texts: Sequence[str]) -> list[EmbeddedQuery]:
        """Embed queries in bulk, in order."""

    async def embed_one(self, text: str) -> Embeddings:
        """Embed one text that somebody waits for, ahead of bulk work."""

    async def embed(self, texts: Sequence[str], max_windows: int = 1) -> Embeddings:
        """Embed texts in bulk, in order, up to `max_windows` windows of each."""

    async def embed_long(self, texts: Sequence[str], max_windows: int = 1) -> Embeddings:
        """The same for work that nobody waits for by the clock, such as an import."""

    async def reports(self) -> Sequence[PartReport]:
        """What each replica says of itself, for the metrics."""


class IndexClient(Protocol):
    """The single-writer index actor.

    `request_id` makes a write exactly-once: the index remembers the outcome beside the write,
    so that sending it again after the actor died returns that outcome instead of a second write.
    """

    async def count(self) -> int:
        """Memories stored. In memory; answers in the middle of anything."""

    async def report(self) -> PartReport:
        """What its process says of itself, for the metrics."""

    async def problem(self) -> str | None:
        """What keeps memories from being stored and backed up, if something does."""

    async def stats(self) -> IndexStats:
        """The state of the index, for operators."""

    async def search(
        self, embeddings: FloatMatrix, queries: Sequence[SearchQuery]
    ) -> list[list[SearchHit]]:
        """Answer the first of several searches, each with its row of `embeddings`, best hits first.

        At least one, and as many as make an answer of a few megabytes.
        """

    async def nearest(self, embedding: FloatVector, text: str) -> Neighbour | None:
        """The memory with the highest cosine, and whether one says the same as the text."""

    async def add(
        self, memories: Sequence[NewMemory], embeddings: FloatMatrix, *, request_id: str
    ) -> list[AddOutcome]:
        """Add all or none. Durable and visible to searches when this returns.

        What makes it durable is the commit in `engine.writing.writer.Writer._run`.
        """

    async def known_embeddings(self, texts: Sequence[str]) -> dict[int, FloatMatrix]:
        """The embeddings of texts that are stored already, by position; some may be missing."""

    async def ingest(
        self,
        memories: Sequence[NewMemory],
        embeddings: FloatMatrix,
        *,
        request_id: str,
        after: str | None,
        attempt: ImportAttempt | None,
    ) -> list[ImportOutcome]:
        """Apply lines of an import in order; `after` is the request before it in the stream."""

    async def begin_export(self, where: MemoryFilter, *, with_embeddings: bool) -> ExportFacts:
        """Open an export as of now."""

    async def read_export(self, export_id: str, max_bytes: int) -> bytes:
        """The next memories of an export as NDJSON, about so many; empty at its end."""

    async def end_export(self, export_id: str) -> None:
        """Close an export before its end."""

    async def upsert(
        self, memory: NewMemory, embedding: FloatVector, *, request_id: str
    ) -> UpsertOutcome:
        """Replace the memory with this (source, key), or add it."""

    async def get(self, memory_id: MemoryId) -> Memory:
        """One memory. Raises `MemoryNotFoundError`."""

    async def update(
        self,
        memory_id: MemoryId,
        patch: MemoryPatch,
        vectors: FloatMatrix | None,
        *,
        request_id: str,
    ) -> Memory:
        """Change a memory; `vectors`, shape (windows, dim), go with a new text."""

    async def delete(self, ids: Sequence[MemoryId], *, request_id: str) -> DeleteOutcome:
        """Delete those that exist; never raises `MemoryNotFoundError`."""

    async def delete_by_source(self, where: MemoryFilter, *, request_id: str) -> int:
        """Delete every memory that passes a filter."""

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

    async def deduplicate(
        self, threshold: float, *, by: DuplicateRule, dry_run: bool, request_id: str
    ) -> DedupeReport:
        """Find groups of duplicates; unless `dry_run`, keep only the earliest of each."""

    async def plan_build(self, sources: Sequence[str] | None, *, replace_all: bool) -> PlannedBuild:
        """Read and chunk workspace files. Raises `PathNotAllowedError`, `InvalidInputError`."""

    async def texts_of_build(self, build_id: str, start: int) -> list[str]:
        """A page of the texts that a planned build needs embedded, from number `start` on."""

    async def put_embeddings(self, build_id: str, start: int, embeddings: FloatMatrix) -> None:
        """Hand on the embeddings of the page that began at `start`."""

    async def drop_build(self, build_id: str) -> None:
        """Forget a planned build that will not be applied. Idempotent."""

    async def apply_build(self, build_id: str, *, request_id: str) -> BuildReport:
        """Apply a planned build whose texts are all embedded. Raises `LeaseLostError`."""

    async def backups(self) -> list[BackupSummary]:
        """Every restorable backup, newest first."""

    async def backup(self, prefix: str) -> BackupSummary:
        """Make a backup named `<prefix>_<UTC time>`. Durable when this returns."""

    async def verify_backup(self, name: str) -> BackupCheck:
        """Check that a backup can be restored. Raises `BackupNotFoundError`."""

    async def restore(self, name: str, *, request_id: str) -> int:
        """Restore a backup; returns how many memories there are now."""

    async def sync_status(self) -> SyncStatus:
        """How the copy in the cloud stands; asks the bucket, but not for long."""

    async def sync_snapshots(self) -> list[RemoteSnapshot]:
        """The snapshots in the cloud, newest first. Raises `RemoteError`."""

    async def sync_upload(self, prefix: str, *, overwrite: bool) -> str:
        """Back up and upload; the backup's name, once it can be restored from the bucket.

        Raises `RemoteError`; `RemoteConflictError` when another machine wrote since, unless
        `overwrite`.
        """

    async def sync_download(self, name: str | None) -> Download:
        """Make a snapshot, the newest without a name, a local backup."""

    async def sync_restore(self, name: str, *, request_id: str) -> tuple[Download, int]:
        """Download a snapshot and restore it; and how many memories there are now."""
