"""Starting again on a full store: how long, and whether everything is as before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.support.running_service import BenchmarkError, RunningService

Answers = list[list[tuple[int, float]]]


def measure_restarts(service: RunningService, queries: Sequence[str]) -> dict[str, Any]:
    """Restart a running service after SIGTERM, and after SIGKILL of all of it.

    Readiness probes embed a word or two; a store embedded anew would show as thousands.
    """
    before = answers(service, queries)
    ways: dict[str, Callable[[], None]] = {"sigterm": service.stop, "sigkill": service.kill}
    report: dict[str, Any] = {"queries": len(queries)}
    for name, end in ways.items():
        end()
        ready_s = service.start()
        n_embedded = embedded_texts(service)
        report[name] = {
            "ready_s": round(ready_s, 2),
            "same_answers": answers(service, queries) == before,
            "texts_embedded_at_start": n_embedded,
        }
    return report


def answers(service: RunningService, queries: Sequence[str]) -> Answers:
    """Ids and similarities that each query finds."""
    found = (service.ask("POST", "/search", {"query": query, "k": 10}) for query in queries)
    return [[(hit["id"], hit["similarity"]) for hit in one["results"]] for one in found]


def embedded_texts(service: RunningService) -> int:
    """Texts that the embedders have embedded since they started."""
    values = [
        v for k, v in service.metrics().items() if k.startswith("faiss_memory_embedder_texts_total")
    ]
    if not values:
        raise BenchmarkError("/metrics does not tell how many texts were embedded")
    return int(sum(values))
