"""The embedder replica: lanes, batching, bounds and cache, around a scripted model."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from deployments.embedder import replica as embedder
from deployments.embedder.lanes import EmbeddingLanes
from deployments.embedder.replica import EmbedderReplica, QueryCache
from deployments.settings import Settings
from engine.errors import (
    EmbeddingError,
    InvalidInputError,
    ModelMismatchError,
    OverloadedError,
)
from engine.model.embedder import EmbeddingRun, HiddenRows
from engine.model.files import default_model_dir, read_model_manifest
from engine.records import FloatMatrix
from tests import ROOT
from tests.support.fakes import query_of

PATIENCE_S = 20.0


class GatedEmbedder:
    """Embeds a text as its length; one text a run; runs of texts with `slow` wait for `gate`."""

    dim = 2

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.slow_started = threading.Semaphore(0)
        self.order: list[int] = []
        self.plans: list[list[str]] = []
        self.broken = False

    def plan_runs(self, texts: Sequence[str], max_windows: Sequence[int]) -> list[EmbeddingRun]:
        if any("\ud800" in text for text in texts):
            raise InvalidInputError("not valid Unicode")
        self.plans.append(list(texts))
        return [
            EmbeddingRun(
                rows=np.array([row], np.int64),
                windows=np.array([window], np.int64),
                token_ids=np.array([[len(text) + window, int("slow" in text)]], np.int64),
                known=np.array([True]),
            )
            for row, text in enumerate(texts)
            for window in range(min(max_windows[row], text.count("window") + 1))
        ]

    def embed_run(self, run: EmbeddingRun) -> FloatMatrix:
        length, is_slow = run.token_ids[0]
        if is_slow:
            self.slow_started.release()
            assert self.gate.wait(PATIENCE_S)
        if self.broken:
            raise RuntimeError("session")
        self.order.append(int(length))
        return np.full((len(run.rows), self.dim), length, np.float32)

    def read_run(self, run: EmbeddingRun) -> tuple[FloatMatrix, HiddenRows]:
        embeddings = self.embed_run(run)
        return embeddings, np.repeat(embeddings[:, None], 3, axis=1)


@pytest.fixture
def model() -> GatedEmbedder:
    return GatedEmbedder()


def lanes_around(
    model: GatedEmbedder, *, max_queued_queries: int = 100, max_queued_texts: int = 1000
) -> EmbeddingLanes:
    return EmbeddingLanes(
        model,
        max_queued_queries=max_queued_queries,
        max_queued_texts=max_queued_texts,
        bulk_threads=1,
    )


def test_a_query_is_answered_while_bulk_work_occupies_every_bulk_thread(
    model: GatedEmbedder,
) -> None:
    lanes = lanes_around(model)
    bulk = lanes.submit(["slow"] * 10)
    assert model.slow_started.acquire(timeout=PATIENCE_S)
    query = lanes.submit(["query"], is_query=True)
    assert query.result(PATIENCE_S).embeddings.firsts[0, 0] == len("query")
    assert not bulk.done()
    model.gate.set()
    assert (bulk.result(PATIENCE_S).embeddings.firsts == len("slow")).all()
    lanes.close()


def test_a_single_text_passes_the_rest_of_a_bulk_job(model: GatedEmbedder) -> None:
    lanes = lanes_around(model)
    bulk = lanes.submit(["slow"] * 10)
    assert model.slow_started.acquire(timeout=PATIENCE_S)
    single = lanes.submit(["single text"])
    model.gate.set()
    single.result(PATIENCE_S)
    bulk.result(PATIENCE_S)
    lanes.close()
    # At most the run at work and the one already taken were ahead of it.
    assert model.order.index(len("single text")) <= 2


def test_queries_that_wait_together_are_planned_together(model: GatedEmbedder) -> None:
    lanes = lanes_around(model)
    first = lanes.submit(["slow"], is_query=True)
    assert model.slow_started.acquire(timeout=PATIENCE_S)
    waiting = [lanes.submit(["q" * n], is_query=True) for n in (1, 2, 3)]
    model.gate.set()
    assert [int(f.result(PATIENCE_S).embeddings.firsts[0, 0]) for f in (first, *waiting)] == [
        4,
        1,
        2,
        3,
    ]
    lanes.close()
    assert ["q", "qq", "qqq"] in model.plans


def test_a_job_beyond_the_bound_is_refused_and_the_rest_still_answered(
    model: GatedEmbedder,
) -> None:
    lanes = lanes_around(model, max_queued_texts=10, max_queued_queries=1)
    accepted = lanes.submit(["slow"] * 8)
    assert model.slow_started.acquire(timeout=PATIENCE_S)
    with pytest.raises(OverloadedError):
        lanes.submit(["x"] * 3)
    fits = lanes.submit(["x"] * 2)
    model.gate.set()
    accepted.result(PATIENCE_S)
    fits.result(PATIENCE_S)
    counters = lanes.counters()
    lanes.close()
    assert (counters["rejected"], counters["texts"]) == (3, 10)
    assert lanes.depths() == {"queue_depth": 0, "query_queue_depth": 0}


def test_an_invalid_text_fails_its_own_caller_only(model: GatedEmbedder) -> None:
    lanes = lanes_around(model)
    blocker = lanes.submit(["slow"], is_query=True)
    assert model.slow_started.acquire(timeout=PATIENCE_S)
    good = lanes.submit(["fine"], is_query=True)
    bad = lanes.submit(["\ud800"], is_query=True)
    model.gate.set()
    blocker.result(PATIENCE_S)
    assert good.result(PATIENCE_S).embeddings.firsts[0, 0] == len("fine")
    with pytest.raises(InvalidInputError):
        bad.result(PATIENCE_S)
    lanes.close()


def test_a_failing_model_is_reported_without_its_message_and_the_lane_lives_on(
    model: GatedEmbedder,
) -> None:
    lanes = lanes_around(model)
    model.broken = True
    with pytest.raises(EmbeddingError, match="the model failed: RuntimeError"):
        lanes.submit(["text"] * 9).result(PATIENCE_S)
    model.broken = False
    assert lanes.is_alive()
    assert lanes.submit(["text"]).result(PATIENCE_S).embeddings.firsts[0, 0] == len("text")
    lanes.close()


def test_a_job_whose_caller_went_away_frees_its_place(model: GatedEmbedder) -> None:
    lanes = lanes_around(model, max_queued_texts=10)
    running = lanes.submit(["slow"])
    assert model.slow_started.acquire(timeout=PATIENCE_S)
    given_up = lanes.submit(["x"] * 9)
    assert given_up.cancel()
    follower = lanes.submit(["y"] * 9)
    model.gate.set()
    running.result(PATIENCE_S)
    assert (follower.result(PATIENCE_S).embeddings.firsts == 1).all()
    lanes.close()
    assert lanes.counters()["texts"] == 10


def test_a_text_is_done_when_as_many_of_its_windows_as_were_asked_for_are(
    model: GatedEmbedder,
) -> None:
    lanes = lanes_around(model)
    texts = ["window window", "short", "window window window"]

    embeddings = lanes.submit(texts, max_windows=3).result(PATIENCE_S).embeddings
    lanes.close()

    assert embeddings.firsts[:, 0].tolist() == [13, 5, 20]
    later = {at: vectors[:, 0].tolist() for at, vectors in embeddings.later.items()}
    assert later == {0: [14, 15], 2: [21, 22]}


def test_hidden_rows_go_to_those_alone_who_asked_for_them(model: GatedEmbedder) -> None:
    lanes = lanes_around(model)
    blocker = lanes.submit(["slow"], is_query=True)
    assert model.slow_started.acquire(timeout=PATIENCE_S)
    asked = lanes.submit(["abc"], is_query=True, with_rows=True)
    plain = lanes.submit(["abcd"], is_query=True)
    model.gate.set()

    assert blocker.result(PATIENCE_S).rows == {}
    assert plain.result(PATIENCE_S).rows == {}
    assert asked.result(PATIENCE_S).rows[0].shape == (3, 2)
    lanes.close()


def test_an_empty_job_is_answered_with_no_rows(model: GatedEmbedder) -> None:
    lanes = lanes_around(model)
    assert lanes.submit([]).result(PATIENCE_S).embeddings.firsts.shape == (0, 2)
    lanes.close()


def test_the_query_cache_forgets_the_least_recently_used() -> None:
    cache = QueryCache(2)
    for text in ("a", "b"):
        cache.put(text, query_of(text))
    assert cache.get("a") is not None
    cache.put("c", query_of("c"))
    assert cache.get("b") is None
    kept = cache.get("a")
    assert kept is not None
    assert kept.pieces.words == ["a"]


def test_the_query_cache_does_not_keep_long_texts() -> None:
    cache = QueryCache(100)
    queries = [query_of(str(n)) for n in range(100)]
    tracemalloc.start()
    for n in range(100):
        cache.put(f"{n} {'long ' * 10_000}", queries[n])
    n_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_bytes < 100 * 2_000
    found = cache.get(f"7 {'long ' * 10_000}")
    assert found is not None
    assert found.pieces.words == ["7"]
    assert cache.get("\ud800") is None


def test_a_node_with_other_weights_than_the_rest_refuses_to_embed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedder, "configure_logging", lambda *_, **__: None)
    model_dir = default_model_dir(os.environ, Path.home())
    with pytest.raises(ModelMismatchError, match="same model on every node"):
        EmbedderReplica(Settings(), model_dir, "fp32", fingerprint="0" * 64)
    EmbedderReplica(
        Settings(), model_dir, "fp32", fingerprint=read_model_manifest(model_dir).fingerprint
    )


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness of their own on Linux")
def test_a_process_that_is_niced_and_not_root_embeds_too() -> None:
    """Only root may lower a niceness, so that bulk threads may only add to what they find."""
    script = """
import os
from tests.deployments.test_embedder_replica import GatedEmbedder, lanes_around
os.nice(15)
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
lanes = lanes_around(GatedEmbedder())
print(lanes.submit(["abc"]).result(20).embeddings.firsts[0, 0], lanes.is_alive())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["3.0", "True"], done.stderr
