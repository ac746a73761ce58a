"""A bucket in which somebody else has put things: uploads, recovery and clean-up go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from engine.backups.manifest import manifest_fields
from engine.errors import (
    RemoteConflictError,
    RemoteDamagedError,
    RemoteSealedError,
    StorageError,
)
from engine.offsite.encryption import Encrypted
from engine.offsite.retention import RemoteRetention
from engine.offsite.seal import Seal, Unsealed
from engine.offsite.snapshots import RemoteManifest
from tests.support.fault_proxy import always, fault_proxy
from tests.support.foreign_backups import HOSTILE, change_backup, odd_manifests
from tests.support.offsite_under_test import Machine, start_new, texts_in_bucket
from tests.support.s3_servers import Bucket, moto_server, new_bucket

PASSPHRASE = b"correct horse battery staple"
KEEP_TWO = RemoteRetention(keep=2, keep_days=0, grace_s=-3600)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture
def bucket(endpoint: str) -> Bucket:
    return new_bucket(endpoint)


@pytest.fixture(params=["plain", "encrypted"])
def seal(request: pytest.FixtureRequest) -> Seal:
    return Encrypted(PASSPHRASE) if request.param == "encrypted" else Unsealed()


def fields_of(remote: RemoteManifest) -> dict[str, Any]:
    """A manifest as it would be without a passphrase."""
    return {
        "format": 1,
        "machine": asdict(remote.machine),
        "backup": manifest_fields(remote.backup),
        "objects": dict(remote.objects),
    }


def plain_key(generation: int, name: str = "auto_20260101_000000") -> str:
    return f"backups/{generation:010d}-{generation:016x}-{name}/manifest.json"


def odd_contents(remote: RemoteManifest) -> list[bytes]:
    good = fields_of(remote)
    machines: list[object] = [
        None,
        [],
        {"id": 3, "host": "h"},
        {"id": "i"},
        {"id": "i", "host": "\n"},
    ]
    objects: list[object] = [None, [], {}, {remote.backup.files[0].name: 3}, {"x": "objects/1"}]
    backups = [json.loads(content) for content in _parsable(odd_manifests(good["backup"]))]
    return [
        *(json.dumps({**good, "machine": odd}).encode() for odd in machines),
        *(json.dumps({**good, "objects": odd}).encode() for odd in objects),
        *(json.dumps({**good, "backup": odd}).encode() for odd in backups[::9]),
        *(json.dumps({**good, "format": odd}).encode() for odd in (0, "1", None)),
        *(b"", b"[]", b"{", b"[" * 100_000, b"\xff\xfe"),
    ]


def _parsable(contents: dict[str, bytes]) -> list[bytes]:
    return [
        content for content in contents.values() if content[:1] == b"{" and b"99" not in content
    ]


def test_odd_manifests_are_passed_over_by_everything(
    bucket: Bucket, tmp_path: Path, seal: Seal, caplog: pytest.LogCaptureFixture
) -> None:
    with Machine(tmp_path / "one", bucket.store(), seal=seal, max_backups=0) as one:
        one.add("first")
        first = one.upload().snapshot
        contents = odd_contents(one.remote.read(first))
        for n, content in enumerate(contents):
            key = one.remote.key_of(
                generation=500 + n, snapshot_id=f"{n:016x}", name="auto_20260101_000000"
            )
            bucket.store().put(key, one.remote.seal.seal(content, key))
        bucket.store().put(plain_key(2, "no-name-of-a-backup"), contents[0])
        assert [s.id for s in one.sync.snapshots()] == [first.id]
        one.add("second")
        second = one.upload().snapshot
        assert [s.id for s in one.sync.snapshots()] == [second.id, first.id]
        assert one.sync.download(None).snapshot.id == second.id
        one.restore(first.name or "")
        assert one.texts() == ["first"]
    assert texts_in_bucket(tmp_path / "two", bucket.store(), seal=seal) == ["first", "second"]
    assert caplog.text.count("is passed over") >= len(contents) + 1


def test_with_a_passphrase_what_is_not_encrypted_is_passed_over(
    bucket: Bucket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seal = Encrypted(PASSPHRASE)
    with Machine(tmp_path / "theirs", new_bucket(bucket.endpoint).store(), max_backups=0) as other:
        other.add("planted")
        planted = fields_of(other.remote.read(other.upload().snapshot))
        [base] = (tmp_path / "theirs").rglob("base_*.db")
    bucket.store().put(next(iter(planted["objects"].values())), base.read_bytes())
    content = json.dumps(planted).encode()
    bucket.store().put(plain_key(700), content)
    with Machine(
        tmp_path / "one", bucket.store(), seal=seal, max_backups=0, retention=KEEP_TWO
    ) as one:
        for n in range(4):
            one.add(f"memory {n}")
            snapshot = one.upload().snapshot
            bucket.store().put(plain_key(700 + n), content)
            disguised = snapshot.key.replace("manifest.sealed", "manifest.json")
            bucket.store().put(disguised, content)
            ahead = snapshot.key.replace(f"{snapshot.generation:010d}-", "0000000900-")
            bucket.store().put(ahead, content)
        assert {s.name for s in one.sync.snapshots()} <= {b.name for b in one.index.backups()}
    memories = [f"memory {n}" for n in range(4)]
    assert texts_in_bucket(tmp_path / "two", bucket.store(), seal=seal) == memories
    assert "it is not encrypted, though there is a passphrase" in caplog.text
    assert "unset" not in caplog.text


def test_a_bucket_with_planted_snapshots_only_is_empty_to_whom_has_a_passphrase(
    bucket: Bucket, tmp_path: Path
) -> None:
    with Machine(tmp_path / "plain", bucket.store(), max_backups=0) as plain:
        plain.add("not encrypted")
        plain.upload()
    before = bucket.listed()
    seal = Encrypted(PASSPHRASE)
    (tmp_path / "new" / "data").mkdir(parents=True)
    assert start_new(tmp_path / "new", bucket.store(), seal=seal) is None
    with Machine(
        tmp_path / "new", bucket.store(), seal=seal, max_backups=0, retention=KEEP_TWO
    ) as new:
        for n in range(4):
            new.add(f"encrypted {n}")
            new.upload()
        new.wait_until(lambda _: len(bucket.listed("backups/")) == 3)
    assert set(before) <= set(bucket.listed()), "it may be from before there was a passphrase"


def test_names_sealed_by_others_do_not_hide_what_ours_opens(bucket: Bucket, tmp_path: Path) -> None:
    seal = Encrypted(PASSPHRASE)
    with Machine(tmp_path / "one", bucket.store(), seal=seal, max_backups=0) as one:
        one.add("first")
        one.upload()
        theirs = Encrypted(b"another")
        key = f"backups/{800:010d}-{1:016x}-{theirs.token('a_20260101_000000')}/manifest.sealed"
        bucket.store().put(key, theirs.seal(b"{}", key))
        bucket.store().put(f"backups/{900:010d}-{2:016x}-AAAA/manifest.sealed", b"garbage")
        one.add("second")
        one.upload()
    texts = texts_in_bucket(tmp_path / "two", bucket.store(), seal=Encrypted(PASSPHRASE))
    assert texts == ["first", "second"]
    with pytest.raises(RemoteSealedError, match="CLOUD_SYNC_PASSPHRASE"):
        texts_in_bucket(tmp_path / "three", bucket.store(), seal=Encrypted(b"mistyped"))


def test_only_odd_snapshots_are_no_reason_to_start_empty(bucket: Bucket, tmp_path: Path) -> None:
    bucket.store().put(plain_key(3), b"{}")
    (tmp_path / "data").mkdir(parents=True)
    with pytest.raises(RemoteDamagedError, match="none of the 1 snapshots"):
        start_new(tmp_path, bucket.store())


def test_what_a_newer_release_wrote_is_not_passed_over(bucket: Bucket, tmp_path: Path) -> None:
    with Machine(tmp_path / "one", bucket.store(), max_backups=0) as one:
        one.add("first")
        fields = fields_of(one.remote.read(one.upload().snapshot))
        bucket.store().put(plain_key(9), json.dumps({**fields, "format": 2}).encode())
        one.add("second")
        with pytest.raises(RemoteConflictError, match="nothing was uploaded"):
            one.upload()
    (tmp_path / "two" / "data").mkdir(parents=True)
    with pytest.raises(RemoteConflictError, match="newer release"):
        start_new(tmp_path / "two", bucket.store())


def test_uploads_follow_the_highest_generation_there_can_be(bucket: Bucket, tmp_path: Path) -> None:
    with Machine(tmp_path / "one", bucket.store(), max_backups=0) as one:
        one.add("first")
        fields = fields_of(one.remote.read(one.upload().snapshot))
        bucket.store().put(plain_key(9_999_999_999), json.dumps(fields).encode())
        one.add("second")
        with pytest.raises(RemoteConflictError):
            one.upload()
        one.upload(overwrite=True)
    assert texts_in_bucket(tmp_path / "two", bucket.store()) == ["first", "second"]


def test_a_damaged_manifest_of_our_own_does_not_stop_uploads(
    bucket: Bucket, tmp_path: Path, seal: Seal
) -> None:
    with Machine(tmp_path / "one", bucket.store(), seal=seal, max_backups=0) as one:
        for n in range(3):
            one.add(f"memory {n}")
            last = one.upload().snapshot
        bucket.store().put(last.key, b"damaged")
    with Machine(tmp_path / "one", bucket.store(), seal=seal, max_backups=0) as one:
        one.add("after")
        one.upload()
    texts = texts_in_bucket(tmp_path / "two", bucket.store(), seal=seal)
    assert texts == ["memory 0", "memory 1", "memory 2", "after"]


def test_an_old_manifest_that_cannot_be_read_stops_no_upload(
    bucket: Bucket, tmp_path: Path
) -> None:
    with Machine(tmp_path / "one", bucket.store(), max_backups=0) as one:
        one.add("first")
        first = one.upload().snapshot
        one.add("second")
        one.upload()
    with fault_proxy(bucket.endpoint) as proxy:
        proxy.choose = always("denied", method="GET", path=first.id)
        store = bucket.store(endpoint=proxy.url)
        with Machine(tmp_path / "one", store, max_backups=0) as one:
            one.add("third")
            one.upload()
            assert len(one.sync.snapshots()) == 3
    assert texts_in_bucket(tmp_path / "two", bucket.store()) == ["first", "second", "third"]


def test_objects_are_read_with_a_bound(bucket: Bucket, tmp_path: Path) -> None:
    store = bucket.store()
    store.put("large", b"x" * 1000)
    assert len(store.get("large", max_bytes=1000)) == 1000
    store.get_file("large", tmp_path / "file", max_bytes=1000)
    assert (tmp_path / "file").stat().st_size == 1000
    with pytest.raises(RemoteDamagedError, match="larger than the 999 bytes"):
        store.get("large", max_bytes=999)
    with pytest.raises(RemoteDamagedError, match="larger than the 999 bytes"):
        store.get_file("large", tmp_path / "file", max_bytes=999)
    store.put("part", b"x" * (33 << 20))
    with pytest.raises(RemoteDamagedError, match="larger than the 20000000 bytes"):
        store.get_file("part", tmp_path / "file", max_bytes=20_000_000)
    assert (tmp_path / "file").stat().st_size <= 20_000_000


def test_a_snapshot_larger_than_the_disk_is_not_begun(bucket: Bucket, tmp_path: Path) -> None:
    with Machine(tmp_path / "one", bucket.store(), max_backups=0) as one:
        one.add("first")
        remote = one.remote.read(one.upload().snapshot)
        fields = fields_of(remote)
        fields["backup"]["files"][0]["n_bytes"] = 1 << 60
        fields["backup"]["format"] = 1
        bucket.store().put(plain_key(5), json.dumps(fields).encode())
        with pytest.raises(StorageError, match="no space left for"):
            one.sync.download(None)
        assert one.index.stats().backup_count == 1


@pytest.mark.parametrize("what", ["a view in the place of a table", "a trigger"])
def test_a_hostile_database_in_the_bucket_is_not_restored(
    bucket: Bucket, tmp_path: Path, what: str
) -> None:
    with Machine(tmp_path / "one", bucket.store(), max_backups=0) as one:
        one.add("first")
        one.upload()
        one.add("second")
        hostile = one.index.backup("hostile")
        change_backup(Path(hostile.path), HOSTILE[what])
        one.sync.upload(hostile.name, overwrite=False).result(timeout=60)
        with pytest.raises(StorageError, match="cannot be used"):
            one.restore(hostile.name)
        assert one.texts() == ["first", "second"]
    assert texts_in_bucket(tmp_path / "two", bucket.store()) == ["first"]
