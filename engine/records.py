"""The values that cross the engine's border, and the names of its array shapes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NewType

import numpy as np
import numpy.typing as npt

MemoryId = NewType("MemoryId", int)

FloatVector = npt.NDArray[np.float32]
"""Shape (dim,), float32, L2-normalised."""

FloatMatrix = npt.NDArray[np.float32]
"""Shape (n, dim), float32, each row L2-normalised."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFilter:
    """Which memories take part. Every given condition must hold."""

    source: str | None = None
    """Case-sensitive substring of the source."""
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
class SearchQuery:
    """One search, its query already embedded."""

    text: str
    k: int = 5
    hybrid: bool = True
    threshold: float | None = None
    """Least cosine similarity of a hit; None keeps every hit."""
    vector_weight: float = 0.7
    where: MemoryFilter = field(default_factory=MemoryFilter)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchHit:
    """One memory found, with the scores that ranked it."""

    memory: Memory
    similarity: float
    """Cosine of query and memory, in both modes."""
    rrf_score: float | None = None
    """Weighted reciprocal rank fusion score; None unless hybrid."""
    bm25_score: float | None = None
    """Okapi score, 0.0 without a matching term; None unless hybrid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddOutcome:
    """What became of one memory of an add."""

    id: MemoryId | None
    """The new id; None for a duplicate."""
    duplicate_of: MemoryId | None = None
    similarity: float | None = None
    """Cosine with the memory it duplicates."""
