"""A real `MemoryIndex` on a temporary directory, with hashed words for embeddings."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.index_options import IndexOptions
from engine.memory_index import MemoryIndex
from engine.namespace import Namespace
from engine.records import FloatMatrix, MemoryId, ModelIdentity, NewMemory, SearchHit, SearchQuery
from tests.support.fakes import DIM, embedding_of

IDENTITY = ModelIdentity(name="hashed-words", dim=DIM, precision="fp32", fingerprint="f" * 64)


def fresh_request_id() -> str:
    return uuid.uuid4().hex


def embeddings_of(texts: Sequence[str]) -> FloatMatrix:
    return np.stack([embedding_of(text) for text in texts])


def count_words(text: str) -> int:
    return len(text.split()) + 2


def open_index(directory: Path, **options: Any) -> MemoryIndex:
    (directory / "workspace").mkdir(parents=True, exist_ok=True)
    known = IndexOptions(
        data_dir=directory / "data",
        workspace_dir=directory / "workspace",
        identity=IDENTITY,
        lock_timeout_s=0.1,
    )
    return MemoryIndex(dataclasses.replace(known, **options), count_pieces=count_words)


def add(index: Namespace, *texts: str, source: str = "notes", **fields: Any) -> list[MemoryId]:
    memories = [
        NewMemory(text=text, source=source, **{"deduplicate": False, **fields}) for text in texts
    ]
    outcomes = index.add(memories, embeddings_of(texts), request_id=fresh_request_id()).result()
    return [outcome.id for outcome in outcomes if outcome.id is not None]


def search(index: Namespace, text: str, **wanted: Any) -> list[SearchHit]:
    (hits,) = index.search(embeddings_of([text]), [SearchQuery(text=text, **wanted)])
    return hits


def texts_of(hits: Sequence[SearchHit]) -> list[str]:
    return [hit.memory.text for hit in hits]
