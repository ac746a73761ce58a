"""Cloud sync of the real service: over REST, on a new machine, and with the bucket away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fault_proxy import FaultProxy, always, fault_proxy, no_fault
from tests.s3_servers import Bucket, moto_server, new_bucket
from tests.service import Service, running_service

pytestmark = pytest.mark.service
PATIENCE_S = 180


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with moto_server() as url:
        yield new_bucket(url)


@pytest.fixture(scope="module")
def proxy(bucket: Bucket) -> Iterator[FaultProxy]:
    with fault_proxy(bucket.endpoint) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def service(
    bucket: Bucket, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    env = {**bucket.settings(), "CLOUD_SYNC_ENDPOINT": proxy.url}
    with running_service(tmp_path_factory.mktemp("one"), env=env) as service:
        yield service


def call(service: Service, method: str, path: str, **options: Any) -> httpx.Response:
    return httpx.request(
        method, f"{service.base_url}{path}", timeout=PATIENCE_S, trust_env=False, **options
    )


def add(service: Service, text: str) -> None:
    body = {"text": text, "source": "s", "deduplicate": False}
    assert call(service, "POST", "/memory/add", json=body).status_code == 200


def status(service: Service) -> dict[str, Any]:
    answer: dict[str, Any] = call(service, "GET", "/sync/status").json()
    return answer


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_the_routes_upload_list_download_and_restore(service: Service) -> None:
    add(service, "The deploy day is Tuesday.")
    uploaded = call(service, "POST", "/sync/upload").json()
    name = uploaded["backup_name"]
    assert uploaded["success"] is True
    add(service, "Anna likes green tea.")
    wait_until(lambda: status(service)["latest_remote"].startswith("auto_"))
    snapshots = call(service, "GET", "/sync/snapshots").json()
    names = [snapshot["name"] for snapshot in snapshots["snapshots"]]
    assert snapshots["count"] == len(names)
    assert names.index(name) > 0
    assert all(s["s3_prefix"].startswith("faiss-memory/") for s in snapshots["snapshots"])

    assert call(service, "POST", "/sync/download").status_code == 400
    assert call(service, "POST", f"/sync/restore/{name}").status_code == 400
    unknown = call(service, "POST", "/sync/download?confirm=true&backup_name=nope")
    assert unknown.status_code == 404
    got = call(service, "POST", f"/sync/download?confirm=true&backup_name={names[0]}").json()
    assert got["success"] is True
    assert Path(got["local_path"]).is_dir()
    restored = call(service, "POST", f"/sync/restore/{name}?confirm=true").json()
    assert restored["restored"]["total_memories"] == 1
    assert call(service, "GET", "/health").json()["total_memories"] == 1


def test_a_bucket_that_is_away_is_502_and_holds_nothing_up(
    service: Service, proxy: FaultProxy
) -> None:
    before = status(service)["last_upload_at"]
    proxy.choose = always("unavailable")
    failed = call(service, "POST", "/sync/upload")
    assert failed.status_code == 502
    assert "cannot list s3://" in failed.json()["detail"]
    add(service, "Written meanwhile.")
    found = call(service, "POST", "/search", json={"query": "written meanwhile", "k": 1}).json()
    assert found["results"][0]["text"] == "Written meanwhile."
    wait_until(lambda: status(service)["pending"] is not None)
    assert status(service)["last_upload_at"] == before
    proxy.choose = no_fault
    wait_until(lambda: status(service)["pending"] is None)
    assert status(service)["last_error"] is None


def test_a_new_machine_waits_for_the_bucket_and_then_answers_the_same(
    service: Service, bucket: Bucket, proxy: FaultProxy, tmp_path: Path
) -> None:
    assert call(service, "POST", "/sync/upload").status_code == 200
    query = {"query": "when do we deploy?", "k": 3}
    expected = call(service, "POST", "/search", json=query).json()
    proxy.choose = always("unavailable")
    (tmp_path / "workspace").mkdir()
    env = {**bucket.settings(), "CLOUD_SYNC_ENDPOINT": proxy.url}
    other = Service(tmp_path / "data", tmp_path / "workspace", env=env)
    other.launch()
    try:
        wait_until(lambda: "Not ready: waiting for the cloud" in other.log())
        assert call(other, "GET", "/health/live").status_code == 200
        ready = call(other, "GET", "/health/ready")
        assert ready.status_code == 503
        assert "CLOUD_SYNC_ALLOW_EMPTY_START" in ready.json()["reason"]
        refused = call(other, "POST", "/memory/add", json={"text": "too early", "source": "s"})
        assert refused.status_code == 503
        proxy.choose = no_fault
        wait_until(lambda: "FAISS Memory answers at" in other.log())
        assert call(other, "POST", "/search", json=query).json() == expected
        add(other, "Of the other machine.")
        wait_until(lambda: status(other)["pending"] is None and status(other)["last_upload_at"])
        add(service, "Of the first machine.")
        refused = call(service, "POST", "/sync/upload")
        assert refused.status_code == 502
        assert "written by" in refused.json()["detail"]
    finally:
        proxy.choose = no_fault
        other.stop()
