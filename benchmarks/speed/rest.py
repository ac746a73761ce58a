"""The running service over REST, beside the engine in process and Serve's defaults, as JSON.

    python -m benchmarks.speed.rest [--size 1000 --size 10000 --size 100000]

At each size three contenders serve copies of one store and take turns, request by request with
one client and in rounds with many: trust the ratios, not the times.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from benchmarks.speed.contenders import Contender, OverRest, in_process, stage_ms
from benchmarks.speed.empty_app import write_config
from benchmarks.speed.restart import measure_restarts
from benchmarks.speed.trials import (
    adder,
    search_alone,
    search_many,
    warm_up,
    write_alone,
    write_many,
)
from benchmarks.support.corpora import DEFAULT_DATA_DIR, Corpus, Passage, load_corpus
from benchmarks.support.filled_store import CACHE_DIR, embed_cached, fill, service_embedder
from benchmarks.support.latency import at_once
from benchmarks.support.machine import machine_facts
from benchmarks.support.results import RESULTS_DIR, write_result
from benchmarks.support.running_service import (
    RunningService,
    free_ports,
    launched,
    under_serve_defaults,
)
from engine.model.embedder import Embedder
from engine.records import FloatMatrix

SIZES = (1_000, 10_000, 100_000)
_COMPARED = {
    "service_to_in_process": ("service", "in_process"),
    "serve_defaults_to_service": ("serve_defaults", "service"),
}
_N_RESTART_QUERIES = 50
_REQUESTS_OF_MANY = 4  # times those of one client
_BATCH = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What every measurement of one run needs."""

    corpus: Corpus
    embeddings: FloatMatrix
    """Of the passages that are stored; those after them are added while the clock runs."""
    embedder: Embedder
    directory: Path
    first_port: int
    n_requests: int
    n_clients: int
    with_defaults: bool
    with_restarts: bool

    @property
    def queries(self) -> list[str]:
        """Titles and first clauses in turn, all different: no contender has one in its cache."""
        found: dict[str, None] = {}
        for i, passage in enumerate(self.corpus.passages):
            found[passage.title if i % 2 else passage.text.partition(";")[0]] = None
        return list(found)

    @property
    def new_texts(self) -> list[str]:
        """Texts that no store holds yet."""
        return [p.memory_text for p in self.corpus.passages[len(self.embeddings) :]]

    @contextmanager
    def store(self, size: int) -> Iterator[Callable[[str], Path]]:
        """A function that makes copies of a store of this size; the copies go at the end."""
        filled, copies = self.directory / f"filled-{size}", self.directory / f"copies-{size}"
        if not filled.exists():
            fill(filled, self.corpus.passages[:size], self.embeddings[:size], self.embedder)

        def copy(name: str) -> Path:
            return shutil.copytree(filled, copies / name)

        try:
            yield copy
        finally:
            shutil.rmtree(copies, ignore_errors=True)


def measure(bench: Bench, sizes: Sequence[int]) -> dict[str, Any]:
    """All sizes, restarts of the largest, growth up to it, and Serve with nothing in it."""
    report: dict[str, Any] = {
        "machine": machine_facts(),
        "corpus": bench.corpus.name,
        "precision": bench.embedder.identity.precision,
        "sizes": [],
    }
    console = Console(stderr=True, highlight=False)
    for size in sizes:
        console.print(f"{size:,} memories ...")
        report["sizes"].append(
            measure_size(bench, size, with_restarts=bench.with_restarts and size == max(sizes))
        )
    if len(sizes) > 1:
        console.print("growth ...")
        report["growth"] = measure_growth(bench, small=min(sizes), large=max(sizes))
    report["empty_serve_pss_mib"] = measure_empty(bench)
    return report


def measure_size(bench: Bench, size: int, *, with_restarts: bool) -> dict[str, Any]:
    """Latency of every contender, the weight of the service, and its restarts, at one size."""
    ports = free_ports(bench.first_port, 2)
    with bench.store(size) as copy, ExitStack() as stack:
        service = stack.enter_context(launched(copy("service"), ports[0]))
        at_start = service.settled_pss_mib()
        contenders: dict[str, Contender] = {
            "service": OverRest(service),
            "in_process": stack.enter_context(in_process(copy("in_process"), bench.embedder)),
        }
        if bench.with_defaults:
            defaults = under_serve_defaults(copy("serve_defaults"), ports[1])
            contenders["serve_defaults"] = OverRest(stack.enter_context(defaults))
        report = {"memories": size} | measure_operations(bench, contenders, service)
        peak = service.peak_pss_mib(lambda: load_everything(bench, service))["all"]
        weight = {"at_start": total(at_start), "peak": peak, "by_process_at_end": service.pss_mib()}
        if bench.with_defaults:
            weight["serve_defaults_at_end"] = total(defaults.pss_mib())
            defaults.stop()
        report["pss_mib"] = weight
        if with_restarts:
            report["restart"] = measure_restarts(service, bench.queries[:_N_RESTART_QUERIES])
    return report


def measure_operations(
    bench: Bench, contenders: Mapping[str, Contender], service: RunningService
) -> dict[str, Any]:
    """Search, add and delete, with one client and with many."""
    warm_up(contenders)
    n_alone, n_clients = bench.n_requests, bench.n_clients
    end = n_alone * (1 + _REQUESTS_OF_MANY)
    queries, texts = bench.queries, bench.new_texts
    log_start = service.log_path.stat().st_size
    search = search_alone(contenders, queries[:n_alone], _COMPARED)
    search["stages_p50"] = stages_p50(service.log_path, log_start, search["service"]["p50"])
    alone = {"search": search} | write_alone(contenders, texts[:n_alone], _COMPARED)
    many = {"search": search_many(contenders, queries[n_alone:end], _COMPARED, n_clients)}
    many |= write_many(contenders, texts[n_alone:end], _COMPARED, n_clients)
    return {"1_client": alone, f"{n_clients}_clients": many}


