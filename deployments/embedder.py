"""One replica of the embedding pool: a model session, its lanes, and a cache of queries."""

from __future__ import annotations

import asyncio
import hashlib
import platform
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from deployments.embedding_lanes import EmbeddingLanes
from deployments.logs import configure_logging
from deployments.settings import Settings
from engine.embedder import Embedder
from engine.errors import EmbeddingError, ModelMismatchError
from engine.model_files import Precision
from engine.records import FloatMatrix, FloatVector


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

    async def embed_query(self, text: str) -> FloatVector:
        """Embed one query ahead of all bulk work; shape (dim,).

        Raises:
            OverloadedError: too many queries wait.
            InvalidInputError: not valid Unicode.
        """
        if (cached := self._cache.get(text)) is not None:
            return cached
        rows = await asyncio.wrap_future(self._lanes.submit([text], is_query=True))
        embedding: FloatVector = rows[0]
        self._cache.put(text, embedding)
        return embedding

    async def embed(self, texts: Sequence[str]) -> FloatMatrix:
        """Embed texts, in order; shape (len(texts), dim).

        Raises:
            OverloadedError: too many texts wait.
            InvalidInputError: one is not valid Unicode.
        """
        return await asyncio.wrap_future(self._lanes.submit(texts))

    async def counters(self) -> dict[str, float]:
        """Work done and waiting, for the metrics."""
        return {**self._lanes.counters(), "query_cache_hits": self._cache.hits}

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
        self._embeddings: OrderedDict[bytes, FloatVector] = OrderedDict()
        self.hits = 0

    def get(self, text: str) -> FloatVector | None:
        """The embedding of a query seen lately."""
        key = _key(text)
        if (embedding := self._embeddings.get(key)) is not None:
            self._embeddings.move_to_end(key)
            self.hits += 1
        return embedding

    def put(self, text: str, embedding: FloatVector) -> None:
        """Remember an embedding; forget the oldest beyond the size."""
        # A copy: a row of a batch would keep the whole batch in memory.
        self._embeddings[_key(text)] = embedding.copy()
        while len(self._embeddings) > self._size:
            self._embeddings.popitem(last=False)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
