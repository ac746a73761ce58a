"""Imports into a cluster with two embedder nodes: nodes lose power, embedders come and go.

Takes some ten minutes and root, so it runs only when asked for:

    CLUSTER_TESTS=1 .venv/bin/python -m pytest -s tests/cluster/test_cluster_import.py
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from benchmarks.support.corpora import DEFAULT_DATA_DIR, load_corpus
from engine.model.embedder import Embedder
from engine.model.files import default_model_dir
from tests.cluster.cluster import Cluster, Machine, poll, why_not
from tests.cluster.cluster_import import Import, exported
from tests.cluster.cluster_load import PATIENCE_S, UnderLoad, doors, say
from tests.cluster.cluster_service import (
    ONLY_WHEN_ASKED_FOR,
    ReplicaWatch,
    changed_config,
    deploy,
    ready_cluster,
    wait_until_ready,
)

pytestmark = ONLY_WHEN_ASKED_FOR

N_LINES = 6_000
CUT_AFTER = 1_000
"""Lines answered when the power is cut; several thousand are on their way then."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The shipped configuration: the least number of embedders, and a node for each."""
    if reason := why_not():
        pytest.skip(reason)
    with ready_cluster(["head", "index", "embedder", "embedder"]) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def watch(cluster: Cluster) -> Iterator[ReplicaWatch]:
    watch = ReplicaWatch(cluster)
    yield watch
    watch.close()


@pytest.fixture(scope="module")
def texts() -> Iterator[list[str]]:
    """Texts for one import after the other: those that are stored are not embedded anew."""
    passages = load_corpus(DEFAULT_DATA_DIR, 8 * N_LINES).passages
    distinct = list(dict.fromkeys(passage.memory_text for passage in passages))
    starts = range(0, len(distinct) - N_LINES, N_LINES)
    return iter([distinct[start : start + N_LINES] for start in starts])


@pytest.mark.parametrize(
    ("door", "victim"),
    [("index", "embedder"), ("embedder", "embedder"), ("embedder", "index")],
)
def test_an_import_is_whole_after_a_node_lost_power_in_the_middle(
    cluster: Cluster, watch: ReplicaWatch, texts: Iterator[list[str]], door: str, victim: str
) -> None:
    _, index, *embedders = cluster.machines
    watch.wait_for("Embedder", embedders)
    machines = {"index": index, "embedder": embedders[0]}
    cut, through = machines[victim], machines[door]
    spared = [machine for machine in doors(cluster) if machine is not cut]
    lines = next(texts)
    with UnderLoad(spared, f"import through {door}, {victim} cut") as load:
        importing = Import([through, embedders[1]], lines, f"{victim} cut, {door}'s door")
        _wait_until_answered(importing, CUT_AFTER)
        n_searches = [each.n_searches for each in load.loads]
        cut.cut_power()
        if cut is index:
            cut.power_on()
        summary = importing.finish()
        say(f"{importing.n_streams} streams; {summary}")
        during = [
            each.n_searches - before for each, before in zip(load.loads, n_searches, strict=True)
        ]
        load.recover()
    cut.power_on()
    say(f"searches answered between the cut and the end of the import: {during}")
    assert all(during)
    # HAProxy gives a stream to any machine's ingress: cut off with that one, it is sent again.
    assert importing.n_streams in ({2} if cut is through else {1, 2})
    assert summary["ok"]
    assert [answer["line"] for answer in importing.answered] == list(range(1, N_LINES + 1))
    load.assert_nothing_lost()
    _assert_as_uninterrupted(embedders[1], importing.source, lines)
    wait_until_ready(cut)


def _wait_until_answered(importing: Import, n_lines: int) -> None:
    poll(
        f"{n_lines} lines answered",
        lambda: len(importing.answered) >= n_lines or not importing.is_running(),
        patience_s=PATIENCE_S,
    )
    assert importing.is_running()


def _assert_as_uninterrupted(machine: Machine, source: str, lines: Sequence[str]) -> None:
    """Every line once, in order, with the vector that the model gives it in this process."""
    memories = exported(machine, source)
    assert [memory["text"] for memory in memories] == list(lines)
    vectors = np.frombuffer(
        b"".join(base64.b64decode(memory["embedding"]) for memory in memories), np.float32
    ).reshape(len(lines), -1)
    model_dir = default_model_dir(os.environ, Path.home())
    expected = Embedder(model_dir, precision="fp32").embed(lines)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_embedders_come_with_an_import_and_go_when_idle_and_no_request_is_refused(
    cluster: Cluster, watch: ReplicaWatch, texts: Iterator[list[str]], tmp_path: Path
) -> None:
    head, index, *embedders = cluster.machines
    eager = {"min_replicas: 2": "min_replicas: 1", "downscale_delay_s: 300": "downscale_delay_s: 5"}
    with UnderLoad(doors(cluster), "embedders come and go") as load:
        deploy(head, changed_config(tmp_path / "eager.yaml", eager))
        watch.wait_for_one("Embedder")
        _import_until(watch, embedders, [index], next(texts))
        watch.wait_for_one("Embedder")
        load.recover()
    assert not any(each.refused for each in load.loads)
    load.assert_nothing_lost()


def _import_until(
    watch: ReplicaWatch, embedders: list[Machine], through: list[Machine], texts: list[str]
) -> None:
    """Import long texts until an embedder runs on each of these machines."""
    names = sorted(machine.name for machine in embedders)
    long_texts = [" ".join(texts[start : start + 8]) for start in range(0, len(texts), 8)]
    for n in count():
        lines = [f"{n} {text} {again}" for again in range(2) for text in long_texts]
        summary = Import(through, lines, f"growing {n}").finish()
        assert summary["ok"], summary
        if watch.machines_of("Embedder") == names:
            return


def test_a_rolling_update_under_load_loses_nothing_and_answers_no_500(
    cluster: Cluster, watch: ReplicaWatch, tmp_path: Path
) -> None:
    head, _, *embedders = cluster.machines
    shares = {"num_cpus: 0.05": "num_cpus: 0.06", "num_cpus: 0.2": "num_cpus: 0.21"}
    config = changed_config(tmp_path / "shares.yaml", {**shares, "num_cpus: 0.1": "num_cpus: 0.11"})
    before = watch.replicas()
    with UnderLoad(doors(cluster), "rolling update") as load:
        deploy(head, config)
        watch.wait_for("Embedder", embedders)
        load.recover()
    assert not before & watch.replicas()
    assert {why for each in load.loads for why in each.refused} <= {"429", "503"}
    load.assert_nothing_lost()
