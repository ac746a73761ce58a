"""One replica of the embedding pool: a model session, its lanes, and a cache of queries."""

from __future__ import annotations

import asyncio
import hashlib
import platform
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from deployments.calls.part_reports import PartReport, own_report
from deployments.embedder.lanes import EmbeddingLanes
from deployments.logs import configure_logging
from deployments.settings import Settings
from engine.errors import EmbeddingError, ModelMismatchError
from engine.model.embedder import Embedder
from engine.model.files import Precision
from engine.records import MAX_WINDOWS, EmbeddedQuery, Embeddings

_QUERY_CHARS = 1_500
"""Longer texts pass bulk work, but wait for queries: several windows take a tenth of a second."""
_MAX_CACHED_PIECES = 32
"""Of a query that is remembered: 24 KiB."""


class EmbedderReplica:
    """What the `Embedder` deployment runs. Its event loop never embeds."""

    def __init__(
        self,
        settings: Settings,
        model_dir: Path,
        precision: Precision,
        *,
        fingerprint: str | None = None,
    ) -> None:
        """Load the model.

        Args:
            settings: bounds, logs.
            model_dir: the same path on every node.
            precision: which graph to run.
            fingerprint: of the weights that the other replicas embed with; None: any will do.

        Raises:
            ModelNotFoundError: it is not set up.
            ModelMismatchError: this node has another model than the rest of the service.
        """
        configure_logging(settings, component="embedder")
        self._embedder = Embedder(model_dir, precision=precision)
        if fingerprint not in (None, self._embedder.identity.fingerprint):
            raise ModelMismatchError(
                f"{model_dir} on {platform.node()} holds other weights than the node that the "
                "application was built on: put the same model on every node"
            )
        self._lanes = EmbeddingLanes(
            self._embedder,
            max_queued_queries=settings.max_queued_queries,
            max_queued_texts=settings.max_queued_texts,
        )
        self._cache = QueryCache(settings.query_cache_size)

    async def embed_query(self, text: str) -> EmbeddedQuery:
        """Embed one query ahead of all bulk work.

        Raises:
            OverloadedError: too many queries wait.
            InvalidInputError: not valid Unicode.
        """
        if (cached := self._cache.get(text)) is not None:
            return cached
        [query] = await self._read([text], is_query=True)
        if len(query.pieces.rows) <= _MAX_CACHED_PIECES:
            self._cache.put(text, query)
        return query

    async def embed_queries(self, texts: Sequence[str]) -> list[EmbeddedQuery]:
        """Embed queries in bulk, in order. Raises as `embed` does."""
        return await self._read(texts, is_query=False)

    async def _read(self, texts: Sequence[str], *, is_query: bool) -> list[EmbeddedQuery]:
        read = await asyncio.wrap_future(
            self._lanes.submit(texts, is_query=is_query, with_rows=True)
        )
        return [
            # A copy: a row of a batch would keep the whole batch in memory.
            self._embedder.as_query(text, vector.copy(), read.rows[at])
            for at, (text, vector) in enumerate(zip(texts, read.embeddings.firsts, strict=True))
        ]

    async def embed_one(self, text: str) -> Embeddings:
        """Embed one text that somebody waits for, ahead of bulk work; up to `MAX_WINDOWS` of it.

        Raises:
            OverloadedError: too many queries wait.
            InvalidInputError: not valid Unicode.
        """
        if (cached := self._cache.get(text)) is not None:
            return Embeddings(firsts=cached.vector[None])
        job = self._lanes.submit(
            [text], is_query=len(text) <= _QUERY_CHARS, max_windows=MAX_WINDOWS
        )
        return (await asyncio.wrap_future(job)).embeddings

    async def embed(self, texts: Sequence[str], max_windows: int) -> Embeddings:
        """Embed texts, in order, up to `max_windows` windows of each.

        Raises:
            OverloadedError: too many texts wait.
            InvalidInputError: one is not valid Unicode.
        """
        job = self._lanes.submit(texts, max_windows=max_windows)
        return (await asyncio.wrap_future(job)).embeddings

    async def report(self) -> PartReport:
        """Work done and waiting, memory and processor time, for the metrics."""
        totals = {**self._lanes.counters(), "query_cache_hits": self._cache.hits}
        return own_report(totals=totals, levels=self._lanes.depths())

    async def check_health(self) -> None:
        """Called by Serve; a replica that raises is replaced."""
        if not self._lanes.is_alive():
            raise EmbeddingError("an embedding thread has died")


class QueryCache:
    """The embeddings of the latest queries, least recently used out first.

    By a hash: what is added passes through here too, and may be 50,000 characters long.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._embeddings: OrderedDict[bytes, EmbeddedQuery] = OrderedDict()
        self.hits = 0

    def get(self, text: str) -> EmbeddedQuery | None:
        """The embedding of a query seen lately."""
        key = _key(text)
        if (query := self._embeddings.get(key)) is not None:
            self._embeddings.move_to_end(key)
            self.hits += 1
        return query

    def put(self, text: str, query: EmbeddedQuery) -> None:
        """Remember a query; forget the oldest beyond the size."""
        self._embeddings[_key(text)] = query
        while len(self._embeddings) > self._size:
            self._embeddings.popitem(last=False)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