def stages_p50(log_path: Path, offset: int, whole_ms: float) -> dict[str, float]:
    """Where the milliseconds of a search went: what the ingress logged, and the rest of it.

    Args:
        log_path: the service's log.
        offset: bytes of it from before.
        whole_ms: p50 as the client saw it.
    """
    stages = stage_ms(log_path, offset, "/search")
    if not stages["total_ms"]:
        return {}
    p50 = {name: float(np.median(values)) for name, values in stages.items()}
    ingress = p50["total_ms"] - p50["embed_ms"] - p50["search_ms"]
    return {
        "embedder_hop": round(p50["embed_ms"], 3),
        "index_hop": round(p50["search_ms"], 3),
        "ingress": round(ingress, 3),
        "proxy_and_network": round(whole_ms - p50["total_ms"], 3),
    }


def measure_growth(bench: Bench, *, small: int, large: int) -> dict[str, Any]:
    """The service at two sizes at once, in turns: does a write cost more in a large store?"""
    ports = free_ports(bench.first_port, 2)
    with bench.store(small) as copy_small, bench.store(large) as copy_large, ExitStack() as stack:
        contenders: dict[str, Contender] = {
            "small": OverRest(stack.enter_context(launched(copy_small("growth"), ports[0]))),
            "large": OverRest(stack.enter_context(launched(copy_large("growth"), ports[1]))),
        }
        warm_up(contenders)
        compared = {"large_to_small": ("large", "small")}
        report = {"search": search_alone(contenders, bench.queries[: bench.n_requests], compared)}
        report |= write_alone(contenders, bench.new_texts[: bench.n_requests], compared)
    return {"small": small, "large": large} | report


def measure_empty(bench: Bench) -> dict[str, float]:
    """What Serve weighs with one deployment that does nothing, run in both ways."""
    directory = bench.directory / "empty"
    directory.mkdir()
    config = write_config(directory / "serve.yaml")
    ports = free_ports(bench.first_port, 2)
    with launched(directory / "service", ports[0], config=config) as service:
        report = {"service": total(service.settled_pss_mib())}
    if bench.with_defaults:
        with under_serve_defaults(directory / "defaults", ports[1], config=config) as service:
            report["serve_defaults"] = total(service.settled_pss_mib())
    return report


def load_everything(bench: Bench, service: RunningService) -> None:
    """Many clients that search and add at once, then adds in batches, then deletes."""
    contender = OverRest(service)
    ids: list[int] = []
    queries = [f"{query} again" for query in bench.queries[: bench.n_requests * _REQUESTS_OF_MANY]]
    at_once(contender.search, queries, bench.n_clients)
    at_once(adder(contender, ids), bench.new_texts[: bench.n_requests], bench.n_clients)

    def add_batch(batch: Sequence[Passage]) -> None:
        memories = [{"text": f"again {p.memory_text}", "source": "peak"} for p in batch]
        body = {"memories": memories, "deduplicate": False}
        ids.extend(service.ask("POST", "/memory/add-batch", body)["ids"])

    passages = bench.corpus.passages[: 4 * _BATCH]
    at_once(add_batch, [passages[i::4] for i in range(4)], 2)
    for start in range(0, len(ids), 1_000):
        service.ask("POST", "/memory/delete-batch", {"ids": ids[start : start + 1_000]})


def total(sizes: Mapping[str, float]) -> float:
    """Their sum, in MiB."""
    return round(sum(sizes.values()), 1)


def main(
    size: Annotated[list[int] | None, typer.Option(min=1, help="Memories; 1k, 10k, 100k.")] = None,
    requests: Annotated[
        int, typer.Option(min=4, help="Of each kind by one client; many send four times as many.")
    ] = 300,
    clients: Annotated[int, typer.Option(min=1, help="How many are 'many'.")] = 16,
    defaults: Annotated[bool, typer.Option(help="Measure Serve's defaults too.")] = True,
    restarts: Annotated[bool, typer.Option(help="Measure restarts of the largest store.")] = True,
    data_dir: Annotated[Path, typer.Option(help="Holds wordnet_glosses.")] = DEFAULT_DATA_DIR,
    model_dir: Annotated[
        Path | None, typer.Option(help="By default MODEL_DIR, else the shared cache.")
    ] = None,
    cache_dir: Annotated[Path, typer.Option(help="Keeps embeddings for later runs.")] = CACHE_DIR,
    first_port: Annotated[int, typer.Option(help="The first free ones from here on.")] = 8970,
    results_dir: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULTS_DIR,
) -> None:
    """Measure the running service and print JSON."""
    sizes = sorted(set(size or SIZES))
    n_new = requests * (1 + _REQUESTS_OF_MANY)
    corpus = load_corpus(data_dir, max(sizes) + n_new)
    embedder = service_embedder(model_dir)
    stored = [p.memory_text for p in corpus.passages[: max(sizes)]]
    with tempfile.TemporaryDirectory(prefix="fmb-", dir="/tmp") as directory:
        bench = Bench(
            corpus=corpus,
            embeddings=embed_cached(embedder, stored, cache_dir),
            embedder=embedder,
            directory=Path(directory),
            first_port=first_port,
            n_requests=requests,
            n_clients=clients,
            with_defaults=defaults,
            with_restarts=restarts,
        )
        write_result("rest", measure(bench, sizes), results_dir)


if __name__ == "__main__":
    typer.run(main)
