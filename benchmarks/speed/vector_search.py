"""Speed, recall and memory of the vector index, exact and RaBitQ side by side, as JSON.

    python -m benchmarks.speed.vector_search [--corpus corpus.jsonl.gz] [--sizes 1000 10000 100000]

A corpus (lines of `{"title", "text"}`) is sampled, embedded and enlarged by noisy copies, and
titles are the queries; without one the vectors are synthetic. Every pair is measured in one
interleaved run with one thread: trust the ratios, not the times.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.support.corpora import read_passages
from benchmarks.support.latency import in_turns, percentiles_ms, ratio
from benchmarks.support.results import write_result
from engine.model.embedder import Embedder
from engine.model.files import default_model_dir
from engine.records import BoolMask, FloatMatrix, RowArray
from engine.search.vectors.vector_index import VectorIndex

DIM = 384
K_VALUES = (1, 10, 100, 300)
LIVE_SHARES = (0.95, 0.5, 0.1, 0.01)
N_QUERIES = 200
N_DUPLICATES = 2_048
LINES_OF_A_WRITE = 256
DEDUP_THRESHOLD = 0.90
NEVER = 1 << 60


def normalised(vectors: FloatMatrix) -> FloatMatrix:
    """Rows scaled to length 1, float32."""
    scaled: FloatMatrix = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled.astype(np.float32)


def synthetic(n: int, rng: np.random.Generator) -> FloatMatrix:
    """Clustered vectors, for when no embeddings are at hand."""
    centres = normalised(rng.standard_normal((n // 100 + 1, DIM), dtype=np.float32))
    noise = rng.standard_normal((n, DIM), dtype=np.float32) / np.sqrt(DIM)
    return normalised(centres[rng.integers(0, len(centres), n)] + 0.7 * noise)


def embedded(corpus: Path, n: int, rng: np.random.Generator) -> tuple[FloatMatrix, FloatMatrix]:
    """Embeddings of `N_QUERIES` titles and of n passages of a corpus."""
    passages = read_passages(corpus)
    sample = [passages[i] for i in rng.permutation(len(passages))[:n]]
    embedder = Embedder(default_model_dir(os.environ, Path.home()), precision="int8")
    titles = embedder.embed([passage.title for passage in sample[:N_QUERIES]])
    return titles, embedder.embed([passage.memory_text for passage in sample])


def enlarged(base: FloatMatrix, n: int, rng: np.random.Generator) -> FloatMatrix:
    """N rows: a sample of `base`, or all of it and noisy copies (cosine about 0.9)."""
    if n <= len(base):
        return base[rng.permutation(len(base))[:n]]
    vectors = np.resize(base, (n, base.shape[1]))
    for start in range(len(base), n, 1 << 16):
        block = vectors[start : start + (1 << 16)]
        noise = rng.standard_normal(block.shape, dtype=np.float32)
        block[:] = normalised(block + 0.48 / np.sqrt(DIM) * noise)
    return vectors


def recall(found: RowArray, truth: RowArray) -> float:
    """Mean share of the true rows that were found."""
    shares = [np.isin(t, f).mean() for f, t in zip(found, truth, strict=True)]
    return round(float(np.mean(shares)), 4)


def measure(vectors: FloatMatrix, queries: FloatMatrix) -> dict[str, Any]:
    """All figures of one size."""
    exact = VectorIndex(DIM, exact_below=NEVER)
    rabitq = VectorIndex(DIM, exact_below=1)
    for index in (exact, rabitq):
        index.add(vectors)
    start = time.perf_counter()
    built = rabitq.build_quantised()
    build_s = time.perf_counter() - start
    rabitq.adopt(built)
    indexes = {"exact": exact, "rabitq": rabitq}
    report: dict[str, Any] = {"n_rows": len(vectors), "build_s": round(build_s, 3)}
    report["bytes_per_vector"] = {
        name: round(index.n_bytes / index.n_rows, 1) for name, index in indexes.items()
    }
    report["search"] = {f"k{k}": compare(indexes, queries, k, None) for k in K_VALUES}
    rng = np.random.default_rng(1)
    report["masked_k10"] = {
        str(share): compare(indexes, queries, 10, rng.random(len(vectors)) < share)
        for share in LIVE_SHARES
    }
    duplicates = near_duplicates(vectors, rng)
    report["nearest_in_batch_ms_per_query"] = {
        name: round(batch_ms(index, duplicates), 3) for name, index in indexes.items()
    }
    _, found = rabitq.nearest(duplicates, 1, DEDUP_THRESHOLD)
    report["near_duplicates_found"] = round(float((found >= DEDUP_THRESHOLD).mean()), 5)
    report["add_one_us"] = {
        name: round(add_one_us(index, queries), 1) for name, index in indexes.items()
    }
    return report


def compare(
    indexes: dict[str, VectorIndex], queries: FloatMatrix, k: int, live: BoolMask | None
) -> dict[str, Any]:
    """Latency of both kinds, their ratio, and the recall of RaBitQ against exact."""
    calls: dict[str, Callable[[FloatMatrix], object]] = {
        name: lambda query, index=index: index.search(query, k, live)  # type: ignore[misc]
        for name, index in indexes.items()
    }
    seconds = in_turns(calls, [query[None] for query in queries])
    figures: dict[str, Any] = {f"{name}_ms": percentiles_ms(s) for name, s in seconds.items()}
    figures["rabitq_to_exact_p50"] = ratio(figures["rabitq_ms"]["p50"], figures["exact_ms"]["p50"])
    truth, _ = indexes["exact"].search(queries, k, live)
    figures["rabitq_recall"] = recall(indexes["rabitq"].search(queries, k, live)[0], truth)
    return figures


def near_duplicates(vectors: FloatMatrix, rng: np.random.Generator) -> FloatMatrix:
    """Copies of some rows whose cosine with them hardly reaches the threshold: the hardest."""
    rows = vectors[rng.integers(0, len(vectors), N_DUPLICATES)]
    noise = rng.standard_normal(rows.shape, dtype=np.float32)
    noise = normalised(noise - (noise * rows).sum(axis=1, keepdims=True) * rows)
    cosine = DEDUP_THRESHOLD + 0.001
    return normalised(cosine * rows + np.float32(np.sqrt(1 - cosine**2)) * noise)


def batch_ms(index: VectorIndex, queries: FloatMatrix) -> float:
    """Milliseconds a line of the look for duplicates of an import."""
    start = time.perf_counter()
    for at in range(0, len(queries), LINES_OF_A_WRITE):
        index.nearest(queries[at : at + LINES_OF_A_WRITE], 1, DEDUP_THRESHOLD)
    return (time.perf_counter() - start) * 1e3 / len(queries)


def add_one_us(index: VectorIndex, vectors: FloatMatrix) -> float:
    """Median microseconds to add one vector."""
    times = []
    for i in range(len(vectors)):
        start = time.perf_counter()
        index.add(vectors[i : i + 1])
        times.append((time.perf_counter() - start) * 1e6)
    return float(np.median(times))


def main() -> None:
    """Measure every size and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, help="JSON lines, gzipped")
    parser.add_argument("--sample", type=int, default=30_000, help="passages to embed")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    if arguments.corpus is None:
        pool = synthetic(max(arguments.sizes) + N_QUERIES, rng)
        queries, base = pool[:N_QUERIES], pool[N_QUERIES:]
    else:
        queries, base = embedded(arguments.corpus, arguments.sample, rng)
    report = {
        "vectors": "synthetic" if arguments.corpus is None else arguments.corpus.parent.name,
        "sizes": [measure(enlarged(base, n, rng), queries) for n in arguments.sizes],
    }
    write_result("vector_search", report)


if __name__ == "__main__":
    main()
