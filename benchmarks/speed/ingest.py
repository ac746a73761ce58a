"""Loading much over REST, beside the floor: the bare model session fed sorted batches, as JSON.

    python -m benchmarks.speed.ingest [--limit 10000] [--deduplicate]

Per collection one service takes all of it, in rounds: some texts through the floor, the same
through `/import`, as many others through `/memory/add-batch`. Then searchers measure their
latency while nothing else runs, and while an import does. The floor's threads are niced as the
service's are, so that a busy machine slows both alike; processor time per text is given too.
"""

from __future__ import annotations

import gzip
import http.client
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from rich.console import Console

from benchmarks.support.corpora import (
    DEFAULT_DATA_DIR,
    GLOSSES,
    generated_passages,
    shuffled_glosses,
)
from benchmarks.support.filled_store import service_embedder
from benchmarks.support.latency import percentiles_ms, ratio, timed_s
from benchmarks.support.machine import machine_facts
from benchmarks.support.results import RESULTS_DIR, write_result
from benchmarks.support.running_service import BenchmarkError, RunningService, free_ports, launched
from engine.model.embedder import Embedder

DIALOGUES = "sgd_dialogues"
_ROUNDS = 4
_BATCH = 500
_CALLERS = 2
_NICENESS = 10
_IMPORT_SHARE = 0.5
"""Of the texts; add-batch and the import beside the searchers take the same half of the rest."""
_SETTINGS = {"QUERY_CACHE_SIZE": "0"}


def texts_of(name: str, data_dir: Path, limit: int | None) -> list[str]:
    """Distinct texts of a collection in a fixed random order; generated ones if it is not there."""
    if name == GLOSSES and (data_dir / GLOSSES).is_dir():
        texts = [passage.memory_text for passage in shuffled_glosses(data_dir)]
    elif name == DIALOGUES and (data_dir / DIALOGUES).is_dir():
        with gzip.open(data_dir / DIALOGUES / "turns.jsonl.gz", "rt", encoding="utf-8") as lines:
            texts = [json.loads(line)["text"] for line in lines]
    else:
        texts = [passage.text for passage in generated_passages(limit or 10_000)]
    distinct = list(dict.fromkeys(text for text in texts if text.strip()))
    order = np.random.default_rng(0).permutation(len(distinct))[:limit]
    return [distinct[i] for i in order]


@dataclass(slots=True)
class Spent:
    """Time that some texts took."""

    n_texts: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def shown(self) -> dict[str, float]:
        """Texts a second, and processor time of one."""
        return {
            "texts": self.n_texts,
            "texts_per_s": round(self.n_texts / self.wall_s, 1),
            "cpu_ms_per_text": round(1000 * self.cpu_s / self.n_texts, 3),
        }


@dataclass(slots=True)
class Bench:
    """One service and the bare model beside it."""

    service: RunningService
    embedder: Embedder
    deduplicate: bool
    spent: dict[str, Spent] = field(default_factory=dict)

    def run_floor(self, texts: Sequence[str]) -> None:
        """Embed with the bare session: sorted, exact lengths, two callers."""
        with ThreadPoolExecutor(_CALLERS, initializer=_be_nice) as pool:
            runs = self.embedder.plan_runs(texts)
            list(pool.map(self.embedder.embed_run, runs))

    def run_import(self, texts: Sequence[str]) -> None:
        """Send all as one stream."""
        lines = (json.dumps({"text": text, "source": "bench"}) for text in texts)
        body = ("\n".join(lines) + "\n").encode()
        flag = str(self.deduplicate).lower()
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=3600)
        try:
            # Only errors are answered: this client reads when it has sent everything.
            connection.request("POST", f"/import?report=errors&deduplicate={flag}", body)
            *_, last = connection.getresponse().read().splitlines()
        finally:
            connection.close()
        summary = json.loads(last)
        if not summary.get("ok"):
            raise BenchmarkError(f"the import failed: {summary}")

    def run_add_batch(self, texts: Sequence[str]) -> None:
        """Send batches as large as they may be, some at a time."""

        def add(start: int) -> None:
            batch = [{"text": t, "source": "bench"} for t in texts[start : start + _BATCH]]
            body = {"memories": batch, "deduplicate": self.deduplicate}
            self.service.ask("POST", "/memory/add-batch", body)

        with ThreadPoolExecutor(_CALLERS) as pool:
            list(pool.map(add, range(0, len(texts), _BATCH)))

    def spend(self, name: str, work: Callable[[Sequence[str]], None], texts: Sequence[str]) -> None:
        """Do the work and add what it took; the service's processor time unless it is the floor."""
        own = name == "floor"
        cpu_s = time.process_time() if own else self._cpu_s()
        wall_s = timed_s(work, texts)
        spent = self.spent.setdefault(name, Spent())
        spent.n_texts += len(texts)
        spent.wall_s += wall_s
        spent.cpu_s += (time.process_time() if own else self._cpu_s()) - cpu_s

    def _cpu_s(self) -> float:
        total = 0.0
        for pid in self.service.pids():
            with suppress(psutil.Error):
                times = psutil.Process(pid).cpu_times()
                total += times.user + times.system
        return total

    def search_while(self, queries: Sequence[str], busy: threading.Event | None) -> list[float]:
        """Latencies of one searcher, in seconds; while `busy` is set, if given."""
        seconds = []
        for query in queries:
            if busy is not None and not busy.is_set():
                break
            seconds.append(timed_s(self.service.ask, "POST", "/search", {"query": query}))
        return seconds


