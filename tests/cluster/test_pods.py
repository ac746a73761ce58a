"""The manifest's pods as containers: head, index, embedder and Redis, each with its limits.

Takes some ten minutes, root, buildah, runc, redis-server and the image with all of Ray:

    deploy/image/build.sh faiss-memory-full --build-arg FULL_RAY=true
    export CLUSTER_TESTS=1 SERVICE_IMAGE_FULL=faiss-memory-full
    .venv/bin/python -m pytest -s tests/cluster/test_pods.py
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.cluster.cluster import START_PATIENCE_S, poll
from tests.cluster.cluster import why_not as why_no_network
from tests.cluster.cluster_load import PATIENCE_S, UnderLoad, is_ready, say
from tests.cluster.cluster_service import ONLY_WHEN_ASKED_FOR
from tests.cluster.kuberay import DASHBOARD_PORT
from tests.cluster.pods import Pod, PodCluster, running_pods
from tests.image.container import why_not as why_no_container

IMAGE = "SERVICE_IMAGE_FULL"
WHY_NOT = why_no_container(IMAGE, "deploy/image/build.sh <name> --build-arg FULL_RAY=true")
pytestmark = [
    *ONLY_WHEN_ASKED_FOR,
    pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or ""),
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server here"),
]

ONE_EMBEDDER = {"min_replicas: 2": "min_replicas: 1", " num_replicas: 3": " num_replicas: 2"}
DOORS = ("index", "embedder")


@pytest.fixture(scope="module")
def cluster() -> Iterator[PodCluster]:
    if reason := why_no_network():
        pytest.skip(reason)
    with running_pods(os.environ[IMAGE], ONE_EMBEDDER) as cluster:
        for role in DOORS:
            _wait_until_ready(cluster.pods[role])
        yield cluster


def _wait_until_ready(pod: Pod) -> None:
    waited_s = poll(f"{pod.role} ready", lambda: is_ready(pod), patience_s=START_PATIENCE_S)
    say(f"{pod.role}'s door is ready {waited_s:.0f} s after its raylet")


def test_every_pod_answers_the_probes_of_the_manifest(cluster: PodCluster) -> None:
    for pod in cluster.pods.values():
        for name in pod.spec.probes:
            assert pod.probe(name), f"{name} of {pod.role}"


def test_no_process_of_a_pod_has_any_privilege_and_its_memory_suffices(cluster: PodCluster) -> None:
    for pod in cluster.pods.values():
        statuses = pod.statuses()
        assert len(statuses) > 5
        for status in statuses:
            assert set(status["Uid"].split()) == {"10001"}, status["Name"]
            assert int(status["CapEff"], 16) == 0, status["Name"]
            assert status["NoNewPrivs"] == "1", status["Name"]
            assert status["Seccomp"] == "2", status["Name"]  # a filter
            assert not status["State"].startswith("Z"), status["Name"]
        used = pod.working_set_bytes()
        say(f"{pod.role}: {used / 2**20:.0f} of {pod.spec.ray.memory_bytes / 2**20:.0f} MiB")
        assert used < 0.75 * pod.spec.ray.memory_bytes


def test_what_waits_for_the_head_has_memory_enough(cluster: PodCluster) -> None:
    for role in DOORS:
        pod = cluster.pods[role]
        assert pod.spec.waiting is not None
        say(f"{role} waited for the head with {pod.waiting_peak_bytes / 2**20:.0f} MiB")
        assert 0 < pod.waiting_peak_bytes < pod.spec.waiting.memory_bytes


def test_replicas_run_on_the_workers_alone(cluster: PodCluster) -> None:
    poll("running", lambda: _is_running(cluster), patience_s=PATIENCE_S)
    where = {
        name: sorted(replica["node_ip"] for replica in deployment["replicas"])
        for name, deployment in cluster.application()["deployments"].items()
    }
    index, embedder = (cluster.pods[role].ip for role in DOORS)
    assert where == {
        "Ingress": sorted([index, embedder]),
        "Embedder": [embedder],
        "Index": [index],
    }


def test_strangers_get_nothing_at_any_pod(cluster: PodCluster) -> None:
    with httpx.Client(trust_env=False, timeout=30) as http:
        for pod in cluster.pods.values():
            assert http.get(f"{pod.url}/stats").status_code == 401
            assert http.post(f"{pod.url}/search", json={"query": "x"}).status_code == 401
            assert http.get(f"{pod.url}/-/routes").status_code == 404
            for port in (8404, 9101):
                with pytest.raises(httpx.ConnectError):
                    http.get(f"http://{pod.ip}:{port}/stats")
        dashboard = f"http://{cluster.pods['head'].ip}:{DASHBOARD_PORT}"
        assert http.get(f"{dashboard}/api/serve/applications/").status_code == 401


def test_memories_go_in_and_out_through_every_door(cluster: PodCluster) -> None:
    with UnderLoad([cluster.pods[role] for role in DOORS], "quiet") as load:
        load.recover()
    load.assert_nothing_lost()
    assert (cluster.disk / "memories.db").is_file()
    assert all(not load.refused for load in load.loads)


@pytest.mark.parametrize("role", DOORS)
def test_a_container_killed_and_started_again_loses_nothing(cluster: PodCluster, role: str) -> None:
    with UnderLoad([cluster.pods[each] for each in DOORS], f"{role} killed") as load:
        cluster.pods[role].kill()
        load.recover()
    load.assert_nothing_lost()
    assert cluster.pods[role].n_starts > 1


@pytest.mark.parametrize("role", DOORS)
def test_a_pod_deleted_ends_in_time_and_its_successor_has_everything(
    cluster: PodCluster, role: str
) -> None:
    [other] = [cluster.pods[each] for each in DOORS if each != role]
    with UnderLoad([other], f"{role} pod deleted") as load:
        took_s = cluster.pods[role].delete()
        say(f"{role} ended by itself {took_s:.0f} s after its deletion")
        assert took_s < cluster.pods[role].spec.grace_s
        pod = cluster.create(role)
        _wait_until_ready(pod)
        load.recover()
    load.assert_nothing_lost(pod)


def test_nothing_is_refused_while_the_head_is_killed_and_started_again(
    cluster: PodCluster,
) -> None:
    """At its old address, and with the cluster's state in Redis."""
    head = cluster.pods["head"]
    with UnderLoad([cluster.pods[role] for role in DOORS], "head killed") as load:
        head.kill()
        poll("dead", lambda: not head.probe("livenessProbe"), patience_s=PATIENCE_S)
        _wait_until_in_charge(cluster)
        load.recover()
    load.assert_nothing_lost()
    assert all(not load.refused for load in load.loads)


