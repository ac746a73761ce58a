"""Prometheus metrics of one ingress replica.

Every series carries the name of the replica that it is about: behind several ingresses a scrape
reaches one of them, and each answers with its own numbers, the index's and all embedders'. Sum the
rates over `replica` for the service's; of what the index says take the largest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from deployments.calls.part_reports import PartReport
from deployments.http.request_trace import Stage
from engine.records import IndexStats

_METHODS = frozenset({"GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS"})

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


class _Parts(Collector):
    """What the processes said of themselves last, each under its own name."""

    def __init__(self) -> None:
        self.reports: Mapping[str, Sequence[PartReport]] = {}

    def collect(self) -> Iterator[Metric]:
        """Called for each exposition."""
        cpu = CounterMetricFamily(
            "faiss_memory_process_cpu_seconds",
            "Processor time of each part's process.",
            labels=["part", "replica"],
        )
        memory = GaugeMetricFamily(
            "faiss_memory_process_resident_memory_bytes",
            "Memory that each part's process holds.",
            labels=["part", "replica"],
        )
        for part, reports in self.reports.items():
            for report in reports:
                cpu.add_metric([part, report.replica], report.cpu_s)
                memory.add_metric([part, report.replica], report.resident_bytes)
        yield from (cpu, memory)
        for part, reports in self.reports.items():
            totals = [(report.replica, report.totals) for report in reports]
            levels = [(report.replica, report.levels) for report in reports]
            yield from _of_one_part(CounterMetricFamily, part, totals)
            yield from _of_one_part(GaugeMetricFamily, part, levels)


def _of_one_part(
    family: type[CounterMetricFamily | GaugeMetricFamily],
    part: str,
    said: Sequence[tuple[str, Mapping[str, float]]],
) -> Iterator[Metric]:
    """The metrics that one part alone has, from what each of its replicas said."""
    for name in dict.fromkeys(name for _, values in said for name in values):
        documentation = f"{name.replace('_', ' ')} of each {part}.".capitalize()
        metric = family(f"faiss_memory_{part}_{name}", documentation, labels=["replica"])
        for replica, values in said:
            if name in values:
                metric.add_metric([replica], values[name])
        yield metric


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
        self._parts = _Parts()
        self.registry.register(self._parts)
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

    def set_parts(self, reports: Mapping[str, Sequence[PartReport]]) -> None:
        """Take over what the processes of each part say; those that said nothing are left out."""
        self._parts.reports = reports

    def text(self) -> bytes:
        """The Prometheus exposition."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, documentation: str) -> Gauge:
        gauge = Gauge(f"faiss_memory_{name}", documentation, ["replica"], registry=self.registry)
        return gauge.labels(self.replica)
