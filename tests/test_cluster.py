"""A cluster of three machines under load: links cut, nodes killed, the head lost.

Takes some ten minutes and root, so it runs only when asked for: `CLUSTER_TESTS=1`.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.cluster import DEPLOY, START_PATIENCE_S, Cluster, Machine, poll, running_cluster, why_not

API_KEY = "a key of the cluster's test"
PATIENCE_S = 300

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        not os.environ.get("CLUSTER_TESTS"),
        reason="takes some ten minutes; CLUSTER_TESTS=1 runs it",
    ),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Index on one machine, the embedder on another, the head on a third."""
    if reason := why_not():
        pytest.skip(reason)
    config = tmp_path_factory.mktemp("cluster") / "serve_cluster.yaml"
    config.write_text(_for_one_embedder((DEPLOY / config.name).read_text("utf-8")))
    env = {"API_KEY": API_KEY, "SERVE_CONFIG": str(config)}
    with running_cluster(["head", "index", "embedder"], env=env) as cluster:
        for machine in _doors(cluster):
            waited_s = poll(
                f"{machine.role} ready\n{machine.log()}",
                lambda machine=machine: _is_ready(machine),
                patience_s=2 * START_PATIENCE_S,
            )
            _say(f"start: {machine.role} answers after {waited_s:.0f} s")
        yield cluster


def _for_one_embedder(config: str) -> str:
    assert config.count("min_replicas: 2") == 1
    return config.replace("min_replicas: 2", "min_replicas: 1")


def _doors(cluster: Cluster) -> list[Machine]:
    """Machines with an ingress."""
    return [machine for machine in cluster.machines if machine.role != "head"]


def _client(timeout_s: float = 60) -> httpx.Client:
    return httpx.Client(headers={"X-API-Key": API_KEY}, trust_env=False, timeout=timeout_s)


def _is_ready(machine: Machine) -> bool:
    try:
        with _client(10) as client:
            return client.get(f"{machine.url}/health/ready").is_success
    except httpx.TransportError:
        return False


def _say(line: str) -> None:
    print(line, flush=True)


@dataclass
class Load:
    """Adds and searches through one machine's door, as fast as it answers."""

    machine: Machine
    acknowledged: dict[int, str] = field(default_factory=dict)
    """Id of each add that was answered with success, and its text."""
    attempted: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    """What else the answers were."""
    n_searches: int = 0
    last_success_s: float = 0.0
    longest_gap_s: float = 0.0
    _ending: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self.last_success_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        assert self._thread is not None
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def succeeded_since(self, moment_s: float) -> bool:
        return self.last_success_s > moment_s

    def _run(self) -> None:
        with _client(90) as client:
            while not self._ending.wait(0.02):
                text = f"memory {uuid.uuid4().hex} of {self.machine.name}"
                self.attempted.add(text)
                self._add(client, text)
                self._search(client)

    def _add(self, client: httpx.Client, text: str) -> None:
        body = {"text": text, "source": "load", "deduplicate": False}
        if answer := self._ask(lambda: client.post(f"{self.machine.url}/memory/add", json=body)):
            self.acknowledged[answer.json()["id"]] = text
            now_s = time.monotonic()
            self.longest_gap_s = max(self.longest_gap_s, now_s - self.last_success_s)
            self.last_success_s = now_s

    def _search(self, client: httpx.Client) -> None:
        body = {"query": f"memory of {self.machine.name}", "k": 3}
        if self._ask(lambda: client.post(f"{self.machine.url}/search", json=body)):
            self.n_searches += 1

    def _ask(self, send: Callable[[], httpx.Response]) -> httpx.Response | None:
        try:
            answer = send()
        except httpx.TransportError as exc:
            self.refused.append(type(exc).__name__)
            return None
        if answer.is_success:
            return answer
        self.refused.append(str(answer.status_code))
        return None


