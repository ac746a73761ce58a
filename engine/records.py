"""The values that cross the engine's border, and the names of its array shapes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, NewType

import numpy as np
import numpy.typing as npt

MemoryId = NewType("MemoryId", int)

FloatVector = npt.NDArray[np.float32]
"""Shape (dim,), float32, L2-normalised."""

FloatMatrix = npt.NDArray[np.float32]
"""Shape (n, dim), float32, each row L2-normalised."""

IdArray = npt.NDArray[np.int64]
"""Ids of memories; -1 where there is none."""

RowArray = npt.NDArray[np.int64]
"""Row numbers of the in-memory indexes; -1 pads."""

BoolMask = npt.NDArray[np.bool_]
"""Shape (n_rows,): which rows take part."""

ScoreArray = npt.NDArray[np.float64]
"""Scores, higher is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """One stored memory, as read back."""

    id: MemoryId
    text: str
    source: str
    key: str | None
    timestamp: str
    """Creation time, UTC ISO-8601 with microseconds and `+00:00`."""
    updated_at: str
    """Time of the last change, same form as `timestamp`."""
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMemory:
    """One memory to be added, already validated; its embedding travels beside it."""

    text: str
    source: str
    metadata: dict[str, Any] = field(default_factory=dict)
    key: str | None = None
    deduplicate: bool = True
    created_us: int | None = None
    """Microseconds since the epoch; None is the time of the write."""
    updated_us: int | None = None
    """Likewise; None is `created_us`."""
    own_vector: bool = False
    """Its embedding was given by the caller; it says nothing about other memories of this text."""
    later_vectors: FloatMatrix | None = None
    """Shape (windows past the first, dim): of a text longer than one. None: none, or not yet."""
    merge_copy: int | None = None
    """Of an export, the how manyth one it is with its text, source and time: it is added only if
    fewer of them are stored, or none with its key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFilter:
    """Which memories take part. Every given condition must hold."""

    source: str | None = None
    """Case-sensitive substring of the source."""
    source_exact: str | None = None
    """The whole source, case-sensitive."""
    source_prefix: str | None = None
    """Case-sensitive prefix of the source."""
    metadata: dict[str, Any] | None = None
    """Top-level metadata values that must be equal."""
    since_us: int | None = None
    """Created at or after this time, microseconds since the epoch."""
    until_us: int | None = None
    """Created at or before this time, microseconds since the epoch."""

    def is_empty(self) -> bool:
        """Whether every memory passes."""
        return self == MemoryFilter()


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryPieces:
    """What a query's word pieces say, each for itself."""

    rows: npt.NDArray[np.float16]
    """Shape (p, dim): hidden rows of the first pieces; a plain embedding is their sum."""
    word_of: npt.NDArray[np.int16]
    """Shape (p,): the word that each piece belongs to, by its number; -1 for none."""
    words: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedQuery:
    """A query as the model reads it."""

    vector: FloatVector
    """All zeros when the model knows too little of it."""
    pieces: QueryPieces