@pytest.mark.parametrize("leave", [Pod.delete, Pod.remove], ids=["deleted", "lost"])
def test_nothing_is_refused_while_the_head_is_made_anew_under_another_address(
    cluster: PodCluster, leave: Callable[[Pod], object]
) -> None:
    """With a farewell, and without one, as when its machine dies."""
    old = cluster.pods["head"]
    what = f"head's pod {leave.__name__}d"
    with UnderLoad([cluster.pods[role] for role in DOORS], what) as load:
        leave(old)
        assert cluster.create("head").ip != old.ip
        _wait_until_in_charge(cluster)
        load.recover()
    load.assert_nothing_lost()
    assert all(not load.refused for load in load.loads)


def test_a_head_made_anew_starts_what_ends_on_the_old_nodes(cluster: PodCluster) -> None:
    """Its raylets have found the new head: without them nothing is started."""
    with UnderLoad([cluster.pods["index"]], "embedder killed, head anew") as load:
        cluster.pods["embedder"].kill()
        _wait_until_ready(cluster.pods["embedder"])
        load.recover()
    load.assert_nothing_lost(cluster.pods["embedder"])


def _wait_until_in_charge(cluster: PodCluster) -> None:
    head = cluster.pods["head"]
    poll("ready", lambda: head.probe("readinessProbe"), patience_s=PATIENCE_S)
    waited_s = poll("controlled", lambda: _is_running(cluster), patience_s=PATIENCE_S)
    say(f"Serve's controller is in charge {waited_s:.0f} s after its node")


def _is_running(cluster: PodCluster) -> bool:
    return cluster.application().get("status") == "RUNNING"
