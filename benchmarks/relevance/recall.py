"""How well searches find what judges found, over every collection with judgements, as JSON.

    python -m benchmarks.relevance.recall [--set realtalk] [--no-rest]

Four rankings of each query: by meaning alone, by words alone, by the old fusion of ranks, and by
the default. In process through the engine, each collection in a store of its own; some of them
over REST on a running service too, filled through `/import`. A paired randomisation test says
whether the default differs from its better leg and from the old fusion by more than chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.progress import track

from benchmarks.relevance.identifiers import identifiers_among_notes
from benchmarks.relevance.judged import JUDGED_SETS, JudgedQuery, JudgedSet, read_judged_set
from benchmarks.relevance.judged_stores import Search, in_process, over_rest
from benchmarks.relevance.known_items import hits_at
from benchmarks.relevance.late_words import late_queries
from benchmarks.relevance.measures import MEASURES, K, measured
from benchmarks.relevance.significance import randomisation_p
from benchmarks.support.corpora import DEFAULT_DATA_DIR, corpus_file
from benchmarks.support.filled_store import CACHE_DIR, service_embedder
from benchmarks.support.machine import machine_facts
from benchmarks.support.results import RESULTS_DIR, write_result
from engine.model.embedder import Embedder

RANKINGS: dict[str, dict[str, Any]] = {
    "vector": {"hybrid": False},
    "words": {"vector_weight": 0.0},
    "old": {"fusion": "rrf"},
    "new": {},
}
"""By the fields of a search that differ from their defaults, in process as over REST."""

LEGS = ("vector", "words")
REST_SETS = ("letta_facts", "xquad_sent", "cosqa")

DEPTHS = (1, 3, 5, K)

_SIGNIFICANT = 0.05
_LATE_QUERIES = 300
_QUERIES_OF_KIND = 50

Ranks = dict[str, list[int]]

Values = npt.NDArray[np.float64]
"""Shape (n_queries, len(MEASURES))."""


def values_of(judged: JudgedSet, search: Search, label: str) -> dict[str, Values]:
    """What each ranking reaches with each query."""
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in RANKINGS}
    for query in track(judged.queries, label, console=Console(stderr=True)):
        for name, ranking in RANKINGS.items():
            found[name].append(measured(search(query, ranking), query.grades))
    return {name: np.array(values) for name, values in found.items()}


def shown(values: Mapping[str, Values]) -> dict[str, Any]:
    """Means, and whether the default differs from the better leg and from the old fusion."""
    ndcg = {name: of_queries[:, 0] for name, of_queries in values.items()}
    better_leg = max(LEGS, key=lambda leg: float(ndcg[leg].mean()))
    return {
        "queries": len(ndcg["new"]),
        **{name: means(of_queries.mean(axis=0)) for name, of_queries in values.items()},
        "new_to_better_leg": compared(ndcg["new"], ndcg[better_leg]) | {"leg": better_leg},
        "new_to_old": compared(ndcg["new"], ndcg["old"]),
    }


def means(values: Sequence[float] | Values) -> dict[str, float]:
    """By the name of the measure."""
    return {
        measure: round(float(value), 4) for measure, value in zip(MEASURES, values, strict=True)
    }


def compared(a: Values, b: Values) -> dict[str, Any]:
    """The mean difference of two rankings' nDCG@10, and its p."""
    return {
        "difference": round(float((a - b).mean()), 4),
        "p": round(randomisation_p(a, b), 4),
    }


