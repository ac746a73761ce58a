"""Deduplication of a whole store: found outside every lock, removed only where nothing changed.

What files own takes no part: the next build would bring it back.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice, pairwise
from typing import Literal

import numpy as np

from engine.errors import NotReadyError
from engine.records import DuplicatePair, FloatVector, Memory, MemoryFilter, MemoryId
from engine.words.sameness import gist_digest, says_the_same
from engine.workspace.passages import file_of
from engine.writing.duplicates.repeats import similarity_of
from engine.writing.duplicates.similar_pairs import KeptRows, similar_pairs
from engine.writing.live_state import LiveState
from engine.writing.write_session import WriteSession

DuplicateRule = Literal["same", "similarity"]
"""What makes two memories duplicates: that they say the same, or their cosine alone."""

_SHOWN_PAIRS = 20
_PAGE = 1_000

_Group = list[tuple[Memory, FloatVector]]
"""Memories that say the same as the first of them, and their vectors."""


@dataclass(slots=True, kw_only=True)
class Duplicates:
    """What deduplication would remove."""

    epoch: str
    lsn: int
    """Of the store when it was compared; it may hold what came a little later too."""
    n_pairs: int = 0
    best_pairs: list[DuplicatePair] = field(default_factory=list)
    """The most similar ones."""
    later: list[tuple[MemoryId, MemoryId]] = field(default_factory=list)
    """Every memory that can go, and the earlier one that it is a duplicate of and that stays."""

    def note(self, n_pairs: int, shown: Sequence[DuplicatePair]) -> None:
        """There are more pairs, the best ones of them to be shown."""
        self.n_pairs += n_pairs
        pairs = sorted([*self.best_pairs, *shown], key=lambda pair: -pair.similarity)
        self.best_pairs = pairs[:_SHOWN_PAIRS]


def find_duplicates(
    state: LiveState, namespace: str, threshold: float, by: DuplicateRule
) -> Duplicates:
    """Compare all memories of a namespace, as they are now."""
    with state.store_lock.shared():
        found = Duplicates(epoch=state.store.epoch, lsn=state.store.lsn)
    if by == "same":
        _find_same(state, namespace, threshold, found)
    else:
        _find_similar(state, namespace, threshold, found)
    return found


def _deliberate(state: LiveState, namespace: str) -> Iterator[tuple[MemoryId, str]]:
    """Id and text of every memory that no file owns, by id."""
    with state.store_lock.shared():
        ids = state.store.ids_where(MemoryFilter(), state.id_of(namespace)).tolist()
    for start in range(0, len(ids), _PAGE):
        with state.store_lock.shared():
            page = state.store.get_many(ids[start : start + _PAGE], state.id_of(namespace))
        yield from ((m.id, m.text) for m in page.values() if file_of(m.source) is None)


# By what they say: only memories of one gist are compared


def _find_same(state: LiveState, namespace: str, threshold: float, found: Duplicates) -> None:
    ids, gists = array("q"), array("Q")
    for memory_id, text in _deliberate(state, namespace):
        ids.append(memory_id)
        gists.append(int.from_bytes(gist_digest(text), "little"))
    order = np.argsort(np.array(gists, dtype=np.uint64), kind="stable")
    sorted_gists = np.array(gists, dtype=np.uint64)[order]
    borders = np.flatnonzero(sorted_gists[1:] != sorted_gists[:-1]) + 1
    for start, end in pairwise([0, *borders.tolist(), len(ids)]):
        if end - start > 1:
            of_one_gist = [MemoryId(ids[at]) for at in order[start:end].tolist()]
            for group in _groups_that_say_the_same(state, namespace, of_one_gist, threshold):
                _note_group(found, group)


def _groups_that_say_the_same(
    state: LiveState, namespace: str, ids: Sequence[MemoryId], threshold: float
) -> list[_Group]:
    """Put each memory to the first one, of those that stay, that it says the same as."""
    groups: list[_Group] = []
    for memory, vector in _with_vectors(state, namespace, ids):
        for group in groups:
            first, of_first = group[0]
            is_similar = float(vector @ of_first) >= threshold
            if says_the_same(memory.text, first.text, are_similar=is_similar):
                group.append((memory, vector))
                break
        else:
            groups.append([(memory, vector)])
    return groups


def _with_vectors(state: LiveState, namespace: str, ids: Sequence[MemoryId]) -> _Group:
    with state.reading(namespace) as view:
        memories = view.store.get_many(ids, view.namespace_id)
        return [
            (memories[i], view.index.vector_of(i)) for i in ids if i in memories and i in view.index
        ]


def _note_group(found: Duplicates, group: _Group) -> None:
    (earliest, _), *later = group
    found.later += [(memory.id, earliest.id) for memory, _ in later]
    shown = [
        _pair(a, b, similarity_of(of_a, of_b))
        for (a, of_a), (b, of_b) in islice(combinations(group, 2), _SHOWN_PAIRS)
    ]
    found.note(len(group) * len(later) // 2, shown)


# By their vectors alone


def _find_similar(state: LiveState, namespace: str, threshold: float, found: Duplicates) -> None:
    deliberate = np.array(
        [memory_id for memory_id, _ in _deliberate(state, namespace)], dtype=np.int64
    )
    with state.store_lock.shared():
        namespace_id = state.id_of(namespace)
        ids, vectors = state.store.embeddings(namespace_id)
    keep = np.isin(ids, deliberate, assume_unique=True)
    if not keep.all():
        ids, vectors = ids[keep], vectors[keep]
    rows = KeptRows(len(ids))
    for i, j, cosines in similar_pairs(vectors, threshold):
        rows.leave_out(i, j)
        few = np.argsort(-cosines, kind="stable")[:_SHOWN_PAIRS]
        best = zip(ids[i[few]].tolist(), ids[j[few]].tolist(), cosines[few].tolist(), strict=True)
        with state.store_lock.shared():
            shown_ids = ids[np.concatenate([i[few], j[few]])].tolist()
            shown = state.store.get_many(shown_ids, namespace_id)
        pairs = [_pair(shown[a], shown[b], cosine) for a, b, cosine in best if {a, b} <= set(shown)]
        found.note(len(i), pairs)
    later, earlier = rows.left_out()
    found.later += zip(ids[later].tolist(), ids[earlier].tolist(), strict=True)


def _pair(a: Memory, b: Memory, similarity: float) -> DuplicatePair:
    return DuplicatePair(id_a=a.id, id_b=b.id, similarity=similarity, text_a=a.text, text_b=b.text)


def remove_duplicates(session: WriteSession, found: Duplicates) -> int:
    """Delete the later ones that are still as they were, beside an earlier that is; how many.

    Raises:
        NotReadyError: the store was restored since.
    """
    if session.transaction.get_meta("epoch") != found.epoch:
        raise NotReadyError("the store was restored meanwhile; deduplicate again")
    ids = {memory_id for pair in found.later for memory_id in pair}
    unchanged = session.transaction.get_unchanged(list(ids), since_lsn=found.lsn)
    doomed = [
        unchanged[later]
        for later, earlier in found.later
        if later in unchanged and earlier in unchanged
    ]
    session.delete(doomed)
    return len(doomed)
