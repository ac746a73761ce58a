"""The running service when files are taken from under it, and when its writer hangs."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from engine.disk.data_lock import DataLock
from engine.errors import StoreLockedError
from tests.support.service import Service, running_service

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]

REQUEST_TIMEOUT_S = 2
ENDS_WITHIN_S = 120


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    env = {"REQUEST_TIMEOUT_S": str(REQUEST_TIMEOUT_S)}
    with running_service(tmp_path_factory.mktemp("lost_files"), env=env) as service:
        yield service


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.base_url, timeout=60, trust_env=False) as client:
        assert add(client, "Something to keep.").status_code == 200
        yield client


def add(client: httpx.Client, text: str) -> httpx.Response:
    body = {"text": text, "source": "test", "deduplicate": False}
    return client.post("/memory/add", json=body)


def why_not_ready(client: httpx.Client) -> str | None:
    answer = client.get("/health/ready")
    assert answer.status_code == (200 if answer.json()["status"] == "ready" else 503)
    reason: str | None = answer.json().get("reason")
    return reason


def until(tell: Callable[[], bool]) -> None:
    for _ in range(600):
        if tell():
            return
        time.sleep(0.1)
    raise AssertionError("it never came")


def statuses(client: httpx.Client) -> dict[str, int]:
    line = b'{"text": "Imported.", "source": "test", "deduplicate": false}\n'
    return {
        "/stats": client.get("/stats").status_code,
        "/metrics": client.get("/metrics").status_code,
        "/backups": client.get("/backups").status_code,
        "/export": client.get("/export").status_code,
        "/import": client.post("/import", content=line).status_code,
        "/backup": client.post("/backup").status_code,
    }


def test_backups_that_were_removed_are_made_anew(service: Service, http: httpx.Client) -> None:
    shutil.rmtree(service.data_dir / "backups")

    assert set(statuses(http).values()) == {200}

    [newest, *_] = http.get("/backups").json()["backups"]
    verified = http.post("/backup/verify", json={"backup_name": newest["name"]}).json()
    assert verified["ok"], verified
    assert why_not_ready(http) is None


def test_where_no_backup_can_be_made_the_service_works_and_is_not_ready(
    service: Service, http: httpx.Client
) -> None:
    backups = service.data_dir / "backups"
    backups.rename(aside := backups.with_name("aside"))
    backups.write_text("in the way")
    try:
        told = statuses(http)
        reason = why_not_ready(http)
    finally:
        backups.unlink()
        aside.rename(backups)

    assert [path for path, status in told.items() if status != 200] == ["/backups", "/backup"]
    assert told["/backup"] == 503
    assert reason is not None
    assert str(backups) in reason
    assert why_not_ready(http) is None


def test_without_the_lock_file_a_second_service_is_refused_all_the_same(
    service: Service, http: httpx.Client
) -> None:
    (service.data_dir / "lock").unlink()
    with pytest.raises(StoreLockedError):
        DataLock(service.data_dir, timeout_s=0)
    assert add(http, "The first one goes on.").status_code == 200


def test_a_writer_that_hangs_is_told(service: Service, http: httpx.Client) -> None:
    database = service.data_dir / "memories.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        adding = threading.Thread(target=add, args=(http, "It waits."))
        adding.start()
        until(lambda: "a write has been under way" in (why_not_ready(http) or ""))
        other.execute("ROLLBACK")
    adding.join()
    until(lambda: why_not_ready(http) is None)


def test_nothing_is_written_to_a_database_that_was_removed(
    service: Service, http: httpx.Client
) -> None:
    (service.data_dir / "memories.db").unlink()

    refused = add(http, "Into nowhere.")

    assert refused.status_code == 503, refused.text
    assert int(refused.headers["retry-after"]) > 0
    assert "memories.db was removed or replaced" in refused.json()["detail"]
    assert "memories.db was removed" in (why_not_ready(http) or "memories.db was removed")
    assert service.exited_within(ENDS_WITHIN_S)
    assert service.stop() == 1
    refusal = service.log().splitlines()[-1]
    assert "memories.db is damaged: it is missing" in refusal
    assert "store restore " in refusal, "which backup to go on from"
    assert not Path(service.data_dir / "memories.db").exists()


def test_without_its_wal_nothing_is_answered_as_an_inner_error(tmp_path: Path) -> None:
    with (
        running_service(tmp_path, env={"REQUEST_TIMEOUT_S": str(REQUEST_TIMEOUT_S)}) as service,
        httpx.Client(base_url=service.base_url, timeout=60, trust_env=False) as http,
    ):
        assert add(http, "Something to lose.").status_code == 200
        (service.data_dir / "memories.db-wal").unlink()

        told = statuses(http)

        assert set(told.values()) <= {200, 503}, told
        assert add(http, "Into nowhere.").status_code == 503
