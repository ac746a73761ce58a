"""Answers, as routes make them and the OpenAPI document tells them.

Plain dicts: what a route answers with is made into JSON once, in the order it was put together.
What is `NotRequired` is absent where there is none; anything else is there, and may be null.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from typing_extensions import NotRequired, TypedDict


class Redactions(TypedDict, total=False):
    """What was replaced in a text that was to be stored without its secrets."""

    redacted: Annotated[
        dict[str, int],
        Field(description="How many secrets of each kind were replaced, where any was."),
    ]


class MemoryOut(TypedDict):
    """A stored memory."""

    id: int
    text: str
    source: str
    timestamp: Annotated[str, Field(description="Created, UTC ISO-8601.")]
    metadata: dict[str, Any]
    updated_at: str
    key: str | None


class ScoreParts(TypedDict):
    """What a score is made of: (meaning + words + neighbours), bounded, times recency."""

    meaning: float
    words: float
    neighbours: float
    recency: float


class HitExplanation(TypedDict):
    """Why a memory is among the hits."""

    vector_rank: Annotated[
        int | None, Field(description="By meaning, from 0; null: meaning has no say.")
    ]
    bm25_rank: Annotated[
        int | None, Field(description="By words, from 0; null: no word of the query.")
    ]
    matched: Annotated[list[str], Field(description="Words of the query that it has.")]
    score: ScoreParts


class Dropped(TypedDict):
    """How many memories are no hits, and for what reason."""

    threshold: Annotated[int, Field(description="Candidates below threshold or min_score.")]
    filter: Annotated[int, Field(description="Memories that do not pass the filters.")]
    expired: int
    superseded: int


class SearchExplanation(TypedDict):
    """What a search looked at."""

    candidates: Annotated[int, Field(description="Memories whose score was computed.")]
    dropped: Dropped


class HitOut(MemoryOut):
    """A memory found."""

    similarity: Annotated[float, Field(description="Cosine of query and memory.")]
    score: NotRequired[
        Annotated[
            float,
            Field(
                description="What orders the hits, 0 to 1, comparable between queries; hybrid only."
            ),
        ]
    ]
    namespace: NotRequired[Annotated[str, Field(description="Where several were asked for.")]]
    rrf_score: NotRequired[Annotated[float, Field(description="Fused rank score; hybrid only.")]]
    bm25_score: NotRequired[Annotated[float, Field(description="Keyword score; hybrid only.")]]
    explain: NotRequired[Annotated[HitExplanation, Field(description="When asked for.")]]


class ListedOut(MemoryOut):
    """A memory of a page."""

    namespace: NotRequired[Annotated[str, Field(description="Where several were asked for.")]]


class SearchAnswer(TypedDict):
    """Hits, in the order that was asked for."""

    query: str
    results: list[HitOut]
    count: int
    explain: NotRequired[Annotated[SearchExplanation, Field(description="When asked for.")]]


class BeginningOut(TypedDict):
    """How a memory begins."""

    id: int
    text: Annotated[str, Field(description="The first 200 characters.")]


class TimelineMemory(MemoryOut):
    """A memory of a timeline, and what stands beside it in its source."""

    similarity: NotRequired[
        Annotated[float, Field(description="As a search says it; like the others with a query.")]
    ]
    score: NotRequired[float]
    rrf_score: NotRequired[float]
    bm25_score: NotRequired[float]
    before: BeginningOut | None
    after: BeginningOut | None


class TimelineDay(TypedDict):
    """The memories of one day."""

    date: Annotated[str, Field(description="In the time zone that was asked for, 2026-03-31.")]
    memories: list[TimelineMemory]


class TimelineAnswer(TypedDict):
    """Days that have memories, in order."""

    days: list[TimelineDay]
    count: int


class BatchSearchAnswer(TypedDict):
    """One answer per query, in order."""

    results: list[SearchAnswer]


class SimilarOut(TypedDict):
    """A stored memory that is much like the added one."""

    id: int
    similarity: float
    text: Annotated[str, Field(description="The first 200 characters.")]


class Likeness(TypedDict, total=False):
    """What a memory of an add repeats, or is much like."""

    similarity: Annotated[float | None, Field(description="Cosine with the one it repeats.")]
    duplicate_text: Annotated[str | None, Field(description="Its first 200 characters.")]
    similar: Annotated[
        list[SimilarOut],
        Field(description="At most 3 that an added one is much like, and that say something else."),
    ]


class ChangedOut(MemoryOut, Redactions):
    """The memory as it is now."""


class AddAnswer(Likeness, Redactions):
    """The new id, or null for a duplicate."""

    success: bool
    id: int | None
    message: str
    duplicate_of: NotRequired[Annotated[int, Field(description="The memory that says the same.")]]


class AddBatchResult(Likeness, Redactions):
    """What became of one memory of a batch."""

    id: int | None
    duplicate_of: int | None


class AddBatchAnswer(TypedDict):
    """The ids added, and one result per memory in order."""

    success: bool
    ids: list[int]
    count: int
    message: str
    results: list[AddBatchResult]


class UpsertAnswer(Redactions):
    """The memory's id, and whether it is new."""

    success: bool
    id: int
    created: bool


class DeleteAnswer(TypedDict):
    """What was deleted."""

    success: bool
    deleted_id: int
    deleted_text: Annotated[str, Field(description="The first 100 characters.")]


class DeleteBySourceAnswer(TypedDict):
    """How many were deleted."""

    success: bool
    deleted_count: int


class DeleteBatchAnswer(TypedDict):
    """How many were deleted, and which ids did not exist."""

    success: bool
    deleted_count: int
    missing: list[int]


