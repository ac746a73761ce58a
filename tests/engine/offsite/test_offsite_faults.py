"""A bucket that breaks: no hang, no false success, and restorable at every moment."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import RemoteError
from engine.offsite.first_start import is_new
from tests.support.fault_proxy import FaultProxy, always, fault_proxy, no_fault, once
from tests.support.index_under_test import search, texts_of
from tests.support.offsite_under_test import PATIENCE_S, Machine, start_new, texts_in_bucket
from tests.support.s3_servers import Bucket, moto_server, new_bucket, unused_port

TIMEOUT_S = 5.0


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture
def bucket(endpoint: str) -> Bucket:
    return new_bucket(endpoint)


@pytest.fixture
def proxy(endpoint: str) -> Iterator[FaultProxy]:
    with fault_proxy(endpoint) as proxy:
        yield proxy


def behind(proxy: FaultProxy, bucket: Bucket, directory: Path, **options: Any) -> Machine:
    """A machine that reaches the bucket through the proxy."""
    store = bucket.store(endpoint=proxy.url, timeout_s=TIMEOUT_S)
    return Machine(directory, store, **{"max_backups": 0, **options})


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("unavailable", "cannot list s3://"),
        ("hang", "Read timeout"),
        ("denied", "refused the credentials"),
        ("lose answer", "cannot list s3://"),
    ],
)
def test_a_bucket_that_is_down_is_said_to_be_and_is_caught_up_with(
    proxy: FaultProxy, bucket: Bucket, tmp_path: Path, fault: str, words: str
) -> None:
    with behind(proxy, bucket, tmp_path / "one") as machine:
        machine.add("before")
        machine.upload()
        patient = machine.remote.store
        machine.remote.store = bucket.store(endpoint=proxy.url, timeout_s=0.5)  # hangs soon enough
        proxy.choose = always(fault)  # type: ignore[arg-type]
        machine.add("meanwhile")
        with pytest.raises(RemoteError, match=words):
            machine.upload()
        assert words in (machine.sync.status().last_error or "")
        assert texts_of(search(machine.index, "meanwhile", k=1)) == ["meanwhile"]
        assert texts_in_bucket(tmp_path / "then", bucket.store()) == ["before"]
        proxy.choose = no_fault
        machine.remote.store = patient
        machine.upload()
        assert machine.sync.status().last_error is None
    assert texts_in_bucket(tmp_path / "now", bucket.store()) == ["before", "meanwhile"]


def test_automatic_uploads_go_on_by_themselves_after_a_refused_connection(
    bucket: Bucket, tmp_path: Path
) -> None:
    port = unused_port()
    with Machine(tmp_path / "one", bucket.store(endpoint=f"http://127.0.0.1:{port}")) as machine:
        machine.add("first")
        status = machine.wait_until(lambda status: status.last_error is not None)
        assert "Could not connect" in (status.last_error or "")
        assert status.pending
        machine.remote.store = bucket.store()
        machine.wait_until_uploaded()
        assert machine.sync.status().last_error is None


@pytest.mark.parametrize("path", ["objects/", "manifest"])
def test_a_put_whose_answer_is_lost_happens_once(
    proxy: FaultProxy, bucket: Bucket, tmp_path: Path, path: str
) -> None:
    with behind(proxy, bucket, tmp_path / "one") as machine:
        machine.add("first")
        # Both attempts: this upload fails although all of it is there.
        proxy.choose = always("lose answer", method="PUT", path=path)
        with pytest.raises(RemoteError):
            machine.upload()
        proxy.choose = no_fault
        machine.upload()
        machine.add("second")
        machine.upload()
    assert len(bucket.listed("objects/")) == 2
    assert texts_in_bucket(tmp_path / "two", bucket.store()) == ["first", "second"]


@pytest.mark.parametrize("fault", ["truncate", "corrupt", "unavailable", "slow"])
def test_a_download_that_breaks_once_is_repeated(
    proxy: FaultProxy, bucket: Bucket, tmp_path: Path, fault: str
) -> None:
    with Machine(tmp_path / "one", bucket.store(), max_backups=0) as machine:
        machine.add("first")
        machine.upload()
    proxy.choose = once(fault, method="GET", path="objects/")  # type: ignore[arg-type]
    store = bucket.store(endpoint=proxy.url, timeout_s=TIMEOUT_S)
    assert texts_in_bucket(tmp_path / "two", store) == ["first"]
    assert proxy.arrived.is_set()


@pytest.mark.parametrize("fault", ["truncate", "corrupt"])
def test_a_download_that_stays_broken_changes_nothing(
    proxy: FaultProxy, bucket: Bucket, tmp_path: Path, fault: str
) -> None:
    with Machine(tmp_path / "one", bucket.store(), max_backups=0) as machine:
        machine.add("first")
        name = machine.upload().snapshot.name or ""
    proxy.choose = always(fault, method="GET", path="objects/")  # type: ignore[arg-type]
    with behind(proxy, bucket, tmp_path / "two") as other:
        other.add("other")
        with pytest.raises(RemoteError):
            other.restore(name)
        assert other.texts() == ["other"]
        assert name not in [backup.name for backup in other.index.backups()]


def test_a_restore_is_noted_though_the_bucket_went_away_meanwhile(
    proxy: FaultProxy, bucket: Bucket, tmp_path: Path
) -> None:
    with Machine(tmp_path / "one", bucket.store(), max_backups=0) as machine:
        machine.add("first")
        name = machine.upload().snapshot.name or ""
    with behind(proxy, bucket, tmp_path / "two") as other:

        def put_in_place(backup: str) -> int:
            proxy.choose = always("unavailable")
            return other.index.restore(backup).result(PATIENCE_S)

        other.sync.restore(name, put_in_place)
        proxy.choose = no_fault
        other.add("second")
        other.upload()  # of a store that descends from the newest snapshot
    assert texts_in_bucket(tmp_path / "three", bucket.store()) == ["first", "second"]


@pytest.mark.parametrize("n_requests", range(4))
def test_credentials_revoked_in_between_leave_the_bucket_restorable(
    proxy: FaultProxy, bucket: Bucket, tmp_path: Path, n_requests: int
) -> None:
    with behind(proxy, bucket, tmp_path / "one") as machine:
        machine.add("before")
        machine.upload()
        machine.add("after")
        n_allowed = len(proxy.seen) + n_requests
        proxy.choose = lambda method, path: "denied" if len(proxy.seen) > n_allowed else None
        try:
            machine.upload()
            uploaded = True
        except RemoteError as exc:
            uploaded = "refused the credentials" not in str(exc)
        there = texts_in_bucket(tmp_path / "two", bucket.store())
        assert there in (["before"], ["before", "after"])
        assert there == ["before", "after"] or not uploaded
        proxy.choose = no_fault
        machine.upload()
    assert texts_in_bucket(tmp_path / "three", bucket.store()) == ["before", "after"]


UPLOADING = """
import sys
from pathlib import Path
from tests.support.offsite_under_test import Machine
from tests.support.s3_servers import Bucket

