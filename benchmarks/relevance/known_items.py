"""Finding again what was loaded: hit@1 and hit@10 over the running service, as JSON.

    python -m benchmarks.relevance.known_items [--limit 2000]

`faiss-memory import` adds the WordNet glosses. Then glosses are looked for by their text and by
their title: by vectors alone, by keywords alone, and by both. A hit is that very gloss: a title
with several glosses (homonyms) has one right answer and others that look as right, so the titles
that only one gloss has are shown apart.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from benchmarks.support.corpora import (
    DEFAULT_DATA_DIR,
    GLOSSES,
    Passage,
    corpus_file,
    read_passages,
)
from benchmarks.support.latency import in_turns, percentiles_ms
from benchmarks.support.machine import machine_facts
from benchmarks.support.results import RESULTS_DIR, write_result
from benchmarks.support.running_service import (
    ROOT,
    BenchmarkError,
    RunningService,
    free_ports,
    launched,
)

MODES: dict[str, dict[str, Any]] = {
    "vector": {"hybrid": False},
    "keyword": {"vector_weight": 0},
    "hybrid": {},
}
_K = 10
_SOURCE = "known_items"
# Every mode of a query pays for its embedding, whichever comes first.
_SETTINGS = {"QUERY_CACHE_SIZE": "0"}


@dataclass(slots=True)
class Finder:
    """Looks for passages in one mode, and keeps the rank of each; `_K` when it is not found."""

    service: RunningService
    mode: Mapping[str, Any]
    query_of: Callable[[Passage], str]
    ranks: list[int] = field(default_factory=list)

    def __call__(self, passage: Passage) -> None:
        """Search once."""
        body = {"query": self.query_of(passage), "k": _K, **self.mode}
        hits = self.service.ask("POST", "/search", body)["results"]
        sources = [hit["source"] for hit in hits]
        wanted = f"{_SOURCE}/{passage.id}"
        self.ranks.append(sources.index(wanted) if wanted in sources else _K)


def load(service: RunningService, passages: Sequence[Passage], *, with_title: bool) -> float:
    """Import passages by the command line; returns the seconds it took.

    Raises:
        BenchmarkError: the import failed.
    """
    command = [sys.executable, "-m", "scripts.cli.app", "import", "-", "--format", "jsonl"]
    command += ["--no-deduplicate", "--no-resume", "--url", service.url]
    lines = [
        {
            "text": passage.memory_text if with_title else passage.text,
            "source": f"{_SOURCE}/{passage.id}",
        }
        for passage in passages
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines)
    start = time.perf_counter()
    # What it says is not the result.
    done = subprocess.run(
        command, cwd=ROOT, check=False, input=content, text=True, stdout=subprocess.DEVNULL
    )
    if done.returncode:
        raise BenchmarkError("the import failed")
    return time.perf_counter() - start


def find_all(
    service: RunningService,
    passages: Sequence[Passage],
    query_of: Callable[[Passage], str],
    is_unique: Sequence[bool],
) -> dict[str, Any]:
    """Look for every passage in every mode, taking turns."""
    finders = {name: Finder(service, mode, query_of) for name, mode in MODES.items()}
    seconds = in_turns(finders, passages)
    return {
        name: hits_at(finder.ranks)
        | {"unique_titles": hits_at([r for r, u in zip(finder.ranks, is_unique, strict=True) if u])}
        | {"latency_ms": percentiles_ms(seconds[name])}
        for name, finder in finders.items()
    }


def hits_at(ranks: Sequence[int], depths: Sequence[int] = (1, _K)) -> dict[str, float]:
    """Share of ranks, from 0, that are the first, and among the first so many."""
    n = max(len(ranks), 1)
    return {f"hit@{k}": round(sum(rank < k for rank in ranks) / n, 4) for k in depths}


def measure(
    service: RunningService, file: Path, *, limit: int | None, n_queries: int, with_title: bool
) -> dict[str, Any]:
    """Load the file, then look for a sample of it."""
    machine = machine_facts()
    passages = read_passages(file, limit)
    load_s = load(service, passages, with_title=with_title)
    service.forget_connection()
    stats = service.ask("GET", "/stats")
    chosen = np.random.default_rng(0).permutation(len(passages))[:n_queries]
    sample = [passages[i] for i in chosen]
    n_glosses = Counter(passage.title for passage in passages)
    is_unique = [n_glosses[passage.title] == 1 for passage in sample]
    service.ask("POST", "/search", {"query": "warm-up"})
    return {
        "machine": machine,
        "loaded": {
            "memories": stats["total_memories"],
            "with_title": with_title,
            "seconds": round(load_s, 1),
            "per_s": round(stats["total_memories"] / load_s, 1),
        },
        "vector_index": stats["vector_index"],
        "queries": len(sample),
        "queries_of_unique_titles": sum(is_unique),
        "by_gloss": find_all(service, sample, lambda passage: passage.text, is_unique),
        "by_title": find_all(service, sample, lambda passage: passage.title, is_unique),
    }


def main(
    data_dir: Annotated[Path, typer.Option(help="Holds wordnet_glosses.")] = DEFAULT_DATA_DIR,
    limit: Annotated[int | None, typer.Option(min=1, help="Load only so many.")] = None,
    queries: Annotated[int, typer.Option(min=1, help="Of each kind.")] = 1_000,
    title: Annotated[bool, typer.Option(help="Put 'title: ' before the memory's text.")] = True,
    first_port: Annotated[int, typer.Option(help="The first free one from here on.")] = 8970,
    keep: Annotated[
        Path | None, typer.Option(help="Make the store there and leave it, for other uses.")
    ] = None,
    results_dir: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULTS_DIR,
) -> None:
    """Load the WordNet glosses into a service of its own and look for them."""
    file = corpus_file(data_dir / GLOSSES)
    if not file.is_file():
        message = f"No {GLOSSES} in {data_dir}: name its directory by --data-dir"
        Console(stderr=True).print(message)
        raise typer.Exit(2)
    [port] = free_ports(first_port, 1)
    temporary = tempfile.TemporaryDirectory(prefix="fmb-", dir="/tmp")
    with nullcontext(str(keep)) if keep else temporary as directory:
        Path(directory).mkdir(parents=True, exist_ok=True)
        with launched(Path(directory) / "data", port, settings=_SETTINGS) as service:
            result = measure(service, file, limit=limit, n_queries=queries, with_title=title)
    write_result("known_items", result, results_dir)


if __name__ == "__main__":
    typer.run(main)
