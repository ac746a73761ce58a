"""The copy in a bucket, against two real S3 servers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.errors import (
    BackupNotFoundError,
    RemoteConflictError,
    RemoteDamagedError,
    RemoteSealedError,
    StoreCorruptError,
)
from engine.offsite.encryption import Encrypted
from engine.offsite.first_start import is_new
from engine.offsite.retention import RemoteRetention
from engine.offsite.seal import Seal, Unsealed
from engine.offsite.snapshots import RemoteSnapshot
from engine.offsite.sync_state import SyncStateFile
from tests.support.index_under_test import add, open_index, search, texts_of
from tests.support.offsite_under_test import Machine, start_new, texts_in_bucket
from tests.support.s3_servers import Bucket, moto_server, new_bucket, rclone_server

PASSPHRASE = b"correct horse battery staple"


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with rclone_server(tmp_path_factory.mktemp("objects")) as url:
        yield url


@pytest.fixture
def bucket(moto: str) -> Bucket:
    return new_bucket(moto)


@pytest.fixture(params=["moto", "rclone"])
def any_bucket(request: pytest.FixtureRequest) -> Bucket:
    """One of each server."""
    return new_bucket(request.getfixturevalue(request.param))


def seals() -> list[Seal]:
    return [Unsealed(), Encrypted(PASSPHRASE)]


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_a_second_machine_restores_what_the_first_uploaded(
    any_bucket: Bucket, tmp_path: Path, is_encrypted: bool
) -> None:
    with Machine(tmp_path / "one", any_bucket.store(), seal=seals()[is_encrypted]) as one:
        one.add("the deploy day is tuesday", "anna likes green tea")
        one.upload()
        one.add("ben plays the cello")
        report = one.upload()
        expected = [search(one.index, text, k=3) for text in ("green tea", "cello")]
    assert next(s.name for s in one.sync.snapshots()) == report.snapshot.name
    new = tmp_path / "two"
    (new / "data").mkdir(parents=True)
    start_new(new, any_bucket.store(), seal=seals()[is_encrypted])
    index = open_index(new)
    assert [search(index, text, k=3) for text in ("green tea", "cello")] == expected
    index.close()
    if is_encrypted:
        contents = [
            any_bucket.client.get_object(Bucket=any_bucket.name, Key=f"mine/{key}")["Body"].read()
            for key in any_bucket.listed()
        ]
        shown = b"".join([*contents, *(key.encode() for key in any_bucket.listed())])
        assert not any(word in shown for word in (b"tuesday", b"SQLite", b"sync_", b"from_lsn"))


def test_a_running_machine_goes_back_to_a_snapshot(any_bucket: Bucket, tmp_path: Path) -> None:
    with Machine(tmp_path, any_bucket.store()) as machine:
        machine.add("first")
        first = machine.upload().snapshot.name or ""
        machine.add("second")
        machine.wait_until_uploaded()
        machine.restore(first)
        assert machine.texts() == ["first"]
        machine.add("third")
        machine.wait_until_uploaded()
        with pytest.raises(BackupNotFoundError):
            machine.sync.download("manual_20200101_000000")
    assert texts_in_bucket(tmp_path / "new", any_bucket.store()) == ["first", "third"]


def test_writes_are_uploaded_by_themselves_and_again_after_a_restart(
    bucket: Bucket, tmp_path: Path
) -> None:
    with Machine(tmp_path, bucket.store()) as machine:
        machine.add("first")
        machine.wait_until_uploaded()
    index = open_index(tmp_path)  # a run without the cloud
    add(index, "second")
    index.close()
    with Machine(tmp_path, bucket.store()) as machine:
        machine.wait_until_uploaded()
    assert texts_in_bucket(tmp_path / "new", bucket.store()) == ["first", "second"]


def test_downloads_of_one_snapshot_at_once_give_one_backup(bucket: Bucket, tmp_path: Path) -> None:
    with Machine(tmp_path / "one", bucket.store(), max_backups=0) as one:
        one.add("first")
        name = one.upload().snapshot.name
    with (
        Machine(tmp_path / "two", bucket.store(), max_backups=0) as two,
        ThreadPoolExecutor(4) as pool,
    ):
        got = list(pool.map(two.sync.download, [name] * 4))
        assert [download.backup.name for download in got] == [name] * 4
        assert sum(download.n_fetched for download in got) == 1
        assert [backup.name for backup in two.index.backups()] == [name]


def test_what_did_not_change_does_not_travel(bucket: Bucket, tmp_path: Path) -> None:
    with Machine(tmp_path / "one", bucket.store(), max_backups=0) as one:
        one.add(*(f"memory {n} of many" for n in range(300)))
        base = one.upload()
        for n in range(9):
            one.add(f"one more {n}")
            assert one.upload().n_objects == 1
        assert len(bucket.listed("objects/")) == 10
        again = one.sync.upload(one.index.backup("same").name, overwrite=False).result()
        assert again.n_objects == 0
    with Machine(tmp_path / "two", bucket.store(), max_backups=0) as two:
        two.restore(again.snapshot.name or "")
        two.add("one more on another machine")
        after_restore = two.upload()
    assert after_restore.n_objects == 1
    assert after_restore.n_bytes < base.n_bytes


@pytest.mark.parametrize("any_bucket", ["rclone"], indirect=True)  # moto takes its time
def test_more_than_a_thousand_objects_are_listed_newest_first(
    any_bucket: Bucket, tmp_path: Path
) -> None:
    with Machine(tmp_path, any_bucket.store()) as machine:
        machine.add("a")
        report = machine.upload()
        manifest = machine.remote.read(report.snapshot)

        def write(generation: int) -> None:
            # Names that sort against the time.
            key = machine.remote.key_of(
                generation=generation,
                snapshot_id=f"{generation:016x}",
                name=f"n{9999 - generation}_20260101_000000",
            )
            machine.remote.write(key, manifest)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(100, 1110)))
        listed = machine.sync.snapshots()
    assert len(listed) >= 1010
    assert [s.generation for s in listed] == sorted((s.generation for s in listed), reverse=True)
    assert listed[0].name == f"n{9999 - 1109}_20260101_000000"


def test_old_snapshots_and_what_only_they_need_are_removed(
    any_bucket: Bucket, tmp_path: Path
) -> None:
    retention = RemoteRetention(keep=2, keep_days=0, grace_s=-3600)
    # Each backup is a base of its own.
    with Machine(
        tmp_path, any_bucket.store(), retention=retention, max_backups=0, deltas_share=-1.0
    ) as machine:
        for n in range(5):
            machine.add(f"memory {n}")
            machine.upload()
        machine.wait_until(lambda _: len(any_bucket.listed()) == 4)  # two manifests, two bases
    assert texts_in_bucket(tmp_path / "new", any_bucket.store()) == [
        f"memory {n}" for n in range(5)
    ]


def test_objects_of_an_upload_under_way_are_not_removed(bucket: Bucket, tmp_path: Path) -> None:
    bucket.store().put("objects/" + "0" * 64, b"part of an upload elsewhere")
    with Machine(tmp_path, bucket.store(), retention=RemoteRetention(keep=2)) as machine:
        for n in range(4):
            machine.add(f"memory {n}")
            machine.upload()
    assert "objects/" + "0" * 64 in bucket.listed()


def test_the_last_snapshot_of_each_of_the_last_days_stays() -> None:
    hours = [100, 99, 98, 75, 74, 30, 29, 3]
    snapshots = [
        RemoteSnapshot(generation=h, id=str(h), name="n", key=str(h), modified_s=h * 3600.0)
        for h in hours
    ]
    doomed = RemoteRetention(keep=2, keep_days=3).superfluous(snapshots)
    # Days by hours: 4 of 96.., 3 of 72.., 1 of 24.., 0.
    assert [s.generation for s in doomed] == [98, 74, 30, 29, 3]
    assert RemoteRetention(keep=8, keep_days=0).superfluous(snapshots) == []


def test_of_two_machines_the_second_is_refused_until_someone_decides(
    bucket: Bucket, tmp_path: Path
) -> None:
    with (
        Machine(tmp_path / "one", bucket.store(), max_backups=0) as one,
        Machine(tmp_path / "two", bucket.store(), max_backups=0) as two,
    ):
        one.add("of one")
        theirs = one.upload().snapshot.name
        two.add("of two")
        with pytest.raises(RemoteConflictError, match=rf"'{theirs}', written by one \("):
            two.upload()
        assert "nothing was uploaded" in (two.sync.status().last_error or "")
        two.upload(overwrite=True)
        one.add("later")
        with pytest.raises(RemoteConflictError, match=r"written by two \("):
            one.upload()
        one.restore(two.sync.snapshots()[0].name or "")
        one.add("after both")
        one.upload()
        assert one.texts() == ["of two", "after both"]
        # What was overwritten is still there.
        two.restore(theirs or "")
        assert two.texts() == ["of one"]


def test_two_machines_at_once_never_both_succeed(any_bucket: Bucket, tmp_path: Path) -> None:
    with (
        Machine(tmp_path / "one", any_bucket.store(), max_backups=0) as one,
        Machine(tmp_path / "two", any_bucket.store(), max_backups=0) as two,
    ):
        one.add("common")
        common = one.upload().snapshot.name or ""
        two.restore(common)
        machines = [one, two]
        for round_ in range(4):
            for machine in machines:
                machine.add(f"{round_} of {machine.directory.name}")
            with ThreadPoolExecutor(2) as pool:
                outcomes = list(pool.map(_uploaded, machines))
            assert outcomes.count(True) <= 1
            winner = outcomes.index(True) if True in outcomes else 0
            if True not in outcomes:  # both gave way; the next one gets through
                machines[0].upload(overwrite=True)
            newest = machines[winner].sync.snapshots()[0].name or ""
            expected = machines[winner].texts()
            machines[1 - winner].restore(newest)
            assert machines[1 - winner].texts() == expected


def _uploaded(machine: Machine) -> bool:
    try:
        machine.upload()
    except RemoteConflictError:
        return False
    return True


@pytest.mark.parametrize("harm", ["corrupt", "truncate", "remove"])
def test_a_broken_newest_snapshot_falls_back_to_the_one_before(
    bucket: Bucket, tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Machine(tmp_path / "one", bucket.store(), max_backups=0) as one:
        one.add("whole")
        one.upload()
        before = set(bucket.listed("objects/"))
        one.add("broken")
        one.upload()
    (delta,) = set(bucket.listed("objects/")) - before
    _harm(bucket, f"mine/{delta}", harm)
    assert texts_in_bucket(tmp_path / "two", bucket.store()) == ["whole"]
    assert "the one before is tried" in caplog.text
    with Machine(tmp_path / "two", bucket.store(), max_backups=0) as two:
        two.add("goes on")
        two.upload()
    assert texts_in_bucket(tmp_path / "three", bucket.store()) == ["whole", "goes on"]


def _harm(bucket: Bucket, key: str, harm: str) -> None:
    content = bytearray(bucket.client.get_object(Bucket=bucket.name, Key=key)["Body"].read())
    if harm == "remove":
        bucket.client.delete_object(Bucket=bucket.name, Key=key)
        return
    content[len(content) // 2] ^= 1
    if harm == "truncate":
        del content[len(content) // 2 :]
    bucket.client.put_object(Bucket=bucket.name, Key=key, Body=bytes(content))


def test_without_any_whole_snapshot_a_new_machine_does_not_start_empty(
    bucket: Bucket, tmp_path: Path
) -> None:
    with Machine(tmp_path / "one", bucket.store(), max_backups=0) as one:
        one.add("only")
        one.upload()
    (base,) = bucket.listed("objects/")
    _harm(bucket, f"mine/{base}", "corrupt")
    (tmp_path / "two" / "data").mkdir(parents=True)
    with pytest.raises(RemoteDamagedError, match="none of the 1 snapshots"):
        start_new(tmp_path / "two", bucket.store())
    assert not (tmp_path / "two" / "data" / "memories.db").exists()


def test_a_machine_whose_database_went_missing_is_refused_and_is_not_new(
    bucket: Bucket, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    with Machine(tmp_path, bucket.store(), max_backups=0) as machine:
        machine.add("uploaded")
        machine.upload()
        machine.add("only here")
        backup = machine.index.backup("manual").name
    (data / "memories.db").unlink()
    assert not is_new(data)
    with pytest.raises(StoreCorruptError, match=f"restore {backup}"):
        open_index(tmp_path)


def test_a_snapshot_that_is_no_longer_listed_is_forgotten(bucket: Bucket, tmp_path: Path) -> None:
    with Machine(tmp_path, bucket.store(), max_backups=0) as machine:
        machine.add("only")
        snapshot = machine.upload().snapshot
        assert machine.remote.read(snapshot) is machine.remote.read(snapshot)
        bucket.store().delete([snapshot.key])
        assert machine.sync.snapshots() == []
        with pytest.raises(RemoteDamagedError):
            machine.remote.read(snapshot)


def test_an_object_that_vanished_is_uploaded_again(bucket: Bucket, tmp_path: Path) -> None:
    with Machine(tmp_path / "one", bucket.store(), max_backups=0) as one:
        one.add("first")
        one.upload()
        (base,) = bucket.listed("objects/")
        _harm(bucket, f"mine/{base}", "remove")
        one.add("second")
        one.upload()
    assert texts_in_bucket(tmp_path / "two", bucket.store()) == ["first", "second"]


@pytest.mark.parametrize("seal", [Unsealed(), Encrypted(b"another passphrase")])
def test_without_the_passphrase_nothing_is_restored_or_uploaded(
    bucket: Bucket, tmp_path: Path, seal: Seal
) -> None:
    with Machine(tmp_path / "one", bucket.store(), seal=Encrypted(PASSPHRASE)) as one:
        one.add("secret")
        one.wait_until_uploaded()
    (tmp_path / "two" / "data").mkdir(parents=True)
    with pytest.raises(RemoteSealedError, match="CLOUD_SYNC_PASSPHRASE"):
        start_new(tmp_path / "two", bucket.store(), seal=seal)
    before = bucket.listed()
    with Machine(tmp_path / "three", bucket.store(), seal=seal, max_backups=0) as three:
        three.add("other")
        with pytest.raises(RemoteSealedError, match="CLOUD_SYNC_PASSPHRASE"):
            three.upload(overwrite=True)
    assert bucket.listed() == before


def test_encrypted_files_are_stored_once_whichever_machine_uploads(
    bucket: Bucket, tmp_path: Path
) -> None:
    with Machine(tmp_path / "one", bucket.store(), seal=Encrypted(PASSPHRASE)) as one:
        one.add("first")
        one.wait_until_uploaded()
    texts_in_bucket(tmp_path / "two", bucket.store(), seal=Encrypted(PASSPHRASE))
    with Machine(
        tmp_path / "two", bucket.store(), seal=Encrypted(PASSPHRASE), max_backups=0
    ) as two:
        two.add("second")
        assert two.upload().n_objects == 1


def test_a_damaged_local_backup_is_not_uploaded(bucket: Bucket, tmp_path: Path) -> None:
    with Machine(tmp_path, bucket.store(), max_backups=0) as machine:
        machine.add("first")
        backup = machine.index.backup("manual")
        (base,) = Path(backup.path).glob("base_*.db")
        base.write_bytes(base.read_bytes()[:-1] + b"x")
        future = machine.sync.upload(backup.name, overwrite=False)
        assert "not the file that was written" in str(future.exception(timeout=60))
    assert bucket.listed() == []


def test_a_backup_is_not_pushed_out_while_it_is_uploaded(tmp_path: Path) -> None:
    index = open_index(tmp_path, max_requested_backups=1, max_backups=0)
    name = index.backup("manual").name
    with index.backup_files.pinned(name):
        index.backup("manual")
        assert index.backup_files.damage(name) == []
    index.backup("manual")
    assert name not in [backup.name for backup in index.backups()]
    assert texts_of(search(index, "anything")) == []
    index.close()


def test_changes_of_the_state_by_two_threads_are_all_kept(tmp_path: Path) -> None:
    state = SyncStateFile(tmp_path)

    def change(field: str) -> None:
        for n in range(50):
            state.change(**{field: f"{field} {n}"})

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(change, ["head", "intent"]))
    assert (state.now.head, state.now.intent) == ("head 49", "intent 49")
    assert SyncStateFile(tmp_path).now == state.now


def test_an_upload_that_ends_during_a_restore_is_followed_by_the_next(
    bucket: Bucket, tmp_path: Path
) -> None:
    with Machine(tmp_path / "one", bucket.store(), max_backups=0) as machine:
        machine.add("first")
        name = machine.upload().snapshot.name or ""

        def put_in_place(backup: str) -> int:
            machine.add("meanwhile")
            machine.upload()
            return machine.index.restore(backup).result()

        machine.sync.restore(name, put_in_place)
        assert machine.texts() == ["first"]
        machine.add("after")
        machine.upload()
    assert texts_in_bucket(tmp_path / "two", bucket.store()) == ["first", "after"]