machine = Machine(Path(sys.argv[1]), Bucket(endpoint=sys.argv[2], name=sys.argv[3]).store())
machine.add("second")
machine.upload()
"""

STARTING = """
import sys
from pathlib import Path
from tests.support.offsite_under_test import start_new
from tests.support.s3_servers import Bucket

start_new(Path(sys.argv[1]), Bucket(endpoint=sys.argv[2], name=sys.argv[3]).store())
"""


def kill_when_met(script: str, directory: Path, proxy: FaultProxy, bucket: Bucket) -> None:
    """Run a script until the fault has met its request, then SIGKILL it."""
    child = subprocess.Popen([sys.executable, "-c", script, directory, proxy.url, bucket.name])
    assert proxy.arrived.wait(PATIENCE_S)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    proxy.choose = no_fault
    proxy.arrived.clear()


@pytest.mark.parametrize("path", ["objects/", "manifest"])
def test_a_machine_killed_while_it_uploads_goes_on_after_its_restart(
    proxy: FaultProxy, bucket: Bucket, tmp_path: Path, path: str
) -> None:
    with Machine(tmp_path / "one", bucket.store(), max_backups=0) as machine:
        machine.add("first")
        machine.upload()
    proxy.choose = always("hang", method="PUT", path=path)
    kill_when_met(UPLOADING, tmp_path / "one", proxy, bucket)
    assert texts_in_bucket(tmp_path / "then", bucket.store()) == ["first"]
    with Machine(tmp_path / "one", bucket.store()) as machine:
        machine.wait_until_uploaded()
    assert texts_in_bucket(tmp_path / "now", bucket.store()) == ["first", "second"]


def test_a_new_machine_killed_while_it_downloads_starts_over(
    proxy: FaultProxy, bucket: Bucket, tmp_path: Path
) -> None:
    with Machine(tmp_path / "one", bucket.store(), max_backups=0) as machine:
        machine.add("first")
        machine.upload()
    (tmp_path / "two" / "data").mkdir(parents=True)
    proxy.choose = always("hang", method="GET", path="objects/")
    kill_when_met(STARTING, tmp_path / "two", proxy, bucket)
    assert is_new(tmp_path / "two" / "data")
    assert start_new(tmp_path / "two", bucket.store())
    with Machine(tmp_path / "two", bucket.store(), max_backups=0) as two:
        two.add("second")
        two.upload()
    assert texts_in_bucket(tmp_path / "three", bucket.store()) == ["first", "second"]
