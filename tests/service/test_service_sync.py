"""Cloud sync of the real service: over REST, on a new machine, and with the bucket away."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.fault_proxy import FaultProxy, always, fault_proxy, no_fault
from tests.support.foreign_backups import HOSTILE, change_backup, odd_manifests, plant_odd_backups
from tests.support.s3_servers import Bucket, moto_server, new_bucket
from tests.support.service import Service, running_service

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


def sealed(bucket: Bucket) -> dict[str, str]:
    return {**bucket.settings(), "CLOUD_SYNC_PASSPHRASE": "correct horse battery staple"}


@pytest.fixture(scope="module")
def service(
    bucket: Bucket, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    env = {**sealed(bucket), "CLOUD_SYNC_ENDPOINT": proxy.url}
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


def test_odd_and_hostile_backups_here_and_in_the_bucket_stop_nothing(
    service: Service, bucket: Bucket
) -> None:
    add(service, "Kept in a backup.")
    good = call(service, "POST", "/sync/upload").json()["backup_name"]
    backups_dir = service.data_dir / "backups"
    odd = plant_odd_backups(backups_dir, good)
    for n, content in enumerate(odd_manifests({"files": [{}], "facts": {}}).values()):
        key = f"faiss-memory/backups/{n + 900:010d}-{n:016x}-{good}/manifest.json"
        bucket.client.put_object(Bucket=bucket.name, Key=key, Body=content)
    shutil.copytree(backups_dir / good, backups_dir / "hostile_20260101_000000")
    change_backup(
        backups_dir / "hostile_20260101_000000", HOSTILE["a view in the place of a table"]
    )

    listed = [backup["name"] for backup in call(service, "GET", "/backups").json()["backups"]]
    assert set(listed).isdisjoint(odd)
    assert call(service, "GET", "/stats").json()["backup_count"] == len(listed)
    hostile = {"backup_name": "hostile_20260101_000000"}
    verified = call(service, "POST", "/backup/verify", json=hostile).json()
    assert "its tables are not laid out as they were" in verified["problems"][0]
    assert call(service, "POST", "/restore", json=hostile).status_code == 409
    assert call(service, "POST", "/restore", json={"backup_name": odd[0]}).status_code == 404
    assert call(service, "POST", "/backup").json()["success"] is True
    uploaded = call(service, "POST", "/sync/upload").json()["backup_name"]
    snapshots = call(service, "GET", "/sync/snapshots").json()["snapshots"]
    assert snapshots[0]["name"] == uploaded
    assert call(service, "POST", "/sync/download?confirm=true").json()["backup_name"] == uploaded
    assert call(service, "POST", "/restore", json={"backup_name": good}).json()["success"] is True
    before = status(service)["last_upload_at"]
    add(service, "The automatic backup after this one is uploaded too.")
    wait_until(lambda: status(service)["last_upload_at"] != before)
    assert status(service)["last_error"] is None
    assert "is passed over: it is not encrypted" in service.log(200_000)


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
    env = {**sealed(bucket), "CLOUD_SYNC_ENDPOINT": proxy.url}
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
