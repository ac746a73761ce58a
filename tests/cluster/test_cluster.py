"""A cluster of three machines under load: a link cut, a node killed, the head lost.

Takes some ten minutes and root, so it runs only when asked for:

    CLUSTER_TESTS=1 .venv/bin/python -m pytest -s tests/cluster/test_cluster.py
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.cluster.cluster import Cluster, Machine, poll, why_not
from tests.cluster.cluster_load import PATIENCE_S, UnderLoad, doors, is_ready
from tests.cluster.cluster_service import ONLY_WHEN_ASKED_FOR, changed_config, ready_cluster

pytestmark = ONLY_WHEN_ASKED_FOR


@contextmanager
def _three_machines(directory: Path, env: Mapping[str, str]) -> Iterator[Cluster]:
    """Index on one machine, the embedder on another, the head on a third."""
    if reason := why_not():
        pytest.skip(reason)
    one_embedder = {"min_replicas: 2": "min_replicas: 1", " num_replicas: 3": " num_replicas: 2"}
    config = changed_config(directory / "serve_cluster.yaml", one_embedder)
    with ready_cluster(["head", "index", "embedder"], config=config, env=env) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for every test but the last."""
    with _three_machines(tmp_path_factory.mktemp("cluster"), {}) as cluster:
        yield cluster


def _machine(cluster: Cluster, role: str) -> Machine:
    [machine] = [each for each in cluster.machines if each.role == role]
    return machine


def test_only_the_indexs_node_has_data_and_every_door_shows_it(cluster: Cluster) -> None:
    with UnderLoad(doors(cluster), "quiet") as load:
        load.recover()
    load.assert_nothing_lost()
    databases = {
        machine.role: (machine.own / "data" / "memories.db").is_file()
        for machine in cluster.machines
    }
    assert databases == {"head": False, "index": True, "embedder": False}


def test_every_door_asks_for_the_key_and_has_no_window_into_haproxy(cluster: Cluster) -> None:
    for machine in cluster.machines:
        with httpx.Client(trust_env=False, timeout=30) as http:
            assert http.get(f"{machine.url}/stats").status_code == 401
            assert http.get(f"{machine.url}/-/routes").status_code == 404
            for port in (8404, 9101):
                with pytest.raises(httpx.ConnectError):
                    http.get(f"http://{machine.ip}:{port}/stats")


def test_an_embedder_node_cut_off_and_back_loses_nothing(cluster: Cluster) -> None:
    embedder = _machine(cluster, "embedder")
    with UnderLoad(doors(cluster), "embedder node cut off") as load:
        embedder.unplug()
        [through_index, _] = load.loads
        poll(
            "the other door says that it cannot embed",
            lambda: through_index.refused["503"] > 1,
            patience_s=PATIENCE_S,
        )
        embedder.plug_in()
        load.recover()
    load.assert_nothing_lost()


@pytest.mark.parametrize("role", ["index", "head"])
def test_a_node_killed_and_restarted_loses_nothing(cluster: Cluster, role: str) -> None:
    machine = _machine(cluster, role)
    with UnderLoad(doors(cluster), f"{role} node killed") as load:
        machine.cut_power()
        machine.power_on()
        load.recover()
    load.assert_nothing_lost()


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_with_redis_the_service_answers_while_the_head_is_away(tmp_path: Path) -> None:
    password = secrets.token_hex(16)
    port = 6390 + os.getpid() % 1000
    redis = subprocess.Popen(
        [
            *("redis-server", "--bind", "0.0.0.0", "--port", str(port), "--save", ""),
            *("--requirepass", password),
        ],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    try:
        env = {"RAY_REDIS_ADDRESS": f"GATEWAY:{port}", "RAY_REDIS_PASSWORD": password}
        with _three_machines(tmp_path, env) as cluster:
            head = _machine(cluster, "head")
            with UnderLoad(doors(cluster), "head killed, Redis kept") as load:
                head.cut_power()
                load.recover()
                head.power_on()
                poll("the head is back", lambda: is_ready(head), patience_s=PATIENCE_S)
                load.recover()
            load.assert_nothing_lost()
    finally:
        redis.terminate()
        redis.wait()
