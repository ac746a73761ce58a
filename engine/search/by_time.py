"""What time has to do with hits: the order they are answered in, and what age takes from a score.

    recency = 1 - weight · (1 - 2^(-age / half_life))

A score is multiplied by it: what is new keeps all of its score, what is a half-life old loses half
of `weight`, and nothing loses more than `weight`. What has no score gets none for being new. No
figures say that this helps: it happens on request alone.
"""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np

from engine.records import IdArray, Memory, Recency, ScoreArray, SearchHit, SearchOrder

_DAY_US: Final = 24 * 3600 * 1_000_000


def recency_of(created_us: IdArray, now_us: int, asked: Recency) -> ScoreArray:
    """What scores are multiplied by, 1 - weight to 1.

    Args:
        created_us: of each memory, microseconds since the epoch; the future counts as now.
        now_us: likewise.
        asked: half-life and weight.
    """
    ages = np.maximum(now_us - created_us, 0) / (asked.half_life_days * _DAY_US)
    recency: ScoreArray = 1 - asked.weight * (1 - np.exp2(-ages))
    return recency


def moment_of(memory: Memory) -> tuple[str, int]:
    """What sorts memories by time; those of one moment by id."""
    return memory.timestamp, memory.id


HitsT = TypeVar("HitsT", bound=list[SearchHit])


def put_in_order(hits: HitsT, order: SearchOrder) -> HitsT:
    """Sort the hits of a search, best first until now, as they are to be answered."""
    if order != "best":
        hits.sort(key=lambda hit: moment_of(hit.memory), reverse=order == "newest")
    return hits