MAX_WINDOWS = 8
"""Of a text that somebody waits for; further ones are embedded after the write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """The vectors of several texts: one each, and further ones of what is longer than a window."""

    firsts: FloatMatrix
    """Shape (n, dim)."""
    later: dict[int, FloatMatrix] = field(default_factory=dict)
    """By position: shape (windows past the first, dim); nothing for a short text."""

    def of(self, at: int) -> FloatMatrix:
        """All vectors of one text, shape (windows, dim)."""
        first = self.firsts[at : at + 1]
        later = self.later.get(at)
        return first if later is None else np.concatenate([first, later])


Fusion = Literal["score", "rrf"]
SearchOrder = Literal["best", "newest", "oldest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recency:
    """How much age takes from a score: see `engine.search.by_time`."""

    half_life_days: float
    weight: float
    """The most that age takes, as a share of the score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    """One search; its query's embedding travels beside it."""

    text: str
    k: int = 5
    hybrid: bool = True
    threshold: float | None = None
    """Least cosine similarity of a hit; None keeps every hit."""
    vector_weight: float = 0.7
    where: MemoryFilter = field(default_factory=MemoryFilter)
    fusion: Fusion = "score"
    """How a hybrid search orders: by `engine.search.ranking`, or by reciprocal ranks."""
    min_score: float | None = None
    """Least score of a hit; None keeps every hit."""
    neighbours: bool = True
    """Whether memories beside a good one in the same source rise."""
    pieces: QueryPieces | None = None
    """What weighs the query's words by their rarity; None searches with its plain embedding."""
    order: SearchOrder = "best"
    """In which the k best are answered."""
    recency: Recency | None = None
    """What age takes from a `score`; None: nothing."""
    explain: bool = False
    """Whether the answer says how it came about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreParts:
    """What a score is made of: (meaning + words + neighbours), bounded, times recency."""

    meaning: float
    words: float
    neighbours: float = 0.0
    recency: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HitExplanation:
    """Why a memory is among the hits."""

    vector_rank: int | None
    """Among the candidates by meaning, from 0; None where meaning has no say."""
    bm25_rank: int | None
    """By words, likewise; None without a word of the query."""
    matched: list[str]
    """Words of the query that it has."""
    score: ScoreParts


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """How many memories are no hits, and for what reason."""

    threshold: int = 0
    """Candidates below `threshold` or `min_score`."""
    filter: int = 0
    """Memories that do not pass the filter; they never are candidates."""
    expired: int = 0
    superseded: int = 0

    def __add__(self, other: Dropped) -> Dropped:
        return Dropped(
            **{
                each.name: getattr(self, each.name) + getattr(other, each.name)
                for each in fields(self)
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchExplanation:
    """What a search looked at."""

    candidates: int
    """Memories whose score was computed."""
    dropped: Dropped

    def __add__(self, other: SearchExplanation) -> SearchExplanation:
        return SearchExplanation(
            candidates=self.candidates + other.candidates, dropped=self.dropped + other.dropped
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchHit:
    """One memory found, with the scores that ranked it."""

    memory: Memory
    similarity: float
    """Cosine of query and memory, in both modes."""
    score: float | None = None
    """What orders a hybrid search, 0 to 1, comparable between queries; None unless hybrid."""
    rrf_score: float | None = None
    """Weighted reciprocal rank fusion score; None unless hybrid."""
    bm25_score: float | None = None
    """Okapi score, 0.0 without a matching term; None unless hybrid."""
    namespace: str = "default"
    """That holds the memory."""
    explanation: HitExplanation | None = None
    """None unless it was asked for."""


class SearchHits(list[SearchHit]):
    """The hits of one search, and what it looked at when that was asked for."""

    explanation: SearchExplanation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """How a memory begins."""

    id: MemoryId
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEntry:
    """A memory of a timeline, and what stands beside it in its source."""

    memory: Memory
    hit: SearchHit | None
    """None when nothing was looked for."""
    before: Beginning | None
    after: Beginning | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarMemory:
    """A stored memory that is much like an added one, and yet says something else."""

    id: MemoryId
    similarity: float
    text: str
    """Its beginning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddOutcome:
    """What became of one memory of an add."""

    id: MemoryId | None
    """The new id; None for a duplicate."""
    duplicate_of: MemoryId | None = None
    """The memory that says the same."""
    similarity: float | None = None
    """Cosine with that memory; 1.0 where vectors say nothing."""
    duplicate_text: str | None = None
    """How that memory begins."""
    similar: list[SimilarMemory] = field(default_factory=list)
    """Memories that an added one is much like, most similar first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """Which model makes the vectors. Vectors of two identities are never mixed."""

    name: str
    dim: int
    precision: str
    """`fp32` or `int8`."""
    fingerprint: str
    """sha256, hex, of the weights the vectors come from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpsertOutcome:
    """What became of an upsert."""

    id: MemoryId
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPatch:
    """The fields of a memory to change; None leaves one as it is."""

    text: str | None = None
    source: str | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedMemory:
    """A memory that is gone."""

    id: MemoryId
    text: str
    """The first 100 characters of what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOutcome:
    """What a delete removed."""

    deleted: list[DeletedMemory]
    missing: list[MemoryId]


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A stored memory that is near to a text."""

    memory: Memory
    similarity: float
    """Cosine; 1.0 for the same words where vectors say nothing."""
    says_the_same: bool = False
    """Whether a memory, this one or another, says the same as the text."""
    is_comparable: bool = True
    """Whether the text's vector says anything; if not, its words alone decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveOutcome:
    """What a move put into another namespace."""

    moved: list[MemoryId]
    missing: list[MemoryId]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceSummary:
    """One namespace, for listings."""

    name: str
    memories: int
    last_updated: str | None
    """UTC ISO-8601 time of its last write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryQuota:
    """How many memories there may be in some namespaces together."""

    max_memories: int
    namespaces: tuple[str, ...]
    """Globs: `*` stands for anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPage:
    """A page of memories and how many there are in all."""

    memories: list[Memory]
    total: int
    next_cursor: str | None = None
    """Hand it back to go on from here; None at the end."""
    namespaces: list[str] = field(default_factory=list)
    """Of each memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatePair:
    """Two stored memories of which one can go; `id_a` is the earlier."""

    id_a: MemoryId
    id_b: MemoryId
    similarity: float
    text_a: str
    text_b: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DedupeReport:
    """Duplicates found among the stored memories, and what was removed."""

    n_pairs: int
    n_removed: int
    """Removed, or with `dry_run` what would be."""
    remaining: int
    dry_run: bool
    best_pairs: list[DuplicatePair]
    """At most 20, best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedFile:
    """A workspace file that was not read, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A passage of a workspace file."""

    source: str
    """`<path relative to the workspace>:chunk_<n>`, n from 0."""
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)
    """What the file says of itself, and the passage's context: see `engine.workspace.passages`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """Workspace files as chunks, compared with the store, ready to be embedded and applied."""

    files: list[str]
    """Paths relative to the workspace whose old chunks are replaced."""
    chunks: list[Chunk]
    """All chunks of those files, in order."""
    to_embed: list[int]
    """Positions in `chunks` whose text in its context the store does not hold for that file yet."""
    skipped: list[SkippedFile]
    replace_all: bool
    """Whether every other memory is removed too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What a build changed."""

    files_processed: int
    memories_added: int
    memories_removed: int
    unchanged: int
    skipped: list[SkippedFile]
    backup_location: str
    """Path of the backup taken before the build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupSummary:
    """One backup that can be restored."""

    name: str
    created_s: float
    """Seconds since the epoch."""
    path: str
    total_memories: int
    size_bytes: int
    verified_at: str | None = None
    """UTC ISO-8601 time of the last successful verification."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupCheck:
    """The outcome of verifying a backup; no problems means that it can be restored."""

    name: str
    problems: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexStats:
    """The state of the single writer, for operators."""

    total_memories: int
    model: ModelIdentity
    created_at: str
    last_updated: str | None
    lsn: int
    store_bytes: int
    index_bytes: int
    """Memory held by the vector and keyword indexes."""
    backup_count: int
    backup_error: str | None
    """Why the last automatic backup failed; it is tried again. None when it did not."""
    vector_index: str
    """`exact` or `rabitq`."""
    n_rows: int
    """Rows in the indexes that are in memory, deleted ones that await compaction included."""
    n_terms: int
    pending_writes: int
    n_stored: int
    """Memories that SQLite counts, of the namespaces whose indexes are in memory."""
    n_vectors: int
    """Living rows of the vector index."""
    n_documents: int
    """Documents of the keyword index. The three counts agree once no write is under way."""
    workspace_id: str | None
    """See `engine.workspace.directory_id`."""