def _be_nice() -> None:
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def measure(bench: Bench, texts: Sequence[str], n_searches: int) -> dict[str, Any]:
    """All rounds, then the searchers."""
    n_import = int(_IMPORT_SHARE * len(texts))
    imported, others = texts[:n_import], texts[n_import:]
    batched, beside = others[: len(others) // 2], others[len(others) // 2 :]
    for at in range(_ROUNDS):
        bench.spend("floor", bench.run_floor, imported[at::_ROUNDS])
        bench.spend("import", bench.run_import, imported[at::_ROUNDS])
        bench.spend("add_batch", bench.run_add_batch, batched[at::_ROUNDS])
    result: dict[str, Any] = {name: spent.shown() for name, spent in bench.spent.items()}
    for name in ("import", "add_batch"):
        result[f"{name}_to_floor"] = ratio(
            result[name]["texts_per_s"], result["floor"]["texts_per_s"]
        )
        result[f"floor_to_{name}_cpu"] = ratio(
            result["floor"]["cpu_ms_per_text"], result[name]["cpu_ms_per_text"]
        )
    result["search"] = measure_searches(bench, imported, beside, n_searches)
    result["memories"] = bench.service.ask("GET", "/stats")["total_memories"]
    return result


def measure_searches(
    bench: Bench, stored: Sequence[str], beside: Sequence[str], n_searches: int
) -> dict[str, Any]:
    """Search latency in milliseconds, alone and beside an import at full speed."""
    queries = [" ".join(text.split()[:8]) + f" {i}" for i, text in enumerate(stored)]
    bench.service.forget_connection()
    bench.search_while(queries[:10], None)
    idle = bench.search_while(queries[10 : 10 + n_searches], None)
    busy = threading.Event()
    busy.set()

    def load() -> None:
        try:
            bench.spend("import beside searches", bench.run_import, beside)
        finally:
            busy.clear()

    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load)
        bench.search_while(queries[-5:], busy)
        loaded = bench.search_while(queries[10 + n_searches :] * 100, busy)
        loading.result()
    shown_idle, shown_loaded = percentiles_ms(idle), percentiles_ms(loaded)
    return {
        "idle_ms": shown_idle,
        "beside_import_ms": shown_loaded,
        "searches_beside": len(loaded),
        "import_beside_texts_per_s": bench.spent["import beside searches"].shown()["texts_per_s"],
        "p50_ratio": ratio(shown_loaded["p50"], shown_idle["p50"]),
        "p99_ratio": ratio(shown_loaded["p99"], shown_idle["p99"]),
    }


def main(
    data_dir: Annotated[Path, typer.Option(help="Holds the collections.")] = DEFAULT_DATA_DIR,
    names: Annotated[list[str] | None, typer.Option("--corpus", help="Which.")] = None,
    limit: Annotated[int | None, typer.Option(min=100, help="So many texts of each.")] = None,
    deduplicate: Annotated[bool, typer.Option(help="Look for duplicates.")] = False,
    searches: Annotated[
        int, typer.Option(min=10, help="Alone; beside an import: all it takes.")
    ] = 300,
    first_port: Annotated[int, typer.Option(help="The first free one from here on.")] = 8980,
    results_dir: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULTS_DIR,
) -> None:
    """Measure loading by stream and by batches, and searches beside it."""
    console = Console(stderr=True, highlight=False)
    embedder = service_embedder()
    result: dict[str, Any] = {"machine": machine_facts(), "deduplicate": deduplicate}
    for name in names or [DIALOGUES, GLOSSES]:
        texts = texts_of(name, data_dir, limit)
        console.print(f"{name}: {len(texts):,} texts ...")
        [port] = free_ports(first_port, 1)
        with (
            tempfile.TemporaryDirectory(prefix="fmb-") as directory,
            launched(Path(directory) / "data", port, settings=_SETTINGS) as service,
        ):
            bench = Bench(service, embedder, deduplicate)
            result[name] = measure(bench, texts, searches)
    write_result("ingest", result, results_dir)


if __name__ == "__main__":
    typer.run(main)
