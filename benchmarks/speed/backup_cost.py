"""What automatic backups cost: add throughput with and without them, bytes of a backup.

Two services on copies of one store, one with automatic backups, take the same adds in turns, each
longer than a burst may last without a backup. Bytes are counted in process, with random vectors.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.speed.contenders import OverRest
from benchmarks.support.corpora import DEFAULT_DATA_DIR, load_corpus
from benchmarks.support.filled_store import (
    CACHE_DIR,
    disk_bytes,
    embed_cached,
    fill,
    service_embedder,
)
from benchmarks.support.latency import at_once, ratio
from benchmarks.support.machine import machine_facts
from benchmarks.support.results import RESULTS_DIR, write_result
from benchmarks.support.running_service import free_ports, launched
from engine.index_options import IndexOptions
from engine.memory_index import MemoryIndex
from engine.records import FloatMatrix, ModelIdentity, NewMemory
from engine.store.database import DATABASE_NAME

SEED = 20261122
DIM = 384
_TURNS = ("plain", "backed", "backed", "plain")
_BACKUPS = 10
_BLOCK = 1_000

_IDENTITY = ModelIdentity(name="random", dim=DIM, precision="fp32", fingerprint="0" * 64)


def main(
    sizes: Annotated[list[int] | None, typer.Option("--size", help="Memories stored.")] = None,
    adds: Annotated[
        int, typer.Option(min=16, help="Of a turn; a backup comes every 30 s.")
    ] = 8_000,
    clients: Annotated[int, typer.Option(min=1, help="That add at once.")] = 16,
    data_dir: Annotated[Path, typer.Option(help="Holds wordnet_glosses.")] = DEFAULT_DATA_DIR,
    cache_dir: Annotated[Path, typer.Option(help="Keeps embeddings for later runs.")] = CACHE_DIR,
    first_port: Annotated[int, typer.Option(help="The first free ones from here on.")] = 8950,
    results_dir: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULTS_DIR,
) -> None:
    """Measure at each size; JSON to standard output."""
    sizes = sizes or [10_000, 100_000]
    corpus = load_corpus(data_dir, max(sizes) + adds * len(_TURNS) // 2)
    texts = [passage.memory_text for passage in corpus.passages]
    embedder = service_embedder()
    embeddings = embed_cached(embedder, texts[: max(sizes)], cache_dir)
    results = {}
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="fmb-") as scratch:
            filled = Path(scratch) / "filled"
            fill(filled, corpus.passages[:size], embeddings[:size], embedder)
            results[str(size)] = {
                "throughput": _throughput(filled, texts[size:], adds, clients, first_port),
                **_bytes_of_backups(size),
            }
    result = {"machine": machine_facts(), "seed": SEED, "by_memories": results}
    write_result("backup_cost", result, results_dir)


def _throughput(
    filled: Path, texts: Sequence[str], n_adds: int, n_clients: int, first_port: int
) -> dict[str, Any]:
    """Adds a second of both services, and what share of it the backups leave."""
    ports = free_ports(first_port, 2)
    seconds: dict[str, list[float]] = {"plain": [], "backed": []}
    with ExitStack() as stack:
        services = {}
        for name, n_backups, port in zip(seconds, (0, _BACKUPS), ports, strict=True):
            copy = shutil.copytree(filled, filled.with_name(name))
            settings = {"MAX_BACKUPS": str(n_backups)}
            services[name] = stack.enter_context(launched(copy, port, settings=settings))
        for name in _TURNS:
            turn = len(seconds[name])
            own = texts[turn * n_adds : (turn + 1) * n_adds]
            contender = OverRest(services[name])
            seconds[name].append(at_once(contender.add, own, n_clients)[1])
        services["backed"].forget_connection()
        made = services["backed"].ask("GET", "/stats")["backup_count"]
    rates = {name: round(len(taken) * n_adds / sum(taken), 1) for name, taken in seconds.items()}
    return {
        **{f"{name}_adds_per_s": rate for name, rate in rates.items()},
        "kept": ratio(rates["backed"], rates["plain"]),
        "seconds_of_turns": {name: [round(s, 1) for s in taken] for name, taken in seconds.items()},
        "backups_made": made,
    }


def _bytes_of_backups(size: int) -> dict[str, Any]:
    """Disk that one backup takes after one add, and that ten of them take together."""
    rng = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory(prefix="fmb-") as scratch:
        data_dir = Path(scratch)
        options = IndexOptions(
            data_dir=data_dir, workspace_dir=data_dir, identity=_IDENTITY, max_backups=0
        )
        index = MemoryIndex(options, count_pieces=len)
        for start in range(0, size, _BLOCK):
            _add(index, rng, min(_BLOCK, size - start))
        index.backup("base")
        used = [disk_bytes(data_dir / "backups")]
        for _ in range(_BACKUPS - 1):
            _add(index, rng, 1)
            index.backup("one_add")
            used.append(disk_bytes(data_dir / "backups"))
        index.close()
        store_bytes = (data_dir / DATABASE_NAME).stat().st_size
    return {
        "store_bytes": store_bytes,
        "most_bytes_of_a_backup_after_one_add": max(np.diff(used).tolist()),
        "ten_backups_to_one": ratio(used[-1], used[0]),
    }


def _add(index: MemoryIndex, rng: np.random.Generator, n: int) -> None:
    words: Sequence[str] = [f"word{w}" for w in rng.integers(20_000, size=12 * n)]
    memories = [
        NewMemory(text=" ".join(words[12 * i : 12 * i + 12]), source="s", deduplicate=False)
        for i in range(n)
    ]
    vectors: FloatMatrix = rng.standard_normal((n, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index.add(memories, vectors, request_id=f"{rng.integers(2**62)}").result()


if __name__ == "__main__":
    typer.run(main)
