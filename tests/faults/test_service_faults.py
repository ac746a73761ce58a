"""Processes of the running service die or freeze while four clients add memories."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.service import Service, running_service

pytestmark = pytest.mark.service

N_WRITERS = 4
ENOUGH = 8
"""Acknowledged adds of each writer before a fault, and after it."""
REQUEST_TIMEOUT_S = 120
"""Long enough for any part to come back, also on a machine that is busy otherwise."""
PATIENCE_S = 2 * REQUEST_TIMEOUT_S

DROPPED = "dropped"
TRY_AGAIN = {429, 502, 503, 504}

# What each process calls itself.
TITLES = {
    "ingress": "ray::ServeReplica:default:Ingress",
    "embedder": "ray::ServeReplica:default:Embedder",
    "index": "ray::ServeReplica:default:Index",
    "haproxy manager": "ray::HAProxyManager",
    "controller": "ray::ServeController",
}
PROGRAMS = {"haproxy": "haproxy", "raylet": "raylet", "gcs": "gcs_server"}
AGENT = "ray_agent_stub.py"
ENDING = {"launcher", "raylet", "agents", "gcs", "everything"}
"""Whose death ends the service; whoever watches over it starts it again."""


def pids_of(service: Service, name: str) -> list[int]:
    """The service's processes of a kind; `everything` is every kind."""
    if name == "launcher":
        return [service.launcher.pid]
    found = []
    for process in service.processes():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        # While it works, Ray appends the method to the title.
        title = " ".join(words).strip().partition(".")[0]
        program = Path(words[0]).name if words else ""
        if name == "agents":
            matches = any(Path(word).name == AGENT for word in words)
        else:
            matches = title == TITLES.get(name) or program == PROGRAMS.get(name)
        if name == "everything" or matches:
            found.append(process.pid)
    return found


@dataclass
class Writer:
    """One client: adds a memory, and tries again with the same key until it is acknowledged."""

    base_url: str
    source: str
    acknowledged: dict[str, int] = field(default_factory=dict)
    attempted: set[str] = field(default_factory=set)
    outcomes: Counter[object] = field(default_factory=Counter)
    """Status codes, `DROPPED`, or the text of an answer that the contract does not know."""

    def run(self, stop: threading.Event) -> None:
        with httpx.Client(base_url=self.base_url, timeout=PATIENCE_S, trust_env=False) as client:
            for n in itertools.count():
                text = f"{self.source} says {n}"
                self.attempted.add(text)
                while not self._add(client, text):
                    if stop.wait(0.1):
                        return
                if stop.is_set():
                    return

    def _add(self, client: httpx.Client, text: str) -> bool:
        body = {"text": text, "source": self.source, "deduplicate": False}
        try:
            answer = client.post(
                "/memory/add", json=body, headers={"Idempotency-Key": text.replace(" ", "_")}
            )
        except httpx.TransportError:
            self.outcomes[DROPPED] += 1
            return False
        if answer.status_code == 200:
            self.outcomes[200] += 1
            self.acknowledged[text] = answer.json()["id"]
            return True
        retriable = answer.status_code in TRY_AGAIN and "retry-after" in answer.headers
        self.outcomes[
            answer.status_code if retriable else f"{answer.status_code} {answer.text[:100]}"
        ] += 1
        return False


@dataclass
class Writers:
    """The clients, and what they saw in all."""

    service: Service
    writers: list[Writer]

    @property
    def outcomes(self) -> Counter[object]:
        return sum((writer.outcomes for writer in self.writers), Counter())

    def wait_for_enough(self) -> None:
        """Until each writer has got `ENOUGH` more acknowledgements."""
        wanted = [len(writer.acknowledged) + ENOUGH for writer in self.writers]
        pause = threading.Event()
        for _ in range(PATIENCE_S * 20):
            if all(
                len(writer.acknowledged) >= n
                for writer, n in zip(self.writers, wanted, strict=True)
            ):
                return
            pause.wait(0.05)
        pytest.fail(f"the service did not come back: {self.outcomes}\n{self.service.log()}")

    def lost_and_repeated(self) -> tuple[list[str], list[str]]:
        """Acknowledged texts that are not there as acknowledged; texts there that should not be."""
        lost, repeated = [], []
        with httpx.Client(base_url=self.service.base_url, timeout=90, trust_env=False) as client:
            for writer in self.writers:
                stored = memories_of(client, writer.source)
                ids = {text: memory_id for memory_id, text in stored}
                lost += [
                    text for text, new_id in writer.acknowledged.items() if ids.get(text) != new_id
                ]
                counts = Counter(text for _, text in stored)
                repeated += [
                    text for text, n in counts.items() if n > 1 or text not in writer.attempted
                ]
        return lost, repeated


