"""Each benchmark of the service, once through on very little."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import module_of
from benchmarks.relevance.known_items import hits_at
from benchmarks.speed.scale import Copies
from benchmarks.support.corpora import GLOSSES, corpus_file, generated_passages, load_corpus
from benchmarks.support.filled_store import (
    disk_bytes,
    embed_cached,
    fill,
    open_index,
    service_embedder,
)
from benchmarks.support.latency import at_once, in_turns
from engine.model.embedder import Embedder
from engine.records import MemoryFilter
from tests import ROOT

N_PASSAGES = 60


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return service_embedder()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection of generated passages where the WordNet glosses would be."""
    directory = tmp_path_factory.mktemp("collections")
    file = corpus_file(directory / GLOSSES)
    file.parent.mkdir()
    with gzip.open(file, "wt", encoding="utf-8") as lines:
        for passage in generated_passages(N_PASSAGES):
            row = {"_id": passage.id, "title": passage.title, "text": passage.text}
            lines.write(json.dumps(row) + "\n")
    return directory


def run_benchmark(name: str, *options: str) -> Any:
    command = [sys.executable, "-m", module_of(name), *options]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)


@pytest.mark.service
def test_rest_reports_latency_and_weight(data_dir: Path, tmp_path: Path) -> None:
    report = run_benchmark(
        "rest",
        *("--size", "40", "--requests", "4", "--clients", "2", "--no-defaults", "--no-restarts"),
        *("--data-dir", str(data_dir), "--cache-dir", str(tmp_path / "cache")),
        *("--results-dir", str(tmp_path)),
    )

    assert report == json.loads((tmp_path / "rest.json").read_text())
    assert report["corpus"] == GLOSSES
    [size] = report["sizes"]
    assert size["memories"] == 40
    for clients in ("1_client", "2_clients"):
        for operation in ("search", "add", "delete"):
            figures = size[clients][operation]
            assert 0 < figures["service"]["p50"] <= figures["service"]["p99"]
            assert figures["service_to_in_process_p50"] > 0
    assert size["1_client"]["search"]["stages_p50"]["index_hop"] > 0
    assert size["pss_mib"]["peak"] > report["empty_serve_pss_mib"]["service"] > 0


@pytest.mark.service
def test_known_items_are_loaded_and_found_in_every_mode(data_dir: Path, tmp_path: Path) -> None:
    directories = ("--data-dir", str(data_dir), "--results-dir", str(tmp_path))
    report = run_benchmark("known_items", "--queries", "10", *directories)

    assert report["loaded"]["memories"] == N_PASSAGES
    for mode in ("vector", "keyword", "hybrid"):
        assert report["by_gloss"][mode]["hit@10"] == 1.0
        assert report["by_title"][mode]["latency_ms"]["p50"] > 0


def test_generated_passages_stand_in_for_an_absent_corpus(tmp_path: Path) -> None:
    corpus = load_corpus(tmp_path, 100)

    assert corpus.name.startswith("generated")
    assert len({passage.text for passage in corpus.passages}) == 100
    assert list(corpus.passages) == generated_passages(100)


def test_a_filled_store_holds_the_embeddings_that_the_cache_kept(
    embedder: Embedder, tmp_path: Path
) -> None:
    passages = generated_passages(30)
    texts = [passage.memory_text for passage in passages]
    embeddings = embed_cached(embedder, texts, tmp_path / "cache")
    [block] = (tmp_path / "cache").iterdir()
    block_written = block.stat().st_mtime_ns
    fill(tmp_path / "data", passages, embed_cached(embedder, texts, tmp_path / "cache"), embedder)

    index = open_index(tmp_path / "data", embedder)
    try:
        page = index.list_memories(MemoryFilter(), offset=0, limit=30)
        nearest = index.nearest(embeddings[7], texts[7])
    finally:
        index.close()

    assert block.stat().st_mtime_ns == block_written
    np.testing.assert_allclose(embeddings, embedder.embed(texts), atol=1e-6)
    assert [memory.text for memory in page.memories] == texts
    assert nearest is not None
    assert nearest.memory.text == texts[7]


def test_copies_are_the_same_each_time_near_their_passage_and_reworded() -> None:
    passages = generated_passages(20)
    rng = np.random.default_rng(3)
    embeddings = rng.standard_normal((20, 384)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    copies = Copies(passages, embeddings, 1_030)
    (first, second), again = list(copies.blocks()), list(copies.blocks())

    assert (len(first[0]), len(second[0])) == (1_000, 30)
    assert [texts for texts, _ in again] == [first[0], second[0]]
    np.testing.assert_array_equal(again[1][1], second[1])
    assert second[0] != [passages[(1_000 + i) % 20].memory_text for i in range(30)]
    cosines = [second[1][i] @ embeddings[(1_000 + i) % 20] for i in range(30)]
    assert 0.8 < min(cosines) <= max(cosines) < 0.97
    np.testing.assert_allclose(np.linalg.norm(second[1], axis=1), 1, atol=1e-4)


def test_bytes_of_hard_links_are_counted_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "c").write_bytes(b"67")
    assert disk_bytes(tmp_path) == 7


def test_every_job_is_given_to_every_call_and_the_first_one_changes() -> None:
    order: list[tuple[str, int]] = []
    seconds = in_turns(
        {"a": lambda job: order.append(("a", job)), "b": lambda job: order.append(("b", job))},
        [1, 2],
    )

    assert order == [("a", 1), ("b", 1), ("b", 2), ("a", 2)]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_many_clients_together_do_each_job_once() -> None:
    done: list[int] = []
    seconds, elapsed_s = at_once(done.append, list(range(50)), 7)

    assert sorted(done) == list(range(50))
    assert len(seconds) == 50
    assert elapsed_s > 0


def test_hits_count_the_ranks_before_the_cut() -> None:
    assert hits_at([0, 9, 10, 1]) == {"hit@1": 0.25, "hit@10": 0.75}
