"""Collections of documents to be searched: by the engine in process, and over REST."""

from __future__ import annotations

import http.client
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.relevance.judged import JudgedQuery, JudgedSet
from benchmarks.relevance.measures import K
from benchmarks.support.filled_store import embed_whole_cached, open_index
from benchmarks.support.running_service import BenchmarkError, RunningService, free_ports, launched
from engine.memory_index import MemoryIndex
from engine.model.embedder import Embedder
from engine.records import SearchQuery

_BATCH = 1_000
_READ_QUERIES = 8
_IMPORT_PATIENCE_S = 3600.0

Search = Callable[[JudgedQuery, Mapping[str, Any]], list[str]]
"""Ids of the documents that a query finds, best first, at most ten, by a ranking."""


@contextmanager
def opened(judged: JudgedSet, embedder: Embedder, cache_dir: Path) -> Iterator[MemoryIndex]:
    """A store that holds the collection."""
    embeddings = embed_whole_cached(embedder, judged.texts, cache_dir)
    with tempfile.TemporaryDirectory(prefix="fmb-", dir="/tmp") as directory:
        index = open_index(Path(directory) / "data", embedder, with_backups=False)
        try:
            for start in range(0, len(judged.documents), _BATCH):
                block = slice(start, start + _BATCH)
                memories = [
                    document.as_memory(embeddings.later.get(at))
                    for at, document in enumerate(judged.documents[block], start)
                ]
                firsts = embeddings.firsts[block]
                index.ingest(memories, firsts, request_id=f"fill-{start}").result()
            yield index
        finally:
            index.close()


@contextmanager
def in_process(judged: JudgedSet, embedder: Embedder, cache_dir: Path) -> Iterator[Search]:
    """Searches of a store that holds the collection."""
    with opened(judged, embedder, cache_dir) as index:
        read = lru_cache(maxsize=_READ_QUERIES)(embedder.read)

        def search(query: JudgedQuery, ranking: Mapping[str, Any]) -> list[str]:
            asked = read(query.text)
            wanted = SearchQuery(
                text=query.text, k=K, where=query.where, pieces=asked.pieces, **ranking
            )
            [hits] = index.search(asked.vector[None], [wanted])
            return [str(hit.memory.key) for hit in hits]

        yield search


@contextmanager
def over_rest(judged: JudgedSet, first_port: int) -> Iterator[Search]:
    """Searches of a running service that has imported the collection."""
    [port] = free_ports(first_port, 1)
    with (
        tempfile.TemporaryDirectory(prefix="fmb-", dir="/tmp") as directory,
        launched(Path(directory) / "data", port) as service,
    ):
        import_all(service, judged)

        def search(query: JudgedQuery, ranking: Mapping[str, Any]) -> list[str]:
            body = {"query": query.text, "k": K, "metadata": query.metadata, **ranking}
            return [hit["key"] for hit in service.ask("POST", "/search", body)["results"]]

        yield search


def import_all(service: RunningService, judged: JudgedSet) -> None:
    """Send the documents as one stream.

    Raises:
        BenchmarkError: not all of them were stored.
    """
    lines = [
        json.dumps({"text": d.text, "source": d.source, "key": d.id, "metadata": d.metadata})
        for d in judged.documents
    ]
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=_IMPORT_PATIENCE_S)
    try:
        body = ("\n".join(lines) + "\n").encode()
        connection.request("POST", "/import?report=errors&deduplicate=false", body)
        *_, last = connection.getresponse().read().splitlines()
    finally:
        connection.close()
    n_stored = service.ask("GET", "/stats")["total_memories"]
    if n_stored != len(lines):
        raise BenchmarkError(f"{n_stored} of {len(lines)} documents were stored: {last!r}")
