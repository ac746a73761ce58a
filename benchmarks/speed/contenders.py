"""The same three operations, over REST and in process."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from benchmarks.support.filled_store import open_index
from benchmarks.support.running_service import RunningService
from engine.memory_index import MemoryIndex
from engine.model.embedder import Embedder
from engine.records import MemoryId, NewMemory, SearchQuery

_SOURCE = "benchmark"
_PATIENCE_S = 120.0


class Contender(Protocol):
    """Something that remembers. Safe for several threads."""

    def search(self, query: str) -> object:
        """Answer a hybrid search for 5 hits."""

    def add(self, text: str) -> int | None:
        """Add one memory; its id, or None for a duplicate."""

    def delete(self, memory_id: int) -> object:
        """Delete one memory."""


class OverRest:
    """A running service."""

    def __init__(self, service: RunningService) -> None:
        self._service = service

    def search(self, query: str) -> Any:  # noqa: ANN401 (JSON)
        """`POST /search` with its defaults."""
        return self._service.ask("POST", "/search", {"query": query})

    def add(self, text: str) -> int | None:
        """`POST /memory/add`."""
        body = {"text": text, "source": _SOURCE}
        added: int | None = self._service.ask("POST", "/memory/add", body)["id"]
        return added

    def delete(self, memory_id: int) -> Any:  # noqa: ANN401
        """`DELETE /memory/{id}`."""
        return self._service.ask("DELETE", f"/memory/{memory_id}")


class InProcess:
    """The floor: the engine alone, called by the thread that waits for the answer."""

    def __init__(self, embedder: Embedder, index: MemoryIndex) -> None:
        self._embedder = embedder
        self._index = index
        self._request_ids = map(str, itertools.count())

    def search(self, query: str) -> object:
        """Embed and search."""
        return self._index.search(self._embedder.embed([query]), [SearchQuery(text=query)])

    def add(self, text: str) -> int | None:
        """Embed and add; durable when this returns."""
        memory = NewMemory(text=text, source=_SOURCE)
        added = self._index.add(
            [memory], self._embedder.embed([text]), request_id=next(self._request_ids)
        )
        return added.result(_PATIENCE_S)[0].id

    def delete(self, memory_id: int) -> object:
        """Delete; durable when this returns."""
        ids = [MemoryId(memory_id)]
        return self._index.delete(ids, request_id=next(self._request_ids)).result(_PATIENCE_S)


@contextmanager
def in_process(data_dir: Path, embedder: Embedder) -> Iterator[InProcess]:
    """The engine on a data directory of its own."""
    index = open_index(data_dir, embedder)
    try:
        yield InProcess(embedder, index)
    finally:
        index.close()


def stage_ms(log_path: Path, offset: int, route: str) -> dict[str, list[float]]:
    """What the ingress logged of a route's requests: `embed_ms`, `search_ms`, `total_ms` of each.

    Args:
        log_path: the service's log, JSON lines.
        offset: bytes of it to skip.
        route: as the log names it.
    """
    stages: dict[str, list[float]] = {"embed_ms": [], "search_ms": [], "total_ms": []}
    for line in log_path.read_bytes()[offset:].splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("route") == route:
            for name, values in stages.items():
                values.append(event.get(name, 0.0))
    return stages
