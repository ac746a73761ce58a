"""What each kind of write does, inside a group's transaction."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from engine.builds import match_chunks, stored_chunks
from engine.errors import NotReadyError
from engine.records import (
    AddOutcome,
    BuildPlan,
    DeletedMemory,
    DeleteOutcome,
    FloatMatrix,
    FloatVector,
    Memory,
    MemoryFilter,
    MemoryId,
    MemoryPatch,
    NewMemory,
    UpsertOutcome,
)
from engine.write_session import WriteSession

_DELETED_TEXT_CHARS = 100


def add(
    session: WriteSession,
    memories: Sequence[NewMemory],
    embeddings: FloatMatrix,
    *,
    dedup_threshold: float,
) -> list[AddOutcome]:
    """Add memories in order; one too similar to a stored or an earlier one is skipped."""
    outcomes: list[AddOutcome] = []
    # The stored ones are asked once for all; what this call adds is compared one by one.
    ids, similarities = session.nearest(embeddings)
    own_ids: list[MemoryId] = []
    own_vectors = np.empty_like(embeddings)
    for at, (memory, vector) in enumerate(zip(memories, embeddings, strict=True)):
        nearest_id, similarity = ids[at], similarities[at]
        if own_ids:
            cosines = own_vectors[: len(own_ids)] @ vector
            best = int(cosines.argmax())
            if cosines[best] > similarity:
                nearest_id, similarity = own_ids[best], float(cosines[best])
        if memory.deduplicate and similarity >= dedup_threshold:
            outcomes.append(
                AddOutcome(id=None, duplicate_of=MemoryId(nearest_id), similarity=similarity)
            )
            continue
        own_vectors[len(own_ids)] = vector
        own_ids.append(session.insert(memory, vector))
        outcomes.append(AddOutcome(id=own_ids[-1]))
    return outcomes


def upsert(session: WriteSession, memory: NewMemory, embedding: FloatVector) -> UpsertOutcome:
    """Replace the memory with this (source, key), or add it."""
    known = session.transaction.id_of_key(memory.source, memory.key or "")
    if known is None:
        return UpsertOutcome(id=session.insert(memory, embedding), created=True)
    old = session.get(known)
    new = dataclasses.replace(old, text=memory.text, metadata=memory.metadata)
    session.replace(old, new, embedding)
    return UpsertOutcome(id=known, created=False)


def update(
    session: WriteSession, memory_id: MemoryId, patch: MemoryPatch, embedding: FloatVector | None
) -> Memory:
    """Change the given fields of a memory."""
    old = session.get(memory_id)
    changes = {
        name: value for name, value in dataclasses.asdict(patch).items() if value is not None
    }
    return session.replace(old, dataclasses.replace(old, **changes), embedding)


def delete(session: WriteSession, ids: Sequence[MemoryId]) -> DeleteOutcome:
    """Delete those that exist; an id given twice counts once."""
    wanted = list(dict.fromkeys(ids))
    found = session.transaction.get_many(wanted)
    session.delete(list(found.values()))
    return DeleteOutcome(
        deleted=[
            DeletedMemory(id=i, text=found[i].text[:_DELETED_TEXT_CHARS])
            for i in wanted
            if i in found
        ],
        missing=[i for i in wanted if i not in found],
    )


def delete_by_source(session: WriteSession, pattern: str) -> int:
    """Delete every memory whose source contains `pattern`; returns how many."""
    doomed = session.matching(MemoryFilter(source=pattern))
    session.delete(doomed)
    return len(doomed)


def delete_unchanged(session: WriteSession, versions: Iterable[tuple[MemoryId, str]]) -> int:
    """Delete the memories that still say what they said; returns how many.

    Args:
        session: the open group.
        versions: (id, text) as they were when the decision was made.
    """
    wanted = dict(versions)
    found = session.transaction.get_many(list(wanted))
    doomed = [memory for memory in found.values() if memory.text == wanted[memory.id]]
    session.delete(doomed)
    return len(doomed)


def apply_build(
    session: WriteSession, plan: BuildPlan, embeddings: FloatMatrix
) -> tuple[int, int, int]:
    """Replace the chunks of the plan's files; returns (added, removed, unchanged).

    Raises:
        NotReadyError: a chunk that was stored when the plan was made is gone.
    """
    stored = stored_chunks(plan.files, session.matching, replace_all=plan.replace_all)
    match = match_chunks(plan.chunks, stored)
    embedding_of = dict(zip(plan.to_embed, embeddings, strict=True))
    if not embedding_of.keys() >= set(match.new):
        raise NotReadyError("these files' memories changed during the build; build again")
    session.delete(match.gone)
    for position, memory in match.kept:
        source = plan.chunks[position].source
        if memory.source != source:
            session.replace(memory, dataclasses.replace(memory, source=source), None)
    for position in match.new:
        chunk = plan.chunks[position]
        session.insert(NewMemory(text=chunk.text, source=chunk.source), embedding_of[position])
    return len(match.new), len(match.gone), len(match.kept)
