"""What `min_score` keeps and lets through, as JSON.

The questions of every collection are put to its own store and to those of the other collections.
Of the own: which share of the relevant hits among the first ten reaches a bound? Of the foreign:
which share of the questions has a hit that reaches it? Collections that know something of each
other's topics are among them (abstracts of medicine and of computing, chats, documentation), as
they are in one person's memories: see the worst pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.relevance.judged import JUDGED_SETS, JudgedQuery, JudgedSet, read_judged_set
from benchmarks.relevance.judged_stores import opened
from benchmarks.relevance.recall import present
from benchmarks.support.corpora import DEFAULT_DATA_DIR
from benchmarks.support.filled_store import CACHE_DIR, service_embedder
from benchmarks.support.results import RESULTS_DIR, write_result
from engine.memory_index import MemoryIndex
from engine.model.embedder import Embedder
from engine.records import EmbeddedQuery, SearchHit, SearchQuery

BOUNDS = (0.35, 0.4, 0.45, 0.5)
_K = 10
_WORST_PAIRS = 8

Asked = Sequence[tuple[JudgedQuery, EmbeddedQuery]]


def hits(index: MemoryIndex, query: JudgedQuery, asked: EmbeddedQuery) -> list[SearchHit]:
    """The ten best of all that the store holds."""
    wanted = SearchQuery(text=query.text, k=_K, pieces=asked.pieces)
    return index.search(asked.vector[None], [wanted])[0]


def own_scores(index: MemoryIndex, asked: Asked) -> list[float]:
    """Scores of the relevant hits."""
    return [
        hit.score or 0.0
        for query, read in asked
        for hit in hits(index, query, read)
        if query.grades.get(str(hit.memory.key), 0) > 0
    ]


def best_scores(index: MemoryIndex, asked: Asked) -> list[float]:
    """The score of the best hit of each question."""
    found = (hits(index, query, read) for query, read in asked)
    return [of_query[0].score or 0.0 if of_query else 0.0 for of_query in found]


def reaching(scores: Sequence[float]) -> dict[str, float]:
    """By bound: which share reaches it."""
    return {str(bound): round(float(np.mean(np.array(scores) >= bound)), 3) for bound in BOUNDS}


def summary(
    own: Mapping[str, list[float]], foreign: Mapping[tuple[str, str], list[float]]
) -> dict[str, Any]:
    """Means over collections and over pairs of them, and the pairs that let most through."""
    of_pairs = {f"{asked} to {store}": reaching(s) for (asked, store), s in foreign.items()}
    of_sets = {name: reaching(scores) for name, scores in own.items()}
    bounds = [str(bound) for bound in BOUNDS]
    worst = sorted(of_pairs, key=lambda pair: -of_pairs[pair][bounds[0]])[:_WORST_PAIRS]
    return {
        "relevant_hits_kept": {
            b: round(np.mean([s[b] for s in of_sets.values()]), 3) for b in bounds
        },
        "foreign_questions_answered": {
            b: round(np.mean([s[b] for s in of_pairs.values()]), 3) for b in bounds
        },
        "in_the_median_pair": {
            b: round(np.median([s[b] for s in of_pairs.values()]), 3) for b in bounds
        },
        "worst_pairs": {pair: of_pairs[pair] for pair in worst},
        "own": {
            name: {"median": round(float(np.median(scores)), 3)} | of_sets[name]
            for name, scores in own.items()
        },
    }


def measure(
    sets: Sequence[JudgedSet], n_questions: int, embedder: Embedder, cache_dir: Path
) -> dict[str, Any]:
    """Every collection's first questions to every store."""
    asked = {
        judged.name: [(query, embedder.read(query.text)) for query in judged.queries[:n_questions]]
        for judged in sets
    }
    own: dict[str, list[float]] = {}
    foreign: dict[tuple[str, str], list[float]] = {}
    for judged in sets:
        with opened(judged, embedder, cache_dir) as index:
            own[judged.name] = own_scores(index, asked[judged.name])
            for name in asked.keys() - {judged.name}:
                foreign[name, judged.name] = best_scores(index, asked[name])
    return summary(own, foreign)


def main(
    only: Annotated[
        list[str] | None, typer.Option("--set", help="Collections; by default all 14.")
    ] = None,
    n_questions: Annotated[int, typer.Option("--questions", min=1, help="Of each set.")] = 60,
    data_dir: Annotated[Path, typer.Option(help="Holds the collections.")] = DEFAULT_DATA_DIR,
    cache_dir: Annotated[Path, typer.Option(help="Keeps embeddings for later runs.")] = CACHE_DIR,
    results_dir: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULTS_DIR,
) -> None:
    """Measure what scores tell and print JSON."""
    sets = [read_judged_set(data_dir / name) for name in present(only or JUDGED_SETS, data_dir)]
    result = measure(sets, n_questions, service_embedder(), cache_dir)
    write_result("foreign_questions", result, results_dir)


if __name__ == "__main__":
    typer.run(main)
