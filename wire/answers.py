"""Shapes of the answers, for the OpenAPI document only: routes build their JSON themselves."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class MemoryOut(BaseModel):
    """A stored memory."""

    id: int
    text: str
    source: str
    timestamp: str = Field(description="Created, UTC ISO-8601.")
    metadata: dict[str, Any]
    updated_at: str
    key: str | None


class HitOut(MemoryOut):
    """A memory found."""

    similarity: float = Field(description="Cosine of query and memory.")
    score: float | None = Field(
        None, description="What orders the hits, 0 to 1, comparable between queries; hybrid only."
    )
    rrf_score: float | None = Field(None, description="Fused rank score; hybrid only.")
    bm25_score: float | None = Field(None, description="Keyword score; hybrid only.")


class SearchAnswer(BaseModel):
    """Hits, best first."""

    query: str
    results: list[HitOut]
    count: int


class BatchSearchAnswer(BaseModel):
    """One answer per query, in order."""

    results: list[SearchAnswer]


class SimilarOut(BaseModel):
    """A stored memory that is much like the added one."""

    id: int
    similarity: float
    text: str = Field(description="The first 200 characters.")


class AddAnswer(BaseModel):
    """The new id, or null for a duplicate."""

    success: bool
    id: int | None
    message: str
    duplicate_of: int | None = Field(None, description="The memory that says the same.")
    similarity: float | None = Field(None, description="Cosine with that memory.")
    duplicate_text: str | None = Field(None, description="Its first 200 characters.")
    similar: list[SimilarOut] | None = Field(
        None, description="At most 3 that an added one is much like, and that say something else."
    )


class AddBatchResult(BaseModel):
    """What became of one memory of a batch."""

    id: int | None
    duplicate_of: int | None
    similarity: float | None = Field(None, description="As for one memory alone.")
    duplicate_text: str | None = None
    similar: list[SimilarOut] | None = None


class AddBatchAnswer(BaseModel):
    """The ids added, and one result per memory in order."""

    success: bool
    ids: list[int]
    count: int
    message: str
    results: list[AddBatchResult]


class UpsertAnswer(BaseModel):
    """The memory's id, and whether it is new."""

    success: bool
    id: int
    created: bool


class DeleteAnswer(BaseModel):
    """What was deleted."""

    success: bool
    deleted_id: int
    deleted_text: str = Field(description="The first 100 characters.")


class DeleteBySourceAnswer(BaseModel):
    """How many were deleted."""

    success: bool
    deleted_count: int


class DeleteBatchAnswer(BaseModel):
    """How many were deleted, and which ids did not exist."""

    success: bool
    deleted_count: int
    missing: list[int]


class NearestOut(MemoryOut):
    """The most similar memory."""

    similarity: float


class IsNovelAnswer(BaseModel):
    """Novel when the similarity is below the threshold."""

    is_novel: bool
    threshold: float
    most_similar: NearestOut | None
    says_the_same: bool = Field(description="Whether adding the text would be skipped.")


class ListAnswer(BaseModel):
    """A page of memories."""

    memories: list[MemoryOut]
    total: int
    offset: int
    limit: int
    next_cursor: str | None


class DuplicatePairOut(BaseModel):
    """Two memories of which one can go; `id_a` is the earlier."""

    id_a: int
    id_b: int
    similarity: float
    text_a: str
    text_b: str


class DeduplicateAnswer(BaseModel):
    """What was found and removed."""

    duplicate_pairs: int
    dry_run: bool
    removed: int | None = None
    would_remove: int | None = None
    remaining: int | None = None
    pairs: list[DuplicatePairOut] | None = Field(None, description="The best 20.")


class SkippedOut(BaseModel):
    """A file that was not read."""

    path: str
    reason: str


class BuildAnswer(BaseModel):
    """What the build changed."""

    success: bool
    files_processed: int
    memories_added: int
    backup_location: str
    message: str
    memories_removed: int
    unchanged: int
    skipped: list[SkippedOut]


class BackupOut(BaseModel):
    """A backup."""

    name: str
    created: float = Field(description="Seconds since the epoch.")
    total_memories: int
    size_bytes: int
    verified_at: str | None


class BackupsAnswer(BaseModel):
    """Backups, newest first."""

    backups: list[BackupOut]
    count: int


class BackupAnswer(BaseModel):
    """Where the backup is."""

    success: bool
    backup_path: str
    message: str


class VerifyAnswer(BaseModel):
    """Whether a backup can be restored, and what is wrong with it."""

    backup_name: str
    ok: bool
    problems: list[str]


class RestoreAnswer(BaseModel):
    """What was restored."""

    success: bool
    restored_from: str
    total_memories: int
    message: str


class SyncStatusAnswer(BaseModel):
    """Whether cloud sync is on, and how it stands."""

    enabled: bool
    message: str | None = Field(None, description="Only when it is off.")
    location: str | None = None
    latest_remote: str | None = None
    latest_local: str | None = None
    remote_count: int | None = Field(None, description="null until the cloud has answered.")
    local_count: int | None = None
    last_upload_at: str | None = None
    last_error: str | None = Field(None, description="Why the last upload failed.")
    pending: str | None = Field(None, description="The backup that is not uploaded yet.")


class SyncUploadAnswer(BaseModel):
    """What is in the cloud now."""

    success: bool
    backup_name: str
    message: str


class SnapshotAnswer(BaseModel):
    """One snapshot in the cloud."""

    name: str
    s3_prefix: str
    uploaded_at: str


class SnapshotsAnswer(BaseModel):
    """Every snapshot, newest first."""

    snapshots: list[SnapshotAnswer]
    count: int


class SyncDownloadAnswer(BaseModel):
    """What was downloaded."""

    success: bool
    backup_name: str
    files_downloaded: int
    local_path: str
    timestamp: str
    message: str


class RestoredSnapshot(BaseModel):
    """What the memories are now."""

    restored_from: str
    total_memories: int


class SyncRestoreAnswer(BaseModel):
    """What was downloaded and restored."""

    success: bool
    downloaded: SyncDownloadAnswer
    restored: RestoredSnapshot
    message: str


class CountsOut(BaseModel):
    """Memories that each part holds; the same once no write is under way."""

    store: int
    vectors: int
    keywords: int


class StatsAnswer(BaseModel):
    """The state of the store."""

    total_memories: int
    dimension: int
    model: str
    created_at: str
    last_updated: str | None
    index_size_bytes: int
    backup_count: int
    backup_error: str | None = Field(
        description="Why the last automatic backup failed; it is tried again."
    )
    version: str
    precision: str
    vector_index: str
    store_bytes: int
    lsn: int
    index_rows: int
    index_terms: int
    pending_writes: int
    workspace_dir: str = Field(description="Whose files /index/build may read.")
    counts: CountsOut


class HealthAnswer(BaseModel):
    """Whether the service answers."""

    status: str
    service: str
    version: str
    total_memories: int | None = None
    dimension: int
    model: str


class StatusAnswer(BaseModel):
    """One word, and what is waited for."""

    status: str
    reason: str | None = Field(None, description="What is waited for, or what is wrong.")


class Problem(BaseModel):
    """What went wrong."""

    detail: str


class InternalProblem(Problem):
    """What went wrong, and the id that finds it in the log."""

    request_id: str


class InvalidField(BaseModel):
    """One thing wrong with a request."""

    type: str
    loc: list[str | int]
    msg: str
    input: Any = Field(None, description="The value, where it is short.")
    ctx: dict[str, Any] | None = Field(None, description="The bound that was missed.")


class Invalid(BaseModel):
    """What is wrong with a request."""

    detail: list[InvalidField]
