"""What the ingress may ask of the other deployments.

It depends on these two protocols alone, so that tests hand it in-process fakes. Every method may
raise any `engine.errors.EngineError` but those its docstring excludes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from deployments.calls.part_reports import PartReport
from engine.operations.operation import Operation
from engine.records import EmbeddedQuery, Embeddings

T = TypeVar("T")


class EmbedderClient(Protocol):
    """The embedding pool."""

    async def embed_query(self, text: str) -> EmbeddedQuery:
        """Embed one query in the lane that bulk work does not delay; repeated ones are cached."""

    async def embed_queries(self, texts: Sequence[str]) -> list[EmbeddedQuery]:
        """Embed queries in bulk, in order."""

    async def embed_one(self, text: str) -> Embeddings:
        """Embed one text that somebody waits for, ahead of bulk work."""

    async def embed(self, texts: Sequence[str], max_windows: int = 1) -> Embeddings:
        """Embed texts in bulk, in order, up to `max_windows` windows of each."""

    async def embed_long(self, texts: Sequence[str], max_windows: int = 1) -> Embeddings:
        """The same for work that nobody waits for by the clock, such as an import."""

    async def reports(self) -> Sequence[PartReport]:
        """What each replica says of itself, for the metrics."""


class IndexClient(Protocol):
    """The single-writer index actor. What can be asked: `engine.operations`."""

    async def ask(self, operation: Operation[T]) -> T:
        """Have an operation run; its answer."""
