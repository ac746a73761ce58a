"""What each kind of write does, inside a group's transaction."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from engine.errors import InvalidInputError, NotReadyError
from engine.records import (
    AddOutcome,
    BuildPlan,
    BuildReport,
    Chunk,
    DeletedMemory,
    DeleteOutcome,
    FloatMatrix,
    FloatVector,
    Memory,
    MemoryFilter,
    MemoryId,
    MemoryPatch,
    MoveOutcome,
    NewMemory,
    UpsertOutcome,
)
from engine.workspace.builds import match_chunks, stored_chunks
from engine.workspace.passages import CONTEXT, file_of, text_in_context
from engine.writing.duplicates.nearest_in_write import NearestInWrite
from engine.writing.duplicates.repeats import QUOTED_CHARS
from engine.writing.write_session import WriteSession, all_vectors

_DELETED_TEXT_CHARS = 100
_SHOWN_SIMILAR = 3
_NAMED = 20


def add(
    session: WriteSession,
    memories: Sequence[NewMemory],
    embeddings: FloatMatrix,
    *,
    dedup_threshold: float,
) -> list[AddOutcome]:
    """Add memories in order; one that says the same as a stored or an earlier one is skipped."""
    outcomes: list[AddOutcome] = []
    asked = [i for i, memory in enumerate(memories) if memory.deduplicate]
    nearest = NearestInWrite(
        session, embeddings, asked, at_least=dedup_threshold, n_similar=_SHOWN_SIMILAR
    )
    for at, (memory, vector) in enumerate(zip(memories, embeddings, strict=True)):
        if memory.deduplicate and (repeated := nearest.repeated(at, memory.text)):
            outcomes.append(
                AddOutcome(
                    id=None,
                    duplicate_of=repeated.memory.id,
                    similarity=repeated.similarity,
                    duplicate_text=repeated.memory.text[:QUOTED_CHARS],
                )
            )
            continue
        similar = nearest.similar(at) if memory.deduplicate else []
        new_id = session.insert(memory, vector)
        nearest.note(new_id, vector)
        outcomes.append(AddOutcome(id=new_id, similar=similar))
    return outcomes


def upsert(session: WriteSession, memory: NewMemory, embedding: FloatVector) -> UpsertOutcome:
    """Replace the memory with this (source, key) unless it says the same, or add it."""
    known = session.transaction.id_of_key(memory.source, memory.key or "")
    if known is None:
        return UpsertOutcome(id=session.insert(memory, embedding), created=True)
    old = session.get(known)
    new = dataclasses.replace(old, text=memory.text, metadata=memory.metadata)
    vectors = all_vectors(memory, embedding)
    session.replace(old, new, vectors if text_in_context(new) != text_in_context(old) else None)
    return UpsertOutcome(id=known, created=False)


def update(
    session: WriteSession, memory_id: MemoryId, patch: MemoryPatch, vectors: FloatMatrix | None
) -> Memory:
    """Change the given fields of a memory."""
    old = session.get(memory_id)
    changes = {
        name: value for name, value in dataclasses.asdict(patch).items() if value is not None
    }
    new = dataclasses.replace(old, **changes)
    if patch.metadata is not None and file_of(old.source) is not None:
        # A passage's context is its file's.
        kept = {name: value for name, value in old.metadata.items() if name == CONTEXT}
        given = {name: value for name, value in patch.metadata.items() if name != CONTEXT}
        new = dataclasses.replace(new, metadata=given | kept)
    if new.key is not None and session.transaction.id_of_key(new.source, new.key) not in (
        None,
        memory_id,
    ):
        raise InvalidInputError(
            f"source '{new.source}' has another memory with this one's key; delete that first"
        )
    return session.replace(old, new, vectors if new.text != old.text else None)


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


def delete_by_source(session: WriteSession, where: MemoryFilter) -> int:
    """Delete every memory that passes a filter, which may not be empty; returns how many."""
    if where.is_empty():
        raise InvalidInputError("a filter that every memory passes deletes nothing")
    doomed = session.matching(where)
    session.delete(doomed)
    return len(doomed)


def move(
    session: WriteSession,
    to: WriteSession,
    *,
    ids: Sequence[MemoryId] | None,
    source_prefix: str | None,
) -> MoveOutcome:
    """Put memories into another namespace, by ids or by their sources; all of them or none.

    Raises:
        InvalidInputError: names those whose source and key one has there.
    """
    if session.name == to.name:
        raise InvalidInputError(f"they are in '{to.name}' already")
    if (ids is None) == (source_prefix is None):
        raise InvalidInputError("say which memories: by ids, or by a prefix of their source")
    if ids is None:
        found = session.matching(MemoryFilter(source_prefix=source_prefix))
    else:
        found = list(session.transaction.get_many(list(dict.fromkeys(ids))).values())
    taken = [
        memory.id
        for memory in found
        if memory.key is not None
        and to.transaction.id_of_key(memory.source, memory.key) is not None
    ]
    if taken:
        named = ", ".join(map(str, taken[:_NAMED])) + (", …" if len(taken) > _NAMED else "")
        raise InvalidInputError(f"'{to.name}' has memories with the source and key of: {named}")
    if found:
        session.move(found, to)
    moved = {memory.id for memory in found}
    return MoveOutcome(
        moved=sorted(moved), missing=[i for i in dict.fromkeys(ids or ()) if i not in moved]
    )


def apply_build(
    session: WriteSession, plan: BuildPlan, embeddings: FloatMatrix, *, backup_location: str
) -> BuildReport:
    """Replace the chunks of the plan's files, whose state before is in a backup.

    Raises:
        NotReadyError: a chunk that was stored when the plan was made is gone.
    """
    stored = stored_chunks(plan.files, session.matching, replace_all=plan.replace_all)
    match = match_chunks(plan.chunks, stored)
    embedding_of = dict(zip(plan.to_embed, embeddings, strict=True))
    if not embedding_of.keys() >= {*match.new, *(position for position, _ in match.moved)}:
        raise NotReadyError("these files' memories changed during the build; build again")
    session.delete(match.gone)
    moved = {position: embedding_of[position][None] for position, _ in match.moved}
    for position, memory in [*match.kept, *match.moved]:
        _rewrite(session, memory, plan.chunks[position], moved.get(position))
    for position in match.new:
        chunk = plan.chunks[position]
        new = NewMemory(text=chunk.text, source=chunk.source, metadata=chunk.metadata)
        session.insert(new, embedding_of[position])
    return BuildReport(
        files_processed=len(plan.files),
        memories_added=len(match.new) + len(moved),
        memories_removed=len(match.gone) + len(moved),
        unchanged=len(match.kept),
        skipped=plan.skipped,
        backup_location=backup_location,
    )


def _rewrite(
    session: WriteSession, memory: Memory, chunk: Chunk, vectors: FloatMatrix | None
) -> None:
    """Have a memory be a chunk with the same text; it keeps what people have noted on it."""
    noted = {name: value for name, value in memory.metadata.items() if name != CONTEXT}
    wanted = dataclasses.replace(memory, source=chunk.source, metadata=noted | chunk.metadata)
    session.replace(memory, wanted, vectors)
