"""What the routes work with: the two clients, the settings, the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from starlette.requests import Request

from deployments.clients import EmbedderClient, IndexClient
from deployments.ingress_settings import IngressSettings
from deployments.metrics import IngressMetrics
from deployments.request_trace import RequestTrace
from engine.errors import OverloadedError
from engine.records import FloatMatrix, FloatVector


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

    async def embed_query(self, text: str, trace: RequestTrace) -> FloatVector:
        """Embed one text in the query lane, so that no bulk work delays a single add or search."""
        with trace.stage("embed"):
            return await self.embedder.embed_query(text)

    async def embed(self, texts: Sequence[str], trace: RequestTrace) -> FloatMatrix:
        """Embed any number of texts in order, in slices that the pool shares out.

        Returns:
            Shape (len(texts), dim); (0, dim) without texts.
        """
        if not texts:
            return np.empty((0, self.settings.dim), dtype=np.float32)
        size = self.settings.embed_slice
        free = asyncio.Semaphore(self.settings.embed_concurrency)

        async def embed_slice(start: int) -> FloatMatrix:
            async with free:
                return await self.embedder.embed(texts[start : start + size])

        with trace.stage("embed"):
            parts = await asyncio.gather(*map(embed_slice, range(0, len(texts), size)))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def services_of(request: Request) -> Services:
    """The services of the application that serves `request`."""
    return cast(Services, request.app.state.services)
