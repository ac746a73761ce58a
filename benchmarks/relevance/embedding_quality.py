"""What int8 costs and brings against fp32: cosine, nDCG@10 and texts per second, as JSON.

Vector search alone, exact, over test collections in BEIR layout (`corpus.jsonl.gz`,
`queries.jsonl`, `qrels/test.tsv`). Both precisions embed the same blocks of text in turn, so
that what else the machine does weighs on both.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from benchmarks.relevance.judged import JudgedSet, read_judged_set
from benchmarks.relevance.measures import K, ndcg
from benchmarks.support.corpora import DEFAULT_DATA_DIR
from benchmarks.support.results import write_result
from engine.errors import EngineError
from engine.model.embedder import Embedder
from engine.model.files import PRECISIONS, Precision, default_model_dir
from engine.model.precision import MAX_NDCG_LOSS
from engine.records import FloatMatrix

COLLECTIONS = ("cacm", "cisi", "cranfield")

_BLOCK_TEXTS = 128


@dataclass(slots=True, kw_only=True)
class Stopwatch:
    """Work done, and the time it took."""

    n_texts: int = 0
    elapsed_s: float = 0.0


def mean_ndcg(judged: JudgedSet, top: Sequence[Sequence[int]]) -> float:
    """Mean nDCG@10 over the queries; `top` holds rows of documents, best first."""
    values = []
    for query, rows in zip(judged.queries, top, strict=True):
        ranked = [query.grades.get(judged.documents[row].id, 0) for row in rows]
        values.append(ndcg(ranked, list(query.grades.values()), K))
    return float(np.mean(values))


def embed_timed(
    embedder: Embedder, texts: Sequence[str], pool: ThreadPoolExecutor, watch: Stopwatch
) -> FloatMatrix:
    """Embed with the pool's threads as callers, and note how long it took."""
    start = time.perf_counter()
    embeddings = np.empty((len(texts), embedder.dim), np.float32)
    # Long runs first, so that no caller is left with one at the end.
    runs = embedder.plan_runs(texts)[::-1]
    for run, rows in zip(runs, pool.map(embedder.embed_run, runs), strict=True):
        embeddings[run.rows] = rows
    watch.n_texts += len(texts)
    watch.elapsed_s += time.perf_counter() - start
    return embeddings


def embed_in_turn(
    embedders: dict[Precision, Embedder],
    texts: Sequence[str],
    pool: ThreadPoolExecutor,
    watches: dict[Precision, Stopwatch],
    label: str,
) -> dict[Precision, FloatMatrix]:
    """Embed block after block in every precision."""
    parts: dict[Precision, list[FloatMatrix]] = {precision: [] for precision in embedders}
    starts = range(0, len(texts), _BLOCK_TEXTS)
    for start in track(starts, label, console=Console(stderr=True)):
        block = texts[start : start + _BLOCK_TEXTS]
        for precision, embedder in embedders.items():
            parts[precision].append(embed_timed(embedder, block, pool, watches[precision]))
    return {precision: np.concatenate(rows) for precision, rows in parts.items()}


def best_rows(queries: FloatMatrix, docs: FloatMatrix) -> list[list[int]]:
    """Rows of the `K` documents nearest to each query, by exact inner product."""
    order = np.argsort(-(queries @ docs.T), axis=1, kind="stable")[:, :K]
    return [[int(row) for row in rows] for rows in order]


def measure(data_dir: Path, model_dir: Path, n_callers: int) -> dict[str, Any]:
    """Embed every collection in both precisions and compare."""
    embedders = {p: Embedder(model_dir, precision=p) for p in PRECISIONS}
    watches = {p: Stopwatch() for p in PRECISIONS}
    sets: dict[str, dict[str, Any]] = {}
    cosines = []
    with ThreadPoolExecutor(n_callers) as pool:
        for name in COLLECTIONS:
            judged = read_judged_set(data_dir / name)
            docs = embed_in_turn(embedders, judged.texts, pool, watches, name)
            asked = [query.text for query in judged.queries]
            queries = {p: e.embed(asked) for p, e in embedders.items()}
            top = {p: best_rows(queries[p], docs[p]) for p in PRECISIONS}
            scores = {p: mean_ndcg(judged, top[p]) for p in PRECISIONS}
            overlaps = [
                len(set(a) & set(b)) / K for a, b in zip(top["fp32"], top["int8"], strict=True)
            ]
            cosines.append((docs["fp32"] * docs["int8"]).sum(axis=1))
            sets[name] = {
                "n_docs": len(judged.documents),
                "n_queries": len(judged.queries),
                "ndcg_at_10": {p: round(score, 4) for p, score in scores.items()},
                "ndcg_loss": round(scores["fp32"] - scores["int8"], 4),
                "top_10_overlap": round(float(np.mean(overlaps)), 4),
            }
    cosine = np.concatenate(cosines)
    rate = {p: watch.n_texts / watch.elapsed_s for p, watch in watches.items()}
    return {
        "model": embedders["fp32"].identity.name,
        "cosine_int8_fp32": {
            "mean": round(float(cosine.mean()), 5),
            "p1": round(float(np.percentile(cosine, 1)), 5),
            "min": round(float(cosine.min()), 5),
        },
        "collections": sets,
        "callers": n_callers,
        "texts_per_s": {p: round(value, 1) for p, value in rate.items()},
        "speed_up": round(rate["int8"] / rate["fp32"], 2),
        "int8_keeps_quality": all(s["ndcg_loss"] < MAX_NDCG_LOSS for s in sets.values()),
    }


def main(
    data_dir: Annotated[
        Path, typer.Option(help="Holds the collections cacm, cisi and cranfield.")
    ] = DEFAULT_DATA_DIR,
    model_dir: Annotated[
        Path | None, typer.Option(help="By default MODEL_DIR, else the shared cache.")
    ] = None,
    callers: Annotated[int, typer.Option(min=1, help="Threads that embed at once.")] = 2,
) -> None:
    """Compare int8 with fp32 and print JSON."""
    console = Console(stderr=True)
    absent = [name for name in COLLECTIONS if not (data_dir / name).is_dir()]
    if absent:
        console.print(f"No {', '.join(absent)} in {data_dir}: name their directory by --data-dir")
        raise typer.Exit(2)
    try:
        result = measure(data_dir, model_dir or default_model_dir(os.environ, Path.home()), callers)
    except EngineError as exc:
        console.print(str(exc), highlight=False)
        raise typer.Exit(1) from exc
    write_result("embedding_quality", result)


if __name__ == "__main__":
    typer.run(main)
