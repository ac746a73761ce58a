"""Prometheus metrics of one ingress replica.

Every series carries the replica's name: behind several replicas a scrape reaches one of them,
and each answers with its own numbers. Sum over `replica` for the service's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from deployments.http.request_trace import Stage
from engine.records import IndexStats

_METHODS = frozenset({"GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS"})

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


@runtime_checkable
class ReportsCounters(Protocol):
    """An embedder client that knows the pool's counters."""

    async def counters(self) -> Mapping[str, float]:
        """Name (`batches`, `texts`, `queue_depth`, …) to value; each becomes a gauge."""


class IngressMetrics:
    """The metrics of one application, in a registry of their own."""

    def __init__(self, *, version: str, model_name: str, replica: str) -> None:
        self.registry = CollectorRegistry()
        self.replica = replica
        self._requests = Counter(
            "faiss_memory_requests",
            "Requests answered by this ingress replica.",
            ["replica", "route", "method", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "faiss_memory_request_seconds",
            "Time per request at this ingress replica: waiting for a stage, or in all (total).",
            ["replica", "route", "stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_flight = self._gauge("requests_in_flight", "Requests being answered now.")
        self._index = {
            "memories": self._gauge("memories", "Memories stored."),
            "pending_writes": self._gauge("pending_writes", "Writes waiting for the index."),
            "index_bytes": self._gauge("index_bytes", "Memory held by the indexes."),
            "store_bytes": self._gauge("store_bytes", "Size of the store on disk."),
            "index_rows": self._gauge("index_rows", "Rows in the indexes, deleted ones too."),
            "lsn": self._gauge("lsn", "Number of the last change."),
            "backups": self._gauge("backups", "Backups kept."),
            "backup_failing": self._gauge(
                "backup_failing", "Whether the last automatic backup failed."
            ),
        }
        self._up = self._gauge("index_up", "Whether the index answered this scrape.")
        self._embedder: dict[str, Gauge] = {}
        build = Gauge(
            "faiss_memory_build_info",
            "What is running.",
            ["replica", "version", "model"],
            registry=self.registry,
        )
        build.labels(replica, version, model_name).set(1)

    def observe(
        self, route: str, method: str, status: int, stage_s: Mapping[Stage, float], total_s: float
    ) -> None:
        """Count one finished request."""
        method = method if method in _METHODS else "other"
        self._requests.labels(self.replica, route, method, status).inc()
        self._seconds.labels(self.replica, route, "total").observe(total_s)
        for stage, seconds in stage_s.items():
            self._seconds.labels(self.replica, route, stage).observe(seconds)

    def set_index(self, stats: IndexStats | None) -> None:
        """Take over the index's state; None when it did not answer."""
        self._up.set(stats is not None)
        if stats is None:
            return
        self._index["memories"].set(stats.total_memories)
        self._index["pending_writes"].set(stats.pending_writes)
        self._index["index_bytes"].set(stats.index_bytes)
        self._index["store_bytes"].set(stats.store_bytes)
        self._index["index_rows"].set(stats.n_rows)
        self._index["lsn"].set(stats.lsn)
        self._index["backups"].set(stats.backup_count)
        self._index["backup_failing"].set(stats.backup_error is not None)

    def set_embedder(self, counters: Mapping[str, float]) -> None:
        """Take over the embedding pool's counters."""
        for name, value in counters.items():
            if name not in self._embedder:
                self._embedder[name] = self._gauge(
                    f"embedder_{name}", f"{name.replace('_', ' ')} of the embedder that answered."
                )
            self._embedder[name].set(value)

    def text(self) -> bytes:
        """The Prometheus exposition."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, documentation: str) -> Gauge:
        gauge = Gauge(f"faiss_memory_{name}", documentation, ["replica"], registry=self.registry)
        return gauge.labels(self.replica)
