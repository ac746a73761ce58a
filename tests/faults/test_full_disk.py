"""The service on a disk that fills up and has space again: a small tmpfs."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.service import Service, running_service

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]

SIZE_MIB = 16
MANY_WRITES = 2_000


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("small_disk") / "data"
    directory.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(directory)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.strip()}")
    yield directory
    # Lazily: a process that just ended may still be letting go.
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture(scope="module")
def service(disk: Path) -> Iterator[Service]:
    with running_service(disk.parent) as service:
        yield service


@contextmanager
def no_space_left(disk: Path) -> Iterator[None]:
    ballast = disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            n_bytes = 1 << 20
            while n_bytes:
                try:
                    file.write(b"x" * n_bytes)
                except OSError:
                    n_bytes //= 2
        yield
    finally:
        ballast.unlink()


class Client:
    """Adds memories and remembers which were acknowledged."""

    def __init__(self, service: Service) -> None:
        self.http = httpx.Client(base_url=service.base_url, timeout=120, trust_env=False)
        self.acknowledged: dict[int, str] = {}

    def add(self) -> httpx.Response:
        text = f"memory number {len(self.acknowledged)} " + "with many words " * 100
        body = {"text": text, "source": "full", "deduplicate": False}
        answer = self.http.post("/memory/add", json=body)
        if answer.status_code == 200:
            self.acknowledged[answer.json()["id"]] = text
        return answer

    def add_until_refused(self) -> httpx.Response:
        for _ in range(MANY_WRITES):
            if (answer := self.add()).status_code != 200:
                return answer
        raise AssertionError("the disk never filled up")

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get("/stats").json()
        return found

    def check(self) -> None:
        """Exactly what was acknowledged is there, in all three places."""
        page = self.http.get("/memories", params={"limit": 100}).json()
        assert {each["id"]: each["text"] for each in page["memories"]} == self.acknowledged
        assert set(self.stats()["counts"].values()) == {len(self.acknowledged)}


def is_clear(answer: httpx.Response) -> bool:
    return (
        answer.status_code == 507
        and int(answer.headers["retry-after"]) > 0
        and "no space left" in answer.json()["detail"]
    )


def test_a_full_disk_refuses_writes_clearly_keeps_reads_and_heals_by_itself(
    service: Service, disk: Path
) -> None:
    client = Client(service)
    for _ in range(5):
        assert client.add().status_code == 200
    with no_space_left(disk):
        refused = client.add_until_refused()
        assert is_clear(refused), refused.text
        assert is_clear(client.http.post("/backup"))
        # One that fits into what the WAL has already may still succeed.
        victim = next(iter(client.acknowledged))
        deleted = client.http.delete(f"/memory/{victim}")
        if deleted.status_code == 200:
            del client.acknowledged[victim]
        else:
            assert is_clear(deleted), deleted.text
        client.check()
        found = client.http.post("/search", json={"query": "memory with many words"})
        assert found.json()["count"] > 0
        assert client.http.get("/health").json()["status"] == "ok"
        ready = client.http.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "failing")
        assert "no space left" in ready.json()["reason"]
        assert "no space left" in _until(lambda: client.stats()["backup_error"])
    assert client.http.get("/health/ready").json() == {"status": "ready"}
    assert client.add().status_code == 200
    assert client.http.post("/backup").status_code == 200
    _until(lambda: client.stats()["backup_error"] is None)
    client.check()

    with no_space_left(disk):
        client.add_until_refused()
        for process in service.processes():
            process.kill()
        service.exited_within(30)
        service.launch()
        assert service.exited_within(120)
        assert service.stop() == 1
        refusal = service.log().splitlines()[-1]
        assert refusal.startswith("Cannot run: the disk that holds DATA_DIR=")
    service.start()
    client.check()
    assert client.add().status_code == 200
    backups = client.http.get("/backups").json()["backups"]
    for backup in backups:
        answer = client.http.post("/backup/verify", json={"backup_name": backup["name"]})
        assert answer.json()["ok"], answer.text


def _until(tell: Any) -> Any:
    """What `tell` returns once it is true."""
    for _ in range(1200):
        if told := tell():
            return told
        time.sleep(0.2)
    raise AssertionError("it never came")
