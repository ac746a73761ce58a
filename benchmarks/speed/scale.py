"""One large store over REST: loading, weight, start, search and recall against exact, as JSON.

    python -m benchmarks.speed.scale [--size 1000000]

Real passages are embedded once; the rest are copies of them with a third of their words drawn
anew and noise on their vectors. All go through `/import` with their embeddings.
"""

from __future__ import annotations

import http.client
import json
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from benchmarks.support.corpora import DEFAULT_DATA_DIR, Passage, load_corpus
from benchmarks.support.filled_store import CACHE_DIR, disk_bytes, embed_cached, service_embedder
from benchmarks.support.latency import percentiles_ms, timed_s
from benchmarks.support.machine import machine_facts
from benchmarks.support.results import RESULTS_DIR, write_result
from benchmarks.support.running_service import BenchmarkError, RunningService, free_ports, launched
from engine.model.embedder import Embedder
from engine.records import FloatMatrix

_SEED = 20261123
_NOISE = 0.5
"""Length of the noise beside a vector of length 1: copies have a cosine of about 0.9 with it."""
_CHANGED_WORDS = 1 / 3
_BLOCK = 1_000
_DECIMALS = 6
_K = 10


@dataclass(frozen=True, slots=True)
class Copies:
    """Passages, and as many copies of them as are wanted."""

    passages: list[Passage]
    embeddings: FloatMatrix
    size: int

    def blocks(self) -> Iterator[tuple[list[str], FloatMatrix]]:
        """Texts and normalised vectors of the memories 0..size-1; the same ones each time."""
        words = np.array(" ".join(p.memory_text for p in self.passages).split())
        for start in range(0, self.size, _BLOCK):
            rng = np.random.default_rng([_SEED, start])
            rows = np.arange(start, min(start + _BLOCK, self.size)) % len(self.passages)
            texts = [self.passages[row].memory_text for row in rows]
            vectors = self.embeddings[rows]
            if start >= len(self.passages):
                texts = [_reworded(text, words, rng) for text in texts]
                noise = rng.standard_normal(vectors.shape, dtype=np.float32)
                vectors = vectors + noise * (_NOISE / math.sqrt(vectors.shape[1]))
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            yield texts, vectors.round(_DECIMALS)


def _reworded(text: str, words: Any, rng: np.random.Generator) -> str:  # noqa: ANN401 (array)
    """A text with some words drawn anew, frequent ones often."""
    own = np.array(text.split(), dtype=words.dtype)
    changed = rng.random(len(own)) < _CHANGED_WORDS
    own[changed] = rng.choice(words, int(changed.sum()))
    return " ".join(own)


