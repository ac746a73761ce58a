"""The texts that the tools answer with, exactly as clients know them.

Pure functions of structured results. What memories say is quoted: see `quoting`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from mcp_server.tools import results
from mcp_server.tools.quoting import one_line, one_line_json, quoted, quoted_preview

LIST_PREVIEW_CHARS = 150
QUOTE_CHARS = 200
"""How much is quoted of a memory that an added or tested text is like."""
BESIDE_CHARS = 100
"""How much is shown of what stands beside a memory; with less room than this, nothing:"""
LEAST_BESIDE_CHARS = 20
MOST_SKIPPED = 20
"""Skipped memories of a batch that are named in its text."""


def searched(query: str, found: results.Searched, *, with_dates: bool = False) -> str:
    """Search results, in their order."""
    if not found.results:
        return f'No memories found for: "{query}"'
    entries = "\n\n---\n\n".join(
        quoted(
            f"[{n}] ({hit.match}%) {hit.source} (id: {hit.id})"
            f"{f' — {hit.date}' if with_dates else ''}\n{hit.text}"
        )
        for n, hit in enumerate(found.results, start=1)
    )
    left_out = found.left_out or 0
    text = f'Found {len(found.results) + left_out} memories for "{query}":\n\n{entries}'
    if left_out:
        text += f"\n\n… {left_out} more results left out: raise max_chars, or search with less k."
    return text


def timeline(found: results.Timeline) -> str:
    """Memories in order of time, each with its date."""
    memories = [memory for day in found.days for memory in day.memories]
    if not memories:
        return "No memories found."
    entries = "\n\n---\n\n".join(map(_timeline_entry, memories))
    left_out = found.left_out or 0
    text = f"Found {len(memories) + left_out} memories:\n\n{entries}"
    if left_out:
        text += f"\n\n… {left_out} more results left out: raise max_chars, or ask with less k."
    return text


def _timeline_entry(memory: results.TimelineMemory) -> str:
    match = "" if memory.match is None else f" ({memory.match}%)"
    text = quoted(f"[{memory.id}] {memory.source} — {memory.date}{match}\n{memory.text}")
    for place, beside in (("Before", memory.before), ("After", memory.after)):
        if beside is not None:
            text += f"\n{place} it: [{beside.id}] {one_line(beside.text)}"
    return text


def added(outcome: results.Added, source: str) -> str:
    """One memory added, or found to be a duplicate."""
    return _added(outcome, source) + _redacted(outcome.redacted)


def _added(outcome: results.Added, source: str) -> str:
    if outcome.id is None:
        text = "Duplicate skipped — a very similar memory already exists."
        if outcome.duplicate_text is None:
            return text
        head = f"[{outcome.duplicate_of}]"
        if outcome.match is not None:
            head += f" ({outcome.match}%)"
        return f"{text}\n{quoted_preview(f'{head} {outcome.duplicate_text}')}"
    text = f"Memory added (id: {outcome.id}) from {one_line(source)}"
    if outcome.similar:
        text += "\nSimilar memories:"
        for each in outcome.similar:
            text += "\n" + quoted_preview(f"[{each.id}] ({each.match}%) {each.text}")
    return text


def added_batch(outcomes: Sequence[results.BatchOutcome]) -> str:
    """Several memories added, duplicates aside."""
    ids = [outcome.id for outcome in outcomes if outcome.id is not None]
    skipped = len(outcomes) - len(ids)
    text = f"Added {len(ids)} memories"
    if ids:
        text += f" (ids: {', '.join(map(str, ids))})"
    if skipped:
        text += f"; {skipped} skipped as duplicates of memories that already exist"
    found = Counter[str]()
    for outcome in outcomes:
        found.update(outcome.redacted or {})
    return "\n".join([f"{text}.", *_repeats(outcomes)]) + _redacted(found)


def _redacted(found: Mapping[str, int] | None) -> str:
    """A line about secrets that were replaced, where there were any."""
    if not found:
        return ""
    return f"\nSecrets replaced: {', '.join(f'{kind} ({n})' for kind, n in sorted(found.items()))}."


def _repeats(outcomes: Sequence[results.BatchOutcome]) -> list[str]:
    named = [
        f"Item {n} repeats memory {outcome.duplicate_of}."
        for n, outcome in enumerate(outcomes, start=1)
        if outcome.duplicate_of is not None
    ]
    more = len(named) - MOST_SKIPPED
    return named if more <= 0 else [*named[:MOST_SKIPPED], f"… {more} more repeat others."]


def deleted(memory_id: int, deleted_text: str) -> str:
    """One memory deleted."""
    return quoted_preview(f'Deleted memory {memory_id}: "{deleted_text}"')


def deleted_by_source(which: str, count: int) -> str:
    """Every memory of matching sources deleted."""
    if not count:
        return f"No memories have a source that {which}. Nothing was deleted."
    return f"Deleted {count} memories whose source {which}."


def updated(memory: results.Updated) -> str:
    """One memory changed."""
    return f"Updated memory {memory.id} from {memory.source}{_redacted(memory.redacted)}"


def listed(page: results.Listed, offset: int, *, by_cursor: bool) -> str:
    """A page of memories, oldest first; how to read on when it was cut, or reached by a cursor."""
    if not page.memories:
        return "No memories found."
    entries = "\n".join(map(_list_entry, page.memories))
    last = offset + len(page.memories)
    text = f"Memories ({offset + 1}-{last} of {page.total}):\n\n{entries}"
    where = f"cursor {page.next_cursor}" if by_cursor else f"offset {last}"
    if page.left_out:
        text += f"\n\n… {page.left_out} more of this page left out: ask again with {where}."
    elif by_cursor and page.next_cursor:
        text += f"\n\n… {page.total - last} more: ask again with {where}."
    return text


def _list_entry(memory: results.Memory) -> str:
    """Ends with an ellipsis also where nothing follows."""
    ellipsis = "" if len(memory.text) > LIST_PREVIEW_CHARS else "…"
    return quoted_preview(f"[{memory.id}] {memory.source} — {memory.text}{ellipsis}")


def got(memory: results.Got, timestamp: str) -> str:
    """One memory, whole or from where the reader asked."""
    head = f"[{memory.id}] {memory.source} — {timestamp}"
    text = quoted(f"{head}\n{memory.text}")
    if memory.metadata is not None:
        text += f"\nMetadata: {one_line_json(memory.metadata)}"
    return text


def stats(answer: results.StoreStats) -> str:
    """The state of the store."""
    return (
        f"Total memories: {answer.total_memories}\n"
        f"Model: {answer.model}\n"
        f"Dimensions: {answer.dimension}\n"
        f"Index size: {answer.index_size_bytes / 1024:.0f}KB\n"
        f"Backups: {answer.backup_count}\n"
        f"Last updated: {answer.last_updated or 'never'}"
    )


def novel(answer: results.Novelty) -> str:
    """Whether a text says something new."""
    nearest = answer.most_similar
    if answer.is_novel or nearest is None:
        return "Novel — no similar memory exists. Safe to add."
    entry = quoted_preview(f"[{nearest.id}] {nearest.source}: {nearest.text}")
    text = f"Not novel — similar memory exists ({nearest.match}% match):\n{entry}"
    if answer.says_the_same is False:
        text += "\nNot the same — it differs in what it says, and memory_add would store it."
    return text
