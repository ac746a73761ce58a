"""Load through every door of a cluster while something breaks, and the account afterwards."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import httpx

from tests.cluster.cluster import Cluster, Machine, poll

API_KEY = "a key of the cluster's test"
PATIENCE_S = 400
_RECOVERED = 200
"""Answers in a row after which a door counts as recovered: a node that is back may end again."""


class Door(Protocol):
    """Where requests go in: a machine, or a pod."""

    name: str
    url: str

    @property
    def role(self) -> str:
        """What runs there."""


def client(timeout_s: float = 40) -> httpx.Client:
    """A client with the key; it waits a little longer than the service lets requests wait."""
    return httpx.Client(headers={"X-API-Key": API_KEY}, trust_env=False, timeout=timeout_s)


def doors(cluster: Cluster) -> list[Machine]:
    """Machines with an ingress."""
    return [machine for machine in cluster.machines if machine.role != "head"]


def is_ready(machine: Door) -> bool:
    """Whether memories can be searched and stored through this door."""
    try:
        with client(10) as http:
            return http.get(f"{machine.url}/health/ready").is_success
    except httpx.TransportError:
        return False


def say(line: str) -> None:
    """Report a figure; `pytest -s` shows it."""
    print(line, flush=True)


@dataclass
class Load:
    """Adds and searches through one machine's door, one after the other."""

    machine: Door
    acknowledged: dict[int, str] = field(default_factory=dict)
    """Id of each add that was answered with success, and its text."""
    attempted: set[str] = field(default_factory=set)
    refused: Counter[str] = field(default_factory=Counter)
    """Statuses and errors that were no success."""
    n_searches: int = 0
    slowest_s: float = 0.0
    """The longest that a request took which was answered with success."""
    in_a_row: int = 0
    """Successes since the last refusal."""
    last_refusal_s: float = 0.0
    _ending: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, on a thread."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish the request under way."""
        self._ending.set()
        assert self._thread is not None
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with client() as http:
            while not self._ending.is_set():
                text = f"memory {uuid.uuid4().hex} of {self.machine.name}"
                self.attempted.add(text)
                self._add(http, text)
                self._search(http)

    def _add(self, http: httpx.Client, text: str) -> None:
        body = {"text": text, "source": "load", "deduplicate": False}
        if answer := self._ask(lambda: http.post(f"{self.machine.url}/memory/add", json=body)):
            self.acknowledged[answer.json()["id"]] = text

    def _search(self, http: httpx.Client) -> None:
        body = {"query": f"memory of {self.machine.name}", "k": 3}
        if self._ask(lambda: http.post(f"{self.machine.url}/search", json=body)):
            self.n_searches += 1

    def _ask(self, send: Callable[[], httpx.Response]) -> httpx.Response | None:
        started_s = time.monotonic()
        try:
            answer = send()
        except httpx.TransportError as exc:
            self._refuse(type(exc).__name__)
            return None
        if not answer.is_success:
            self._refuse(str(answer.status_code))
            return None
        self.in_a_row += 1
        self.slowest_s = max(self.slowest_s, time.monotonic() - started_s)
        return answer

    def _refuse(self, why: str) -> None:
        self.refused[why] += 1
        self.in_a_row = 0
        self.last_refusal_s = time.monotonic()
        self._ending.wait(0.5)


class UnderLoad:
    """Load through these doors while something breaks or changes."""

    def __init__(self, machines: Iterable[Door], what: str) -> None:
        self._what = what
        self.loads = [Load(machine) for machine in machines]

    def __enter__(self) -> UnderLoad:
        for load in self.loads:
            load.start()
        self._wait_in_a_row(20)
        return self

    def recover(self) -> None:
        """Wait until every door answers again and goes on answering."""
        started_s = time.monotonic()
        for load in self.loads:
            load.in_a_row = 0
        self._wait_in_a_row(_RECOVERED)
        for load in self.loads:
            say(
                f"{self._what}: the last refusal at {load.machine.role}'s door was "
                f"{max(0.0, load.last_refusal_s - started_s):.1f} s after the repair"
            )

    def _wait_in_a_row(self, n_answers: int) -> None:
        for load in self.loads:
            poll(
                f"{self._what}: {n_answers} answers in a row through {load.machine.role}",
                lambda load=load: load.in_a_row >= n_answers,  # type: ignore[misc]
                patience_s=PATIENCE_S,
            )

    def __exit__(self, *_: object) -> None:
        for load in self.loads:
            load.stop()
            say(
                f"{self._what}: through {load.machine.role}: {len(load.acknowledged)} adds and "
                f"{load.n_searches} searches answered, the slowest after {load.slowest_s:.1f} s, "
                f"otherwise {dict(load.refused)}"
            )

    def assert_nothing_lost(self, *others: Door) -> None:
        """Acknowledged ⊆ stored ⊆ attempted, each once, seen through every door and these."""
        acknowledged = {id_: text for load in self.loads for id_, text in load.acknowledged.items()}
        assert len(acknowledged) == sum(len(load.acknowledged) for load in self.loads)
        attempted = set[str]().union(*(load.attempted for load in self.loads))
        for door in (*(load.machine for load in self.loads), *others):
            stored = _stored(door, attempted)
            missing = {id_ for id_, text in acknowledged.items() if stored.get(id_) != text}
            assert not missing
            assert len(set(stored.values())) == len(stored)
        say(f"{self._what}: {len(acknowledged)} acknowledged, {len(stored)} stored, none lost")


def _stored(machine: Door, attempted: set[str]) -> dict[int, str]:
    """Every memory of the load that is stored, by id."""
    stored: dict[int, str] = {}
    cursor = None
    with client() as http:
        while True:
            page = {"limit": 100, **({"cursor": cursor} if cursor else {})}
            answer = http.get(f"{machine.url}/memories", params=page).raise_for_status().json()
            for memory in answer["memories"]:
                if memory["text"] in attempted:
                    stored[memory["id"]] = memory["text"]
            cursor = answer["next_cursor"]
            if not cursor:
                return stored
