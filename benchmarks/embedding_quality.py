"""What int8 costs and brings against fp32: cosine, nDCG@10 and texts per second, as JSON.

Vector search alone, exact, over test collections in BEIR layout (`corpus.jsonl.gz`,
`queries.jsonl`, `qrels/test.tsv`). Both precisions embed the same blocks of text in turn, so
that what else the machine does weighs on both.
"""

from __future__ import annotations

import csv
import gzip
import json
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

from benchmarks.corpora import DEFAULT_DATA_DIR, corpus_file
from benchmarks.results import write_result
from engine.embedder import Embedder
from engine.errors import EngineError
from engine.model_files import PRECISIONS, Precision, default_model_dir
from engine.precision import MAX_NDCG_LOSS
from engine.records import FloatMatrix

COLLECTIONS = ("cacm", "cisi", "cranfield")

_BLOCK_TEXTS = 128
_K = 10

Relevance = dict[str, dict[str, int]]
"""Query id to document id to grade."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Documents, the judged queries, and the judgements."""

    doc_ids: list[str]
    docs: list[str]
    query_ids: list[str]
    queries: list[str]
    relevance: Relevance


@dataclass(slots=True, kw_only=True)
class Stopwatch:
    """Work done, and the time it took."""

    n_texts: int = 0
    elapsed_s: float = 0.0


def load_collection(directory: Path) -> Collection:
    """Read a collection in BEIR layout; queries without a judgement are left out."""
    with gzip.open(corpus_file(directory), "rt", encoding="utf-8") as file:
        docs = [json.loads(line) for line in file]
    with (directory / "queries.jsonl").open(encoding="utf-8") as file:
        queries = [json.loads(line) for line in file]
    relevance: Relevance = {}
    with (directory / "qrels" / "test.tsv").open(encoding="utf-8") as file:
        rows = csv.reader(file, delimiter="\t")
        next(rows)
        for query_id, doc_id, grade in rows:
            relevance.setdefault(query_id, {})[doc_id] = int(grade)
    judged = [query for query in queries if query["_id"] in relevance]
    return Collection(
        doc_ids=[doc["_id"] for doc in docs],
        docs=[f"{doc['title']} {doc['text']}" for doc in docs],
        query_ids=[query["_id"] for query in judged],
        queries=[query["text"] for query in judged],
        relevance=relevance,
    )


def ndcg(ranked_grades: Sequence[int], all_grades: Sequence[int], k: int) -> float:
    """Normalised discounted cumulative gain at k, with the grade as gain, as trec_eval does it.

    Args:
        ranked_grades: grade of each hit, best hit first; 0 for one without a judgement.
        all_grades: every grade that the query's judgements give.
        k: hits that count.
    """

    def dcg(grades: Sequence[int]) -> float:
        gains = np.array([max(grade, 0) for grade in grades[:k]], np.float64)
        return float((gains / np.log2(np.arange(len(gains)) + 2)).sum())

    ideal = dcg(sorted(all_grades, reverse=True))
    return dcg(ranked_grades) / ideal if ideal else 0.0


def mean_ndcg(collection: Collection, top: Sequence[Sequence[int]]) -> float:
    """Mean nDCG over the judged queries; `top` holds rows of documents, best first."""
    values = []
    for query_id, rows in zip(collection.query_ids, top, strict=True):
        grades = collection.relevance[query_id]
        ranked = [grades.get(collection.doc_ids[row], 0) for row in rows]
        values.append(ndcg(ranked, list(grades.values()), _K))
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
    """Rows of the `_K` documents nearest to each query, by exact inner product."""
    order = np.argsort(-(queries @ docs.T), axis=1, kind="stable")[:, :_K]
    return [[int(row) for row in rows] for rows in order]


def measure(data_dir: Path, model_dir: Path, n_callers: int) -> dict[str, Any]:
    """Embed every collection in both precisions and compare."""
    embedders = {p: Embedder(model_dir, precision=p) for p in PRECISIONS}
    watches = {p: Stopwatch() for p in PRECISIONS}
    sets: dict[str, dict[str, Any]] = {}
    cosines = []
    with ThreadPoolExecutor(n_callers) as pool:
        for name in COLLECTIONS:
            collection = load_collection(data_dir / name)
            docs = embed_in_turn(embedders, collection.docs, pool, watches, name)
            queries = {p: e.embed(collection.queries) for p, e in embedders.items()}
            top = {p: best_rows(queries[p], docs[p]) for p in PRECISIONS}
            scores = {p: mean_ndcg(collection, top[p]) for p in PRECISIONS}
            overlaps = [
                len(set(a) & set(b)) / _K for a, b in zip(top["fp32"], top["int8"], strict=True)
            ]
            cosines.append((docs["fp32"] * docs["int8"]).sum(axis=1))
            sets[name] = {
                "n_docs": len(collection.docs),
                "n_queries": len(collection.queries),
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