def summary(sets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Means over collections, and the collections where the default is surely worse."""
    return {
        **{
            name: means([np.mean([s[name][m] for s in sets.values()]) for m in MEASURES])
            for name in RANKINGS
        },
        "significantly_below": {
            rival: [
                name
                for name, report in sets.items()
                if report[rival]["difference"] < 0 and report[rival]["p"] < _SIGNIFICANT
            ]
            for rival in ("new_to_better_leg", "new_to_old")
        },
    }


def ranks_of(queries: Sequence[JudgedQuery], search: Search) -> Ranks:
    """By ranking: the rank, from 0, of each query's one document; K when it is not found."""
    ranks: Ranks = {name: [] for name in RANKINGS}
    for query in queries:
        [wanted] = query.grades
        for name, ranking in RANKINGS.items():
            found = search(query, ranking)
            ranks[name].append(found.index(wanted) if wanted in found else K)
    return ranks


def hits(*of_kinds: Ranks) -> dict[str, dict[str, float]]:
    """By ranking: share of documents found first, and among the first 3, 5 and 10."""
    return {
        name: hits_at([rank for ranks in of_kinds for rank in ranks[name]], DEPTHS)
        for name in RANKINGS
    }


def measure_set(judged: JudgedSet, embedder: Embedder, cache_dir: Path) -> dict[str, Any]:
    """One collection in process: its queries, and what stands late in its texts."""
    late = late_queries(judged, embedder, _LATE_QUERIES)
    with in_process(judged, embedder, cache_dir) as search:
        report = shown(values_of(judged, search, judged.name))
        if late["word"]:
            report["late"] = {"queries": len(late["word"])} | {
                form: hits(ranks_of(queries, search)) for form, queries in late.items()
            }
    return {"documents": len(judged.documents), **report}


def measure_identifiers(
    data_dir: Path, n_notes: int, embedder: Embedder, cache_dir: Path
) -> dict[str, Any]:
    """Ten kinds of exact names among notes."""
    made = identifiers_among_notes(data_dir, n_notes, _QUERIES_OF_KIND)
    with in_process(made.notes, embedder, cache_dir) as search:
        ranks = {
            form: {kind: ranks_of(queries, search) for kind, queries in kinds.items()}
            for form, kinds in made.forms.items()
        }
    return {"notes": n_notes} | {
        form: {
            "all": hits(*kinds.values()),
            "by_kind": {kind: hits(of_kind) for kind, of_kind in kinds.items()},
        }
        for form, kinds in ranks.items()
    }


def present(names: Sequence[str], data_dir: Path) -> list[str]:
    """Those whose files are there; says which are not."""
    absent = [name for name in names if not corpus_file(data_dir / name).is_file()]
    if absent:
        message = f"No {', '.join(absent)} in {data_dir}: name their directory by --data-dir"
        Console(stderr=True).print(message)
        raise typer.Exit(2)
    return list(names)


def main(
    only: Annotated[
        list[str] | None, typer.Option("--set", help="Collections; by default all 14.")
    ] = None,
    rest: Annotated[
        bool, typer.Option(help=f"Measure {', '.join(REST_SETS)} over REST too.")
    ] = True,
    notes: Annotated[
        int, typer.Option(min=0, help="To look for exact names among; 0 leaves that out.")
    ] = 100_000,
    data_dir: Annotated[Path, typer.Option(help="Holds the collections.")] = DEFAULT_DATA_DIR,
    model_dir: Annotated[
        Path | None, typer.Option(help="By default MODEL_DIR, else the shared cache.")
    ] = None,
    cache_dir: Annotated[Path, typer.Option(help="Keeps embeddings for later runs.")] = CACHE_DIR,
    first_port: Annotated[int, typer.Option(help="The first free one from here on.")] = 8970,
    results_dir: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULTS_DIR,
) -> None:
    """Measure what searches find and print JSON."""
    names = present(only or JUDGED_SETS, data_dir)
    embedder = service_embedder(model_dir)
    machine = machine_facts()
    sets, served = {}, {}
    for name in names:
        judged = read_judged_set(data_dir / name)
        sets[name] = measure_set(judged, embedder, cache_dir)
    for name in [name for name in names if rest and name in REST_SETS]:
        judged = read_judged_set(data_dir / name)
        with over_rest(judged, first_port) as search:
            served[name] = shown(values_of(judged, search, f"{name} over REST"))
    result = {
        "machine": machine,
        "precision": embedder.identity.precision,
        "mean": summary(sets),
        "sets": sets,
        "over_rest": served,
        "identifiers": (
            measure_identifiers(data_dir, notes, embedder, cache_dir) if notes else None
        ),
    }
    write_result("recall", result, results_dir)


if __name__ == "__main__":
    typer.run(main)
