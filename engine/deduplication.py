"""Deduplication of a whole store: found on a snapshot, removed only where nothing has changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.duplicates import DuplicateGroups, similar_pairs
from engine.errors import NotReadyError
from engine.records import DuplicatePair, MemoryId
from engine.write_session import WriteSession
from engine.writer import LiveState

_SHOWN_PAIRS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """What deduplication would remove."""

    n_pairs: int
    best_pairs: list[DuplicatePair]
    """The most similar ones."""
    later: Sequence[tuple[MemoryId, MemoryId]]
    """Every memory of a group but the earliest, and that one."""
    epoch: str
    lsn: int
    """Of the store when it was compared; it may hold what came a little later too."""


def find_duplicates(state: LiveState, threshold: float) -> Duplicates:
    """Compare all memories, as they are now, outside every lock."""
    with state.store_lock.shared():
        epoch, lsn = state.store.epoch, state.store.lsn
        ids, vectors = state.store.embeddings()
    groups = DuplicateGroups(len(ids))
    n_pairs = 0
    best: list[tuple[float, int, int]] = []
    for i, j, cosines in similar_pairs(vectors, threshold):
        n_pairs += len(i)
        groups.join(i, j)
        few = np.argsort(-cosines, kind="stable")[:_SHOWN_PAIRS]
        best += zip(cosines[few].tolist(), ids[i[few]].tolist(), ids[j[few]].tolist(), strict=True)
        best = sorted(best, key=lambda pair: -pair[0])[:_SHOWN_PAIRS]
    later, earliest = groups.later_members()
    with state.store_lock.shared():
        shown = state.store.get_many([MemoryId(each) for _, *pair in best for each in pair])
    return Duplicates(
        n_pairs=n_pairs,
        best_pairs=[
            DuplicatePair(id_a=a.id, id_b=b.id, similarity=cosine, text_a=a.text, text_b=b.text)
            for cosine, id_a, id_b in best
            if (a := shown.get(MemoryId(id_a))) and (b := shown.get(MemoryId(id_b)))
        ],
        later=list(zip(ids[later].tolist(), ids[earliest].tolist(), strict=True)),
        epoch=epoch,
        lsn=lsn,
    )


def remove_duplicates(session: WriteSession, found: Duplicates) -> int:
    """Delete the later ones that are still as they were, beside an earliest that is; how many.

    Raises:
        NotReadyError: the store was restored since.
    """
    if session.transaction.get_meta("epoch") != found.epoch:
        raise NotReadyError("the store was restored meanwhile; deduplicate again")
    ids = {memory_id for pair in found.later for memory_id in pair}
    unchanged = session.transaction.get_unchanged(list(ids), since_lsn=found.lsn)
    doomed = [
        unchanged[later]
        for later, earliest in found.later
        if later in unchanged and earliest in unchanged
    ]
    session.delete(doomed)
    return len(doomed)
