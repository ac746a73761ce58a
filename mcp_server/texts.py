"""The texts that the tools answer with, exactly as clients know them, and their bounds.

Pure functions of the service's answers. A text that would exceed `max_chars` is shortened, and
says what was left out and how to get it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
"""A memory as the service gives it."""

LIST_PREVIEW_CHARS = 150
NOVEL_PREVIEW_CHARS = 200
LEAST_TEXT_CHARS = 200
"""A bounded entry keeps at least this much of its text; entries that do not fit are dropped."""
ENTRY_OVERHEAD_CHARS = 120
"""Room an entry takes besides source and text: rank, score, id, rule, continuation note."""
METADATA_CHARS = 2000
"""Longer metadata is only shown by memory_get."""


def searched(query: str, memories: Sequence[Record], left_out: int = 0) -> str:
    """Search results, best first."""
    if not memories:
        return f'No memories found for: "{query}"'
    entries = "\n\n---\n\n".join(
        f"[{n}] ({percent(memory['similarity'])}) {memory['source']} (id: {memory['id']})\n"
        f"{memory['text']}"
        for n, memory in enumerate(memories, start=1)
    )
    found = len(memories) + left_out
    text = f'Found {found} memories for "{query}":\n\n{entries}'
    if left_out:
        text += f"\n\n… {left_out} more results left out: raise max_chars, or search with less k."
    return text


def added(memory_id: int | None, source: str) -> str:
    """One memory added, or found to be a duplicate."""
    if memory_id is None:
        return "Duplicate skipped — a very similar memory already exists."
    return f"Memory added (id: {memory_id}) from {source}"


def added_batch(results: Sequence[Mapping[str, int | None]]) -> str:
    """Several memories added, duplicates aside."""
    ids = [result["id"] for result in results if result["id"] is not None]
    skipped = len(results) - len(ids)
    text = f"Added {len(ids)} memories"
    if ids:
        text += f" (ids: {', '.join(map(str, ids))})"
    if skipped:
        text += f"; {skipped} skipped as duplicates of memories that already exist"
    return f"{text}."


def deleted(memory_id: int, deleted_text: str) -> str:
    """One memory deleted."""
    return f'Deleted memory {memory_id}: "{deleted_text}"'


def deleted_by_source(pattern: str, count: int) -> str:
    """Every memory of matching sources deleted."""
    if not count:
        return f'No memories have a source containing "{pattern}". Nothing was deleted.'
    return f'Deleted {count} memories whose source contains "{pattern}".'


def updated(memory: Record) -> str:
    """One memory changed."""
    return f"Updated memory {memory['id']} from {memory['source']}"


def listed(memories: Sequence[Record], offset: int, total: int, left_out: int = 0) -> str:
    """A page of memories, oldest first."""
    if not memories:
        return "No memories found."
    entries = "\n".join(
        f"[{memory['id']}] {memory['source']} — {memory['text'][:LIST_PREVIEW_CHARS]}…"
        for memory in memories
    )
    last = offset + len(memories)
    text = f"Memories ({offset + 1}-{last} of {total}):\n\n{entries}"
    if left_out:
        text += f"\n\n… {left_out} more of this page left out: ask again with offset {last}."
    return text


def got(memory: Record) -> str:
    """One memory, whole or from where the reader asked."""
    text = f"[{memory['id']}] {memory['source']} — {memory['timestamp']}\n{memory['text']}"
    if memory.get("metadata"):
        text += f"\nMetadata: {json.dumps(memory['metadata'], ensure_ascii=False)}"
    return text


def stats(answer: Mapping[str, Any]) -> str:
    """The state of the store."""
    return (
        f"Total memories: {answer['total_memories']}\n"
        f"Model: {answer['model']}\n"
        f"Dimensions: {answer['dimension']}\n"
        f"Index size: {answer['index_size_bytes'] / 1024:.0f}KB\n"
        f"Backups: {answer['backup_count']}\n"
        f"Last updated: {answer['last_updated'] or 'never'}"
    )


def novel(is_novel: bool, most_similar: Record | None) -> str:
    """Whether a text says something new."""
    if is_novel or most_similar is None:
        return "Novel — no similar memory exists. Safe to add."
    return (
        f"Not novel — similar memory exists ({percent(most_similar['similarity'])} match):\n"
        f"[{most_similar['id']}] {most_similar['source']}: "
        f"{most_similar['text'][:NOVEL_PREVIEW_CHARS]}"
    )


def percent(similarity: float) -> str:
    """A cosine as a percentage without decimals."""
    return f"{similarity * 100:.0f}%"


def bounded(memories: Sequence[Record], max_chars: int) -> tuple[list[dict[str, Any]], int]:
    """Shorten the longest texts until all memories together fit.

    Short texts stay whole. When not even the beginnings fit, memories at the end are dropped.

    Returns:
        The memories that fit, each shortened one ending with how to read on, and how many
        were dropped.
    """
    kept = [_light(memory) for memory in memories]
    room = max_chars - sum(_overhead(memory) for memory in kept)
    while len(kept) > 1 and room < LEAST_TEXT_CHARS * len(kept):
        room += _overhead(kept.pop())
    cap = max(LEAST_TEXT_CHARS, _fair_cap([len(memory["text"]) for memory in kept], room))
    for memory in kept:
        memory["text"] = excerpt(memory["text"], memory["id"], start=0, max_chars=cap)
    return kept, len(memories) - len(kept)


def excerpt(text: str, memory_id: int, *, start: int, max_chars: int) -> str:
    """At most `max_chars` characters of a text, and where it goes on."""
    end = start + max_chars
    if len(text) <= end:
        return text[start:]
    rest = len(text) - end
    return f"{text[start:end]}… [{rest} more characters: memory_get id={memory_id} start={end}]"


def _light(memory: Record) -> dict[str, Any]:
    """A copy without metadata too long to repeat in a list of memories."""
    copy = dict(memory)
    size = len(json.dumps(copy.get("metadata") or {}, ensure_ascii=False))
    if size > METADATA_CHARS:
        copy["metadata"] = {"left_out": f"{size} characters: memory_get id={copy['id']}"}
    return copy


def _overhead(memory: Record) -> int:
    metadata = json.dumps(memory.get("metadata") or {}, ensure_ascii=False)
    return ENTRY_OVERHEAD_CHARS + len(memory["source"]) + len(metadata)


def _fair_cap(lengths: Sequence[int], room: int) -> int:
    """The longest text allowed so that all of them, cut to it, fit into `room`."""
    remaining = room
    ascending = sorted(lengths)
    for position, length in enumerate(ascending):
        share = remaining // (len(ascending) - position)
        if length > share:
            return share
        remaining -= length
    return max(ascending, default=0)
