"""The image: what it holds, and that it keeps what it promises when it runs.

Needs root, buildah, runc and the image that SERVICE_IMAGE names in buildah's store, which
`make image-test` sees to.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.image.container import UID, Container, Image, why_not

WHY_NOT = why_not()
pytestmark = [
    pytest.mark.service,
    pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or ""),
    pytest.mark.timeout(900),
]

MAX_BYTES = 650_000_000
PATIENCE_S = 120
TUESDAY = "The deploy day is Tuesday, because support is fully staffed then."


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    image = Image(os.environ["SERVICE_IMAGE"])
    yield image
    image.close()


@pytest.fixture(scope="module")
def container(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """One in a network of its own that leads nowhere."""
    directory = tmp_path_factory.mktemp("container")
    (directory / "workspace").mkdir()
    (directory / "workspace" / "oncall.md").write_text("On call this week: Anna.")
    container = Container(image, directory, env={"AUTO_BUILD": "watch"})
    container.start()
    yield container
    container.stop()


def ask(container: Container, path: str, body: dict[str, Any] | None = None, **more: Any) -> Any:
    method = "GET" if body is None else "POST"
    with container.network():
        url = f"{container.base_url}{path}"
        answer = httpx.request(method, url, json=body, timeout=60, trust_env=False, **more)
    assert answer.is_success, answer.text
    return answer.json()


def status_of(container: Container) -> list[dict[str, str]]:
    """`/proc/<pid>/status` of every process of the container."""
    found = []
    for pid in container.pids():
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        found.append({key: value.strip() for key, _, value in (x.partition(":") for x in lines)})
    return found


def test_it_is_small(image: Image) -> None:
    files = {(s.st_dev, s.st_ino): s.st_size for s in map(Path.lstat, image.root.rglob("*"))}
    assert sum(files.values()) < MAX_BYTES


def test_it_is_set_up_to_run_as_compose_runs_it(image: Image) -> None:
    assert image.config["User"] == f"{UID}:{UID}"
    assert set(image.config["Volumes"]) == {"/data", "/workspace"}
    assert set(image.config["ExposedPorts"]) == {"8000/tcp"}
    assert "healthcheck.py" in " ".join(image.config["Healthcheck"]["Test"])
    assert (image.root / "data").stat().st_uid == UID


def test_it_works_without_a_network(container: Container) -> None:
    devices = container.execute("cat", "/proc/net/dev").stdout
    assert re.findall(r"^\s*(\w+):", devices, re.M) == ["lo"]
    added = ask(container, "/memory/add", {"text": TUESDAY, "source": "team/decisions"})
    found = ask(container, "/search", {"query": "when do we release?", "k": 1})
    assert [hit["id"] for hit in found["results"]] == [added["id"]]
    assert ask(container, "/memory/add", {"text": TUESDAY, "source": "x"})["id"] is None
    assert ask(container, "/backup", {})["success"]


def test_containers_beside_it_reach_it_by_its_name(container: Container) -> None:
    assert ask(container, "/stats", headers={"Host": "faiss-memory:8000"})["dimension"] == 384


def test_no_process_of_it_has_any_privilege(container: Container) -> None:
    statuses = status_of(container)
    assert len(statuses) > 5
    for status in statuses:
        assert set(status["Uid"].split()) == {str(UID)}, status["Name"]
        assert int(status["CapEff"], 16) == 0, status["Name"]
        assert status["NoNewPrivs"] == "1", status["Name"]


def test_it_logs_to_stdout_and_leaves_no_zombies(container: Container) -> None:
    assert '"component": "launcher"' in container.log(100_000)
    assert "FAISS Memory answers at" in container.log(100_000)
    assert not [status for status in status_of(container) if status["State"].startswith("Z")]


def test_its_healthcheck_tells_ready_from_not_ready(container: Container, image: Image) -> None:
    check = image.config["Healthcheck"]["Test"][1:]
    assert container.execute(*check).returncode == 0
    assert container.execute("env", "PORT=1", *check).returncode == 1


def test_a_mounted_workspace_is_built_and_followed_and_cannot_be_written(
    container: Container,
) -> None:
    def texts() -> list[str]:
        listed = ask(container, "/memories?source_prefix=oncall.md")
        return [memory["text"] for memory in listed["memories"]]

    wait_until(lambda: texts() == ["On call this week: Anna."], container)
    (container.workspace_dir / "oncall.md").write_text("On call this week: Ben.")
    wait_until(lambda: texts() == ["On call this week: Ben."], container)
    assert container.execute("touch", "/workspace/x").returncode != 0


def test_a_stop_writes_a_checkpoint_and_a_restart_keeps_the_data(container: Container) -> None:
    memory_id = ask(
        container, "/memory/add", {"text": "Ben plays the cello.", "source": "people/ben"}
    )["id"]
    assert container.stop() == 0
    wal = container.data_dir / "memories.db-wal"
    assert not wal.exists() or wal.stat().st_size == 0
    container.start()
    assert ask(container, f"/memory/{memory_id}")["text"] == "Ben plays the cello."


def test_killing_the_main_process_loses_nothing_acknowledged(container: Container) -> None:
    acknowledged: list[int] = []
    writing = threading.Event()

    def write() -> None:
        with httpx.Client(base_url=container.base_url, timeout=10, trust_env=False) as client:
            for number in range(100_000):
                body = {"text": f"Fact {number}.", "source": "kill", "deduplicate": False}
                try:
                    answer = client.post("/memory/add", json=body)
                except httpx.HTTPError:
                    return
                acknowledged.append(answer.json()["id"])
                if number == 50:
                    writing.set()

    with container.network():
        writer = threading.Thread(target=write)
        writer.start()
    assert writing.wait(PATIENCE_S)
    container.kill_main(signal.SIGKILL)
    writer.join()
    assert container.exited_within(PATIENCE_S)
    container.start()
    assert len(acknowledged) > 50
    for memory_id in acknowledged:
        assert ask(container, f"/memory/{memory_id}")["source"] == "kill"


def wait_until(condition: Any, container: Container) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, container.log()
        time.sleep(0.5)
