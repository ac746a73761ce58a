"""The keyword side alone: nDCG@10, and query and write cost beside `rank_bm25`, as JSON.

Queries are WordNet glosses (sentences) and titles (a word or two) over the glosses themselves.
`rank_bm25` scores the same terms in turn with the index, so that what else the machine does
weighs on both: trust the ratio.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rank_bm25 import BM25Okapi
from rich.console import Console
from rich.progress import track

from benchmarks.relevance.embedding_quality import COLLECTIONS, mean_ndcg
from benchmarks.relevance.judged import JudgedSet, read_judged_set
from benchmarks.relevance.measures import K
from benchmarks.support.corpora import DEFAULT_DATA_DIR, GLOSSES, shuffled_glosses
from benchmarks.support.latency import percentiles_ms, timed_s
from benchmarks.support.results import write_result
from engine.search.bm25 import BM25Index
from engine.words.analyser import analyse, analyse_query

_N_CANDIDATES = 60  # what a search for a few hits asks of each side
_N_ADDS = 1_000
_RANK_BM25_EVERY = 25  # queries; it needs most of the time


def index_of(documents: Sequence[Sequence[str]]) -> BM25Index:
    """An index of analysed documents."""
    index = BM25Index()
    for row, terms in enumerate(documents):
        index.add(row, terms)
    return index


def keyword_ndcg(judged: JudgedSet) -> float:
    """nDCG@10 of BM25 alone."""
    index = index_of([analyse(text) for text in judged.texts])
    hits = (index.search(analyse_query(query.text), K)[0] for query in judged.queries)
    return mean_ndcg(judged, [[int(row) for row in rows] for rows in hits])


def measure_size(
    documents: Sequence[Sequence[str]], queries: Mapping[str, Sequence[Sequence[str]]]
) -> dict[str, Any]:
    """Cost of adding, searching, packing and loading an index of this size.

    Args:
        documents: analysed; the last `_N_ADDS` are added to an index of the others.
        queries: analysed, by kind.
    """
    n_first = len(documents) - _N_ADDS
    index = index_of(documents[:n_first])
    adds = [timed_s(index.add, row, documents[row]) for row in range(n_first, len(documents))]
    oracle = BM25Okapi(documents)
    report: dict[str, Any] = {
        "documents": index.n_documents,
        "terms": index.n_terms,
        "add_ms": percentiles_ms(adds),
        "bytes_per_document": {"as_added": round(index.n_bytes / index.n_documents)},
        "query_ms": {},
    }
    for kind, batch in queries.items():
        ours, theirs = [], []
        for i, terms in enumerate(track(batch, f"{kind} queries", console=Console(stderr=True))):
            ours.append(timed_s(index.search, terms, _N_CANDIDATES))
            if i % _RANK_BM25_EVERY == 0:
                theirs.append(timed_s(oracle.get_scores, terms))
        report["query_ms"][kind] = {
            **percentiles_ms(ours),
            "rank_bm25_p50": percentiles_ms(theirs)["p50"],
            "times_faster": round(float(np.median(theirs) / np.median(ours)), 1),
        }
    arrays = index.to_arrays()
    report["to_arrays_s"] = round(timed_s(index.to_arrays), 3)
    report["from_arrays_s"] = round(timed_s(BM25Index.from_arrays, arrays), 3)
    packed = BM25Index.from_arrays(arrays)
    report["bytes_per_document"]["packed"] = round(packed.n_bytes / packed.n_documents)
    return report


def measure(data_dir: Path, sizes: Sequence[int], n_queries: int) -> dict[str, Any]:
    """Quality on the judged collections, cost on the glosses."""
    quality = {
        name: round(keyword_ndcg(read_judged_set(data_dir / name)), 4) for name in COLLECTIONS
    }
    glosses = shuffled_glosses(data_dir)
    texts = [f"{gloss.title} {gloss.text}" for gloss in glosses]
    start = time.perf_counter()
    documents = [analyse(text) for text in texts]
    elapsed_s = time.perf_counter() - start
    queries = {
        "gloss": [analyse_query(gloss.text) for gloss in glosses[:n_queries]],
        "title": [analyse_query(gloss.title) for gloss in glosses[:n_queries]],
    }
    return {
        "ndcg_at_10": quality,
        "analyse": {
            "documents_per_s": round(len(texts) / elapsed_s),
            "megabytes_per_minute": round(sum(map(len, texts)) / 1e6 / elapsed_s * 60, 1),
        },
        "sizes": [measure_size(documents[:size], queries) for size in sizes],
    }


def main(
    data_dir: Annotated[
        Path, typer.Option(help="Holds cacm, cisi, cranfield and wordnet_glosses.")
    ] = DEFAULT_DATA_DIR,
    size: Annotated[
        list[int] | None, typer.Option(min=_N_ADDS, help="Memories; 1k, 10k, 100k.")
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="Queries of each kind.")] = 500,
) -> None:
    """Measure the keyword index and print JSON."""
    absent = [name for name in (*COLLECTIONS, GLOSSES) if not (data_dir / name).is_dir()]
    if absent:
        message = f"No {', '.join(absent)} in {data_dir}: name their directory by --data-dir"
        Console(stderr=True).print(message)
        raise typer.Exit(2)
    result = measure(data_dir, size or [1_000, 10_000, 100_000], queries)
    write_result("keyword_search", result)


if __name__ == "__main__":
    typer.run(main)
