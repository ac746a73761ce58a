"""What the service answers, as far as the tools read it. What it says beyond that is left out.

Not `wire.answers`: a bridge may be newer or older than the service it speaks to.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from mcp_server.tools.results import BatchOutcome


class Record(BaseModel):
    """A memory."""

    id: int
    text: str
    source: str
    timestamp: str
    metadata: dict[str, Any] = {}
    key: str | None = None
    redacted: dict[str, int] | None = None
    """Of an update: secrets that were replaced, by kind."""


class Hit(Record):
    """A memory found."""

    similarity: float
    score: float | None = None
    """How good a hybrid hit is, in 0…1. A service that ranks by fused ranks has none."""

    @property
    def match(self) -> int:
        """How well it matches, in percent."""
        return percent(self.similarity if self.score is None else self.score)


class Found(BaseModel):
    """Answer of /search."""

    results: list[Hit]


class Beginning(BaseModel):
    """How a memory begins that stands beside another."""

    id: int
    text: str


class TimelineMemory(Record):
    """A memory of a timeline; it has scores when there was a query."""

    similarity: float | None = None
    score: float | None = None
    before: Beginning | None = None
    after: Beginning | None = None

    @property
    def match(self) -> int | None:
        """How well it matches, in percent."""
        share = self.similarity if self.score is None else self.score
        return None if share is None else percent(share)


class Day(BaseModel):
    """The memories of a day."""

    date: str
    memories: list[TimelineMemory]


class Timeline(BaseModel):
    """Answer of /timeline."""

    days: list[Day]


class Similar(BaseModel):
    """A memory much like one that was added."""

    id: int
    similarity: float
    text: str


class AddOutcome(BaseModel):
    """Answer of /memory/add; `id` is null for a duplicate."""

    id: int | None
    duplicate_of: int | None = None
    similarity: float | None = None
    duplicate_text: str | None = None
    similar: list[Similar] | None = None
    redacted: dict[str, int] | None = None


class BatchOutcomes(BaseModel):
    """Answer of /memory/add-batch, one outcome per input, in order."""

    results: list[BatchOutcome]


class Page(BaseModel):
    """Answer of /memories."""

    memories: list[Record]
    total: int
    next_cursor: str | None = None


class Novelty(BaseModel):
    """Answer of /memory/is-novel; `most_similar` is null on an empty store."""

    is_novel: bool
    threshold: float
    most_similar: Hit | None
    says_the_same: bool | None = None


def percent(share: float) -> int:
    """A similarity or score as a percentage without decimals."""
    return round(share * 100)