class NearestOut(MemoryOut):
    """The most similar memory."""

    similarity: float


class IsNovelAnswer(TypedDict):
    """Novel when the similarity is below the threshold."""

    is_novel: bool
    threshold: float
    most_similar: NearestOut | None
    says_the_same: Annotated[bool, Field(description="Whether adding the text would be skipped.")]


class ListAnswer(TypedDict):
    """A page of memories."""

    memories: list[ListedOut]
    total: int
    offset: int
    limit: int
    next_cursor: str | None


class DuplicatePairOut(TypedDict):
    """Two memories of which one can go; `id_a` is the earlier."""

    id_a: int
    id_b: int
    similarity: float
    text_a: str
    text_b: str


class DeduplicateAnswer(TypedDict):
    """What was found and removed."""

    duplicate_pairs: int
    dry_run: bool
    removed: NotRequired[int]
    would_remove: NotRequired[int]
    remaining: NotRequired[int]
    pairs: NotRequired[Annotated[list[DuplicatePairOut], Field(description="The best 20.")]]


class SkippedOut(TypedDict):
    """A file that was not read."""

    path: str
    reason: str


class BuildAnswer(TypedDict):
    """What the build changed."""

    success: bool
    files_processed: int
    memories_added: int
    backup_location: str
    message: str
    memories_removed: int
    unchanged: int
    skipped: list[SkippedOut]


class BackupOut(TypedDict):
    """A backup."""

    name: str
    created: Annotated[float, Field(description="Seconds since the epoch.")]
    total_memories: int
    size_bytes: int
    verified_at: str | None


class BackupsAnswer(TypedDict):
    """Backups, newest first."""

    backups: list[BackupOut]
    count: int


class BackupAnswer(TypedDict):
    """Where the backup is."""

    success: bool
    backup_path: str
    message: str


class VerifyAnswer(TypedDict):
    """Whether a backup can be restored, and what is wrong with it."""

    backup_name: str
    ok: bool
    problems: list[str]


class RestoreAnswer(TypedDict):
    """What was restored."""

    success: bool
    restored_from: str
    total_memories: int
    message: str


class SyncStatusAnswer(TypedDict):
    """Whether cloud sync is on, and how it stands."""

    enabled: bool
    message: NotRequired[Annotated[str, Field(description="Only when it is off.")]]
    location: NotRequired[str | None]
    latest_remote: NotRequired[str | None]
    latest_local: NotRequired[str | None]
    remote_count: NotRequired[
        Annotated[int | None, Field(description="null until the cloud has answered.")]
    ]
    local_count: NotRequired[int | None]
    last_upload_at: NotRequired[str | None]
    last_error: NotRequired[Annotated[str | None, Field(description="Why the last upload failed.")]]
    pending: NotRequired[
        Annotated[str | None, Field(description="The backup that is not uploaded yet.")]
    ]


class SyncUploadAnswer(TypedDict):
    """What is in the cloud now."""

    success: bool
    backup_name: str
    message: str


class SnapshotAnswer(TypedDict):
    """One snapshot in the cloud."""

    name: str
    s3_prefix: str
    uploaded_at: str


class SnapshotsAnswer(TypedDict):
    """Every snapshot, newest first."""

    snapshots: list[SnapshotAnswer]
    count: int


class SyncDownloadAnswer(TypedDict):
    """What was downloaded."""

    success: bool
    backup_name: str
    files_downloaded: int
    local_path: str
    timestamp: str
    message: str


class RestoredSnapshot(TypedDict):
    """What the memories are now."""

    restored_from: str
    total_memories: int


class SyncRestoreAnswer(TypedDict):
    """What was downloaded and restored."""

    success: bool
    downloaded: SyncDownloadAnswer
    restored: RestoredSnapshot
    message: str


class CountsOut(TypedDict):
    """Memories that each part holds; the same once no write is under way."""

    store: int
    vectors: int
    keywords: int


class StatsAnswer(TypedDict):
    """The state of a namespace; what would tell of others is there for who may use all."""

    total_memories: int
    dimension: int
    model: str
    created_at: str
    last_updated: str | None
    index_size_bytes: int
    backup_count: int
    backup_error: NotRequired[
        Annotated[
            str | None,
            Field(description="Why the last automatic backup failed; it is tried again."),
        ]
    ]
    version: str
    precision: str
    vector_index: str
    store_bytes: NotRequired[int]
    lsn: NotRequired[int]
    index_rows: int
    index_terms: int
    pending_writes: NotRequired[int]
    workspace_dir: Annotated[str, Field(description="Whose files /index/build may read.")]
    workspace_id: Annotated[
        str | None,
        Field(description="By it a client on the same machine knows that it sees that directory."),
    ]
    counts: CountsOut


class HealthAnswer(TypedDict):
    """Whether the service answers."""

    status: str
    service: str
    version: str
    total_memories: int | None
    dimension: int
    model: str


class StatusAnswer(TypedDict):
    """One word, and what is waited for."""

    status: str
    reason: NotRequired[
        Annotated[str | None, Field(description="What is waited for, or what is wrong.")]
    ]


class Problem(TypedDict):
    """What went wrong."""

    detail: str


class InternalProblem(Problem):
    """What went wrong, and the id that finds it in the log."""

    request_id: str


class InvalidField(TypedDict):
    """One thing wrong with a request."""

    type: str
    loc: list[str | int]
    msg: str
    input: NotRequired[Annotated[Any, Field(description="The value, where it is short.")]]
    ctx: NotRequired[Annotated[dict[str, Any], Field(description="The bound that was missed.")]]


class Invalid(TypedDict):
    """What is wrong with a request."""

    detail: list[InvalidField]
