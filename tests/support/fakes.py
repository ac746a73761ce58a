"""Hashed words in the place of the model, and an embedding pool that makes them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from deployments.calls.part_reports import PartReport
from engine.records import EmbeddedQuery, Embeddings, FloatVector, QueryPieces

DIM = 16


def embedding_of(text: str) -> FloatVector:
    """Shape (DIM,): words hashed into buckets, so that texts sharing words are similar."""
    vector = np.full(DIM, 0.05, dtype=np.float32)
    for word in text.casefold().split():
        digest = hashlib.blake2b(word.encode(), digest_size=4).digest()
        vector[int.from_bytes(digest, "big") % DIM] += 1.0
    unit: FloatVector = vector / np.linalg.norm(vector)
    return unit


def query_of(text: str) -> EmbeddedQuery:
    """A query of one piece a word."""
    words = text.split()
    pieces = QueryPieces(
        rows=np.stack([embedding_of(word) for word in words]).astype(np.float16),
        word_of=np.arange(len(words), dtype=np.int16),
        words=words,
    )
    return EmbeddedQuery(vector=embedding_of(text), pieces=pieces)


class FakeEmbedder:
    """Deterministic embeddings; remembers what it was asked for."""

    def __init__(self) -> None:
        self.queries: list[str] = []
        self.batches: list[list[str]] = []

    async def embed_query(self, text: str) -> EmbeddedQuery:
        self.queries.append(text)
        return query_of(text)

    async def embed_queries(self, texts: Sequence[str]) -> list[EmbeddedQuery]:
        self.batches.append(list(texts))
        return [query_of(text) for text in texts]

    async def embed_one(self, text: str) -> Embeddings:
        self.queries.append(text)
        return Embeddings(firsts=embedding_of(text)[None])

    async def embed(self, texts: Sequence[str], max_windows: int = 1) -> Embeddings:
        self.batches.append(list(texts))
        return Embeddings(firsts=np.stack([embedding_of(text) for text in texts]))

    async def embed_long(self, texts: Sequence[str], max_windows: int = 1) -> Embeddings:
        return await self.embed(texts, max_windows)

    async def reports(self) -> list[PartReport]:
        return [
            PartReport(
                replica=name,
                cpu_s=1.5,
                resident_bytes=2**20,
                totals={"batches": len(self.batches)},
                levels={"queue_depth": 0},
            )
            for name in ("e1", "e2")
        ]