class UnderLoad:
    """Load through every door while something breaks; nothing acknowledged may be missing."""

    def __init__(self, cluster: Cluster, what: str) -> None:
        self._cluster = cluster
        self._what = what
        self.loads = [Load(machine) for machine in _doors(cluster)]

    def __enter__(self) -> UnderLoad:
        for load in self.loads:
            load.start()
        self.wait_for_success("before the fault")
        return self

    def wait_for_success(self, when: str) -> None:
        """Until every door has acknowledged an add that was sent from now on."""
        started_s = time.monotonic()
        for load in self.loads:
            poll(
                f"{self._what}, {when}: an add through {load.machine.role}; {load.refused[-5:]}",
                lambda load=load: load.succeeded_since(started_s + 0.5),
                patience_s=PATIENCE_S,
            )
            _say(
                f"{self._what}, {when}: {load.machine.role}'s door acknowledges after "
                f"{load.last_success_s - started_s:.1f} s"
            )

    def __exit__(self, *_: object) -> None:
        for load in self.loads:
            load.stop()
        for load in self.loads:
            refused = {kind: load.refused.count(kind) for kind in sorted(set(load.refused))}
            _say(
                f"{self._what}: through {load.machine.role}: {len(load.acknowledged)} adds and "
                f"{load.n_searches} searches answered, longest gap {load.longest_gap_s:.1f} s, "
                f"otherwise {refused}"
            )

    def assert_nothing_lost(self) -> None:
        """Acknowledged ⊆ stored ⊆ attempted, each once, seen through every door."""
        acknowledged = {id_: text for load in self.loads for id_, text in load.acknowledged.items()}
        assert len(acknowledged) == sum(len(load.acknowledged) for load in self.loads)
        attempted = set().union(*(load.attempted for load in self.loads))
        for load in self.loads:
            stored = _stored(load.machine, attempted)
            missing = {id_ for id_, text in acknowledged.items() if stored.get(id_) != text}
            assert not missing
            texts = list(stored.values())
            assert len(texts) == len(set(texts))
        _say(f"{self._what}: {len(acknowledged)} acknowledged, {len(stored)} stored, 0 lost")


def _stored(machine: Machine, attempted: set[str]) -> dict[int, str]:
    """Every memory of the load that is stored, by id."""
    stored: dict[int, str] = {}
    cursor = None
    with _client() as client:
        while True:
            page = {"limit": 100, **({"cursor": cursor} if cursor else {})}
            answer = client.get(f"{machine.url}/memories", params=page).raise_for_status().json()
            for memory in answer["memories"]:
                if memory["text"] in attempted:
                    stored[memory["id"]] = memory["text"]
            cursor = answer["next_cursor"]
            if not cursor:
                return stored


def _machine(cluster: Cluster, role: str) -> Machine:
    [machine] = [each for each in cluster.machines if each.role == role]
    return machine


def test_both_doors_show_the_same_memories_and_only_the_indexs_node_has_data(
    cluster: Cluster,
) -> None:
    with UnderLoad(cluster, "quiet") as load:
        pass
    load.assert_nothing_lost()
    databases = {machine.role: _database(machine).is_file() for machine in cluster.machines}
    assert databases == {"head": False, "index": True, "embedder": False}


def _database(machine: Machine) -> Path:
    return machine.own / "data" / "memories.db"


def test_a_door_asks_for_the_key(cluster: Cluster) -> None:
    for machine in _doors(cluster):
        assert httpx.get(f"{machine.url}/stats", trust_env=False).status_code == 401


def test_an_embedder_node_cut_off_and_back_loses_nothing(cluster: Cluster) -> None:
    embedder = _machine(cluster, "embedder")
    with UnderLoad(cluster, "embedder cut off") as load:
        embedder.unplug()
        poll(
            "the other door notices",
            lambda: load.loads[0].refused.count("503") > 1,
            patience_s=PATIENCE_S,
        )
        embedder.plug_in()
        load.wait_for_success("after it is back")
    load.assert_nothing_lost()


def test_an_index_node_killed_and_restarted_loses_nothing(cluster: Cluster) -> None:
    index = _machine(cluster, "index")
    with UnderLoad(cluster, "index node killed") as load:
        index.cut_power()
        index.power_on()
        load.wait_for_success("after its restart")
    load.assert_nothing_lost()


def test_a_head_killed_and_restarted_loses_nothing(cluster: Cluster) -> None:
    head = _machine(cluster, "head")
    with UnderLoad(cluster, "head killed") as load:
        head.cut_power()
        head.power_on()
        load.wait_for_success("after its restart")
    load.assert_nothing_lost()
