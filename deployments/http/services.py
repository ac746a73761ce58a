"""What the routes work with: the two clients, the settings, the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeVar, cast

import numpy as np
from starlette.requests import Request

from deployments.calls.protocols import EmbedderClient, IndexClient
from deployments.http.metrics import IngressMetrics
from deployments.http.request_trace import RequestTrace
from deployments.ingress_settings import IngressSettings
from engine.errors import OverloadedError
from engine.records import MAX_WINDOWS, EmbeddedQuery, Embeddings

T = TypeVar("T")

_WINDOWS_A_REQUEST = 64
"""A second of work on two cores."""

_SLICE_CHARS = 1 << 18
"""At most a MiB of text, and not much more of embeddings."""


@dataclass(slots=True)
class LastCount:
    """How many memories the index last said there were; None until it has answered."""

    value: int | None = None


class ImportGate:
    """What the imports of one ingress share: how many may run, and their places at the pool."""

    def __init__(self, max_streams: int, embed_concurrency: int) -> None:
        self._n_free = max_streams
        self.embedding = asyncio.Semaphore(embed_concurrency)
        """First come, first served: no import starves another."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Take a place for one import. Raises `OverloadedError` when there is none."""
        if not self._n_free:
            raise OverloadedError("as many imports as may be are running; try again later")
        self._n_free -= 1
        try:
            yield
        finally:
            self._n_free += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything a route needs, made once by `create_app`."""

    settings: IngressSettings
    embedder: EmbedderClient
    index: IndexClient
    metrics: IngressMetrics
    imports: ImportGate
    last_count: LastCount = field(default_factory=LastCount)

    async def embed_query(self, text: str, trace: RequestTrace) -> EmbeddedQuery:
        """Embed one query in a lane of its own, so that no bulk work delays it."""
        with trace.stage("embed"):
            return await self.embedder.embed_query(text)

    async def embed_queries(self, texts: Sequence[str], trace: RequestTrace) -> list[EmbeddedQuery]:
        """Embed any number of queries in order."""
        with trace.stage("embed"):
            parts = await self._in_slices(self.embedder.embed_queries, texts)
        return [query for part in parts for query in part]

    async def embed_one(self, text: str, trace: RequestTrace) -> Embeddings:
        """Embed one text to be stored, ahead of bulk work."""
        with trace.stage("embed"):
            return await self.embedder.embed_one(text)

    async def embed(
        self, texts: Sequence[str], trace: RequestTrace, *, is_long: bool = False
    ) -> Embeddings:
        """Embed any number of texts in order, in slices that the pool shares out.

        Of few long ones all windows that a request can wait for; the index sees to the others.
        With `is_long` a busy pool is waited for as long as a build is.
        """
        if not texts:
            return Embeddings(firsts=np.empty((0, self.settings.dim), dtype=np.float32))
        max_windows = min(MAX_WINDOWS, max(1, _WINDOWS_A_REQUEST // len(texts)))

        def embed(part: Sequence[str]) -> Awaitable[Embeddings]:
            embed_part = self.embedder.embed_long if is_long else self.embedder.embed
            return embed_part(part, max_windows)

        with trace.stage("embed"):
            return joined(await self._in_slices(embed, texts))

    async def _in_slices(
        self, embed: Callable[[Sequence[str]], Awaitable[T]], texts: Sequence[str]
    ) -> list[T]:
        slices = _slices(texts, self.settings.embed_slice)
        free = asyncio.Semaphore(self.settings.embed_concurrency)

        async def embed_slice(part: Sequence[str]) -> T:
            async with free:
                return await embed(part)

        return await asyncio.gather(*map(embed_slice, slices))


def joined(parts: Sequence[Embeddings]) -> Embeddings:
    """The embeddings of several runs of texts as those of all of them."""
    if len(parts) == 1:
        return parts[0]
    starts = accumulate((len(part.firsts) for part in parts), initial=0)
    return Embeddings(
        firsts=np.concatenate([part.firsts for part in parts]),
        later={
            start + at: vectors
            for start, part in zip(starts, parts, strict=False)
            for at, vectors in part.later.items()
        },
    )


def _slices(texts: Sequence[str], max_texts: int) -> Iterator[Sequence[str]]:
    """Consecutive texts, at most so many and, unless it is one alone, so many characters."""
    start = n_chars = 0
    for at, text in enumerate(texts):
        if at - start == max_texts or (at > start and n_chars + len(text) > _SLICE_CHARS):
            yield texts[start:at]
            start, n_chars = at, 0
        n_chars += len(text)
    yield texts[start:]


def services_of(request: Request) -> Services:
    """The services of the application that serves `request`."""
    return cast(Services, request.app.state.services)
