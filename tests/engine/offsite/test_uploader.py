"""The thread that uploads: nothing that a caller, the bucket or the clean-up does ends it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from engine.errors import NotReadyError
from engine.offsite.snapshots import RemoteSnapshot
from engine.offsite.upload import UploadReport
from engine.offsite.uploader import Uploader

PATIENCE_S = 60.0


class Bucket:
    """Uploads only once it is open; what is in it, and how often it was tidied."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.asked = threading.Event()
        self.names: list[str] = []
        self.n_tidied = 0

    def upload(self, name: str, _is_wanted: bool, _overwrite: bool) -> UploadReport:
        self.asked.set()
        assert self.is_open.wait(PATIENCE_S)
        self.names.append(name)
        snapshot = RemoteSnapshot(generation=1, id=name, name=name, key=name, modified_s=0.0)
        return UploadReport(snapshot=snapshot, n_objects=1, n_bytes=1)

    def clean_up(self) -> None:
        self.n_tidied += 1
        raise KeyError("a listing without a key")


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def uploader(bucket: Bucket) -> Iterator[Uploader]:
    uploader = Uploader(bucket.upload, bucket.clean_up, interval_s=0.0, retry_s=0.01)
    yield uploader
    bucket.is_open.set()
    uploader.close(patience_s=PATIENCE_S)


def test_uploads_go_on_after_callers_gave_up(bucket: Bucket, uploader: Uploader) -> None:
    under_way = uploader.upload("under way", overwrite=False)
    assert bucket.asked.wait(PATIENCE_S)
    assert not under_way.cancel()
    waiting = uploader.upload("waiting", overwrite=False)
    assert waiting.cancel()
    bucket.is_open.set()
    uploader.upload("last", overwrite=False).result(PATIENCE_S)
    assert under_way.result(PATIENCE_S).n_objects == 1
    assert bucket.names == ["under way", "last"]


def test_uploads_go_on_after_a_clean_up_that_failed(bucket: Bucket, uploader: Uploader) -> None:
    bucket.is_open.set()
    for name in ("first", "second"):
        uploader.upload(name, overwrite=False).result(PATIENCE_S)
    uploader.close(patience_s=PATIENCE_S)
    assert bucket.names == ["first", "second"]
    assert bucket.n_tidied == 2


def test_at_the_end_only_those_who_still_wait_are_told(bucket: Bucket, uploader: Uploader) -> None:
    uploader.upload("under way", overwrite=False)
    assert bucket.asked.wait(PATIENCE_S)
    gone, waiting = (uploader.upload(name, overwrite=False) for name in ("gone", "waiting"))
    assert gone.cancel()
    uploader.close(patience_s=0.0)
    bucket.is_open.set()
    with pytest.raises(NotReadyError, match="stopping"):
        waiting.result(PATIENCE_S)
    with pytest.raises(CancelledError):
        gone.result(0)
