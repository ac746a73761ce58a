"""What automatic backups cost: add throughput with and without them, bytes of a backup.

In process, with embeddings made beforehand: the service spends most of an add on embedding, so
the share lost there is smaller.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.latency import ratio, timed_s
from benchmarks.machine import machine_facts
from benchmarks.results import write_result
from engine.memory_index import IndexOptions, MemoryIndex
from engine.records import FloatMatrix, ModelIdentity, NewMemory
from engine.store import DATABASE_NAME

SEED = 20261122
DIM = 384
_BATCH = 50
_ROUNDS = 10
_BATCHES_A_ROUND = 20
_BACKUPS = 10

_IDENTITY = ModelIdentity(name="random", dim=DIM, precision="fp32", fingerprint="0" * 64)


def main(
    sizes: Annotated[list[int] | None, typer.Option("--size", help="Memories stored.")] = None,
) -> None:
    """Measure at each size; JSON to standard output."""
    results = {str(size): measure(size) for size in sizes or [10_000, 100_000]}
    write_result("backup_cost", {"machine": machine_facts(), "seed": SEED, "by_memories": results})


def measure(size: int) -> dict[str, Any]:
    """Fill two directories alike, then add to them in turns, one with automatic backups."""
    rng = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as scratch:
        plain_dir, backed_dir = Path(scratch) / "plain", Path(scratch) / "backed"
        index = _open(plain_dir, max_backups=0)
        for _ in range(size // 1_000):
            _add(index, rng, 1_000)
        index.close()
        shutil.copytree(plain_dir, backed_dir)
        plain, backed = _open(plain_dir, max_backups=0), _open(backed_dir, max_backups=_BACKUPS)
        seconds: dict[str, list[float]] = {"plain": [], "backed": []}
        for at in range(_ROUNDS):
            turns = [("plain", plain), ("backed", backed)]
            for name, each in turns if at % 2 else reversed(turns):
                seconds[name].append(timed_s(_add_batches, each, rng))
        plain.close()
        backed.close()
        return {
            "throughput_kept": ratio(
                statistics.median(seconds["plain"]), statistics.median(seconds["backed"])
            ),
            **_bytes_of_backups(backed_dir, rng),
        }


def _bytes_of_backups(data_dir: Path, rng: np.random.Generator) -> dict[str, Any]:
    """Disk that one backup takes after one add, and that ten of them take together."""
    index = _open(data_dir, max_backups=0)
    shutil.rmtree(data_dir / "backups")
    (data_dir / "backups").mkdir()
    index.backup("base")
    used = [_disk_bytes(data_dir / "backups")]
    for _ in range(_BACKUPS - 1):
        _add(index, rng, 1)
        index.backup("one_add")
        used.append(_disk_bytes(data_dir / "backups"))
    index.close()
    return {
        "store_bytes": (data_dir / DATABASE_NAME).stat().st_size,
        "most_bytes_of_a_backup_after_one_add": max(np.diff(used).tolist()),
        "ten_backups_to_one": ratio(used[-1], used[0]),
    }


def _disk_bytes(directory: Path) -> int:
    """Bytes of the files, hard links counted once."""
    stats = [path.stat() for path in directory.rglob("*") if path.is_file()]
    return sum({stat.st_ino: stat.st_size for stat in stats}.values())


def _open(data_dir: Path, *, max_backups: int) -> MemoryIndex:
    options = IndexOptions(
        data_dir=data_dir, workspace_dir=data_dir, identity=_IDENTITY, max_backups=max_backups
    )
    return MemoryIndex(options, count_pieces=len)


def _add_batches(index: MemoryIndex, rng: np.random.Generator) -> None:
    for _ in range(_BATCHES_A_ROUND):
        _add(index, rng, _BATCH)


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