def load(service: RunningService, copies: Copies) -> dict[str, Any]:
    """Import all of it as one stream; the rate of each tenth."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=3600)
    marks: list[float] = []
    started_s = time.monotonic()

    def body() -> Iterator[bytes]:
        console = Console(stderr=True)
        n_blocks = math.ceil(copies.size / _BLOCK)
        tenth = max(1, n_blocks // 10)
        for at, (texts, vectors) in enumerate(
            track(copies.blocks(), "importing", total=n_blocks, console=console)
        ):
            if at % tenth == 0:
                marks.append(time.monotonic())
            rows = [[round(value, _DECIMALS) for value in row] for row in vectors.tolist()]
            yield b"".join(
                json.dumps(
                    {"text": text, "source": str(at * _BLOCK + i), "embedding": row}
                ).encode()
                + b"\n"
                for i, (text, row) in enumerate(zip(texts, rows, strict=True))
            )

    with closing(connection):
        connection.request("POST", "/import?report=errors&deduplicate=false", body())
        *_, last = connection.getresponse().read().splitlines()
    took_s = time.monotonic() - started_s
    summary = json.loads(last)
    if summary.get("added") != copies.size:
        raise BenchmarkError(f"not everything was imported: {summary}")
    return {
        "seconds": round(took_s, 1),
        "memories_per_s": round(copies.size / took_s),
        "seconds_of_each_tenth": np.diff(marks).round(1).tolist(),
    }


def measure(
    service: RunningService, copies: Copies, queries: list[str], embedder: Embedder, data_dir: Path
) -> dict[str, Any]:
    """Load, weigh, restart, search."""
    report: dict[str, Any] = {"memories": copies.size}

    def work() -> None:
        report["import"] = load(service, copies)

    peak = service.peak_pss_mib(work)
    service.forget_connection()
    wait_for_codes(service)
    report["pss_mib"] = {"peak_of_import": peak, "after": service.pss_mib()}
    report["vector_index"] = service.ask("GET", "/stats")["vector_index"]
    service.stop()
    store_bytes = sum(f.stat().st_size for f in data_dir.glob("*") if f.is_file())
    report["bytes_per_memory"] = {
        "data_directory": round(store_bytes / copies.size),
        "with_backups": round(disk_bytes(data_dir) / copies.size),
    }
    report["start_s"] = round(service.start(), 1)
    report["pss_mib"]["after_start"] = service.pss_mib()
    report["search"] = {
        name: percentiles_ms([timed_s(search, service, query, hybrid) for query in queries])
        for name, hybrid in (("hybrid", True), ("vectors", False))
    }
    report["recall_at_10"] = recall(service, copies, queries, embedder)
    texts = [f"a new thought number {i} about {query}" for i, query in enumerate(queries)]
    report["add"] = percentiles_ms([timed_s(add, service, text) for text in texts])
    return report


def search(service: RunningService, query: str, hybrid: bool) -> list[int]:
    """The memories found, best first."""
    body = {"query": query, "k": _K, "hybrid": hybrid}
    return [int(hit["source"]) for hit in service.ask("POST", "/search", body)["results"]]


def add(service: RunningService, text: str) -> None:
    """One add, with its search for a duplicate."""
    service.ask("POST", "/memory/add", {"text": text, "source": "0"})


def recall(
    service: RunningService, copies: Copies, queries: list[str], embedder: Embedder
) -> float:
    """Share of the true ten nearest, found by comparing with every vector, that are found."""
    vectors = embedder.embed(queries)
    best = np.full((len(queries), _K), -np.inf, dtype=np.float32)
    nearest = np.full((len(queries), _K), -1)
    for at, (_, block) in enumerate(copies.blocks()):
        scores = np.concatenate([best, vectors @ block.T], axis=1)
        rows = np.concatenate(
            [nearest, np.tile(np.arange(len(block)) + at * _BLOCK, (len(queries), 1))], axis=1
        )
        order = np.argsort(-scores, axis=1, kind="stable")[:, :_K]
        best = np.take_along_axis(scores, order, axis=1)
        nearest = np.take_along_axis(rows, order, axis=1)
    service.forget_connection()
    found = [
        len({*search(service, query, False)} & {*true.tolist()})
        for query, true in zip(queries, nearest, strict=True)
    ]
    return round(sum(found) / nearest.size, 4)


def wait_for_codes(service: RunningService) -> None:
    """Until the index has switched to the codes of this size, or has nothing to switch."""
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s:
        stats = service.ask("GET", "/stats")
        if stats["vector_index"] == "rabitq" or stats["total_memories"] < 20_000:
            return
        time.sleep(1)
    raise BenchmarkError("the index did not switch to codes")


def main(
    size: Annotated[int, typer.Option(min=100, help="Memories.")] = 1_000_000,
    embedded: Annotated[int, typer.Option(min=50, help="Passages that are embedded.")] = 100_000,
    n_queries: Annotated[int, typer.Option("--queries", min=1)] = 300,
    data_dir: Annotated[Path, typer.Option(help="Holds wordnet_glosses.")] = DEFAULT_DATA_DIR,
    cache_dir: Annotated[Path, typer.Option(help="Keeps embeddings for later runs.")] = CACHE_DIR,
    first_port: Annotated[int, typer.Option(help="The first free one from here on.")] = 8960,
    results_dir: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULTS_DIR,
) -> None:
    """Measure one large store and print JSON."""
    n_embedded = min(size, embedded)
    corpus = load_corpus(data_dir, n_embedded)
    passages = list(corpus.passages)
    embedder = service_embedder()
    embeddings = embed_cached(embedder, [p.memory_text for p in passages], cache_dir)
    queries = [p.text.partition(";")[0] for p in passages[:n_queries]]
    [port] = free_ports(first_port, 1)
    with tempfile.TemporaryDirectory(prefix="fmb-") as directory:
        data = Path(directory) / "data"
        with launched(data, port) as service:
            copies = Copies(passages, embeddings, size)
            report = measure(service, copies, queries, embedder, data)
    result = {"machine": machine_facts(), "corpus": corpus.name, **report}
    write_result("scale", result, results_dir)


if __name__ == "__main__":
    typer.run(main)
