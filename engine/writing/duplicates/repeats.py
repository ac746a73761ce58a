"""Which stored memory a text repeats: a decision about its words, helped by its vector."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from engine.records import FloatVector, Memory, MemoryId, Neighbour
from engine.words.sameness import says_the_same
from engine.workspace.passages import file_of

QUOTED_CHARS = 200
"""Of a memory that is named, so many are shown."""


def first_repeated(
    text: str,
    vector: FloatVector,
    candidates: Iterable[Memory],
    vector_of: Callable[[MemoryId], FloatVector],
    *,
    dedup_threshold: float,
) -> Neighbour | None:
    """The first candidate that says the same as a text.

    A passage of a file never does: the next build may take it away.

    Args:
        text: that may be left out.
        vector: of it; all zeros say nothing.
        candidates: earliest first.
        vector_of: gives a candidate's.
        dedup_threshold: cosine of near duplicates.
    """
    for memory in candidates:
        if file_of(memory.source) is not None:
            continue
        other = vector_of(memory.id)
        is_similar = float(vector @ other) >= dedup_threshold
        if says_the_same(text, memory.text, are_similar=is_similar):
            return Neighbour(memory=memory, similarity=similarity_of(vector, other))
    return None


def says_something(vector: FloatVector) -> bool:
    """Whether a vector can be compared: of what the model does not know it is all zeros."""
    return bool(vector.any())


def similarity_of(vector: FloatVector, other: FloatVector) -> float:
    """Cosine of texts that say the same; 1.0 where their vectors say nothing."""
    return float(vector @ other) if says_something(vector) else 1.0