def memories_of(client: httpx.Client, source: str) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    query: dict[str, str | int] = {"limit": 100, "source_prefix": source}
    while True:
        answer = client.get("/memories", params=query)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += [(memory["id"], memory["text"]) for memory in page["memories"]]
        if not page["next_cursor"]:
            return found
        query["cursor"] = page["next_cursor"]


@contextmanager
def writing(service: Service, name: str) -> Iterator[Writers]:
    """Four clients that add memories all the while, already at it when this begins."""
    stop = threading.Event()
    writers = Writers(service, [Writer(service.base_url, f"{name} {n}") for n in range(N_WRITERS)])
    threads = [threading.Thread(target=writer.run, args=(stop,)) for writer in writers.writers]
    for thread in threads:
        thread.start()
    try:
        writers.wait_for_enough()
        yield writers
        writers.wait_for_enough()
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    env = {"REQUEST_TIMEOUT_S": str(REQUEST_TIMEOUT_S)}
    with running_service(tmp_path_factory.mktemp("faults"), env=env) as service:
        yield service


@pytest.fixture(scope="module")
def kinds(service: Service) -> list[str]:
    """The kinds of processes that run before any died: Serve has a proxy of its own as well."""
    return [name for name in [*TITLES, *PROGRAMS] if pids_of(service, name)]


FAULTS = [*TITLES, *PROGRAMS, "agents", "launcher", "everything"]


@dataclass(frozen=True)
class Fault:
    killed: str
    writers: Writers


@pytest.fixture(scope="module", params=FAULTS)
def fault(request: pytest.FixtureRequest, service: Service, kinds: list[str]) -> Fault:
    """A kind of process killed under load, and the service back at work."""
    name = str(request.param)
    if "haproxy" in name and name not in kinds:
        pytest.skip("Serve's own proxy is in use here")
    victims = pids_of(service, name)
    assert victims, f"no {name} runs"
    with writing(service, f"{name} fault") as writers:
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        if name in ENDING:
            assert service.exited_within(PATIENCE_S)
            service.start()
    print(f"\n{name} killed: {dict(writers.outcomes)}")
    return Fault(name, writers)


def test_every_acknowledged_write_is_there_once(fault: Fault) -> None:
    assert fault.writers.lost_and_repeated() == ([], [])


def test_clients_are_only_ever_told_to_try_again(fault: Fault) -> None:
    assert fault.writers.outcomes.keys() <= {200, *TRY_AGAIN, DROPPED}


def test_only_the_death_of_what_holds_the_connection_drops_it(fault: Fault) -> None:
    if fault.killed in {"haproxy", "haproxy manager", *ENDING}:
        assert fault.writers.outcomes[DROPPED] > 0
    else:
        assert fault.writers.outcomes[DROPPED] == 0


def test_adds_wait_for_a_new_embedder_or_index(fault: Fault) -> None:
    if fault.killed not in {"embedder", "index", "controller"}:
        pytest.skip("clients see the death of this one")
    assert fault.writers.outcomes.keys() == {200}


def test_health_answers_while_the_index_is_frozen(service: Service) -> None:
    with (
        writing(service, "frozen") as writers,
        httpx.Client(base_url=service.base_url, timeout=10, trust_env=False) as client,
    ):
        [pid] = pids_of(service, "index")
        os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(3):
                assert client.get("/health/live").json() == {"status": "ok"}
                for path in ("/health", "/health/ready"):
                    answer = client.get(path)
                    assert (answer.status_code, answer.json()["status"]) == (503, "starting")
                    assert int(answer.headers["retry-after"]) > 0
            assert client.get("/metrics").status_code == 200
        finally:
            os.kill(pid, signal.SIGCONT)
    assert writers.outcomes.keys() == {200}
    assert writers.lost_and_repeated() == ([], [])


def test_nothing_of_what_died_is_left(service: Service, kinds: list[str]) -> None:
    """Each kind of process runs once, however often it was killed."""
    assert {"ingress", "embedder", "index", "controller"} <= set(kinds)
    assert {name: len(pids_of(service, name)) for name in kinds} == dict.fromkeys(kinds, 1)
    service.stop()
    assert service.processes() == []
