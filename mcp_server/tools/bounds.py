"""Bounds on answers: what is cut, and how much is sent.

Hosts hand a model the text of a result, its structured content, or both; a bound counts both, as
the JSON that is sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from mcp_server.tools.answers import Record
from mcp_server.tools.quoting import one_line, without_cut_notes
from mcp_server.tools.results import Result

Answer = tuple[str, Result]
"""The text of a result and its structured content."""

LEAST_TEXT_CHARS = 200
"""A bounded entry keeps at least this much of its text; entries that do not fit are dropped."""
ENTRY_OVERHEAD_CHARS = 120
"""Room an entry takes besides source and text: rank, score, id, rule, continuation note."""
LEAST_LABEL_CHARS = 20
METADATA_CHARS = 2000
"""Longer metadata is only shown by memory_get."""
LEAST_METADATA_CHARS = 100
"""With less room for metadata nothing is said of it."""
ENVELOPE_CHARS = 240
"""What a tool's result takes beside its text and its structured content."""


def sent_chars(answer: Answer) -> int:
    """Characters of an answer as the JSON that is sent."""
    text, result = answer
    return ENVELOPE_CHARS + json_chars(text) + json_chars(result.lean())


def fitted(render: Callable[[int], Answer], max_chars: int) -> Answer:
    """The fullest answer of which at most `max_chars` characters are sent.

    Args:
        render: makes the answer with so much room for what is stored; less room, less of it.
        max_chars: what an answer made with no room does not reach.
    """
    fullest = render(max_chars)
    if sent_chars(fullest) <= max_chars:
        return fullest
    best, fits, too_much = render(0), 0, max_chars
    while too_much - fits > max_chars // 100:
        room = (fits + too_much) // 2
        answer = render(room)
        if sent_chars(answer) <= max_chars:
            best, fits = answer, room
        else:
            too_much = room
    return best


def beginning(text: str, max_chars: int) -> str:
    """The first characters of a text, and an ellipsis when there are more."""
    return text if len(text) <= max_chars else f"{text[:max_chars]}…"


def label(text: str, room: int) -> str:
    """A query or a source, shortened where it would take half of the room."""
    longest = max(LEAST_LABEL_CHARS, room // 2)
    return text if len(text) <= longest else one_line(beginning(text, longest))


def excerpts(memories: Sequence[Record], room: int) -> list[str]:
    """The texts of the first memories, the longest cut until all together fit.

    Short texts stay whole. When not even the beginnings fit, memories at the end have none.
    """
    costs = [
        ENTRY_OVERHEAD_CHARS + len(memory.source) + json_chars(hit_metadata(memory, room))
        for memory in memories
    ]
    spare = room - sum(costs)
    n_kept = len(memories)
    while n_kept > 1 and spare < LEAST_TEXT_CHARS * n_kept:
        n_kept -= 1
        spare += costs[n_kept]
    kept = memories[:n_kept]
    cap = max(0, _fair_cap([len(memory.text) for memory in kept], spare))
    return [excerpt(memory.text, memory.id, start=0, max_chars=cap) for memory in kept]


def excerpt(text: str, memory_id: int, *, start: int, max_chars: int) -> str:
    """At most `max_chars` characters of a text, and where it goes on."""
    end = start + max_chars
    part = without_cut_notes(text[start:end])
    if len(text) <= end:
        return part
    rest = len(text) - end
    return f"{part}… [{rest} more characters: memory_get id={memory_id} start={end}]"


def hit_metadata(memory: Record, room: int) -> dict[str, Any] | None:
    """The metadata of one memory among several."""
    return metadata(memory, min(METADATA_CHARS, room // 4), f"memory_get id={memory.id}")


def metadata(memory: Record, max_chars: int, advice: str) -> dict[str, Any] | None:
    """A memory's metadata; in the place of what is too long, how to read it. None for none."""
    size = json_chars(memory.metadata)
    if memory.metadata and size > max_chars >= LEAST_METADATA_CHARS:
        return {"left_out": f"{size} characters: {advice}"}
    return memory.metadata if memory.metadata and size <= max_chars else None


def json_chars(value: Any) -> int:  # noqa: ANN401 - JSON
    """Characters of a value as JSON."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


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
