from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from engine.backups.after_writes import AutoBackup
from engine.errors import BackupError, StorageError
from engine.memory_index import MemoryIndex
from engine.records import MemoryId
from engine.store.database import DATABASE_NAME
from engine.store.layout.tables import FIRST_NAMESPACE_ID
from tests.support.index_under_test import add, fresh_request_id, open_index, search, texts_of


def open_with_deltas(directory: Path, **options: object) -> MemoryIndex:
    known = {"max_backups": 0, "deltas_share": 100.0, "merge_below_bytes": 0}
    return open_index(directory, **{**known, **options})


def files_of(path: str) -> dict[str, int]:
    """Name to inode: the same inode is the same bytes on disk, stored once."""
    return {file.name: file.stat().st_ino for file in Path(path).glob("*.db")}


def test_a_backup_adds_one_delta_and_shares_the_rest(tmp_path: Path) -> None:
    index = open_with_deltas(tmp_path)
    add(index, "first")
    one = files_of(index.backup("manual").path)
    add(index, "second")
    two = files_of(index.backup("manual").path)
    three = files_of(index.backup("manual").path)  # nothing changed since
    assert one.items() < two.items()
    assert len(two) == len(one) + 1
    assert three == two
    index.close()


def test_a_prefix_becomes_a_plain_name_in_the_directory_of_backups(tmp_path: Path) -> None:
    index = open_with_deltas(tmp_path)
    path = Path(index.backup("../my backup/é").path)
    assert path.parent == tmp_path / "data" / "backups"
    assert path.name.startswith("___my_backup___")
    index.close()


def test_a_backup_after_a_restore_shares_the_files_of_what_was_restored(tmp_path: Path) -> None:
    index = open_with_deltas(tmp_path)
    add(index, "first", "deleted later")
    one = index.backup("manual")
    add(index, "forgotten by the restore")
    index.backup("manual")
    index.restore(one.name).result()
    index.delete([MemoryId(2)], request_id=fresh_request_id()).result()
    add(index, "second")
    after = index.backup("manual")
    assert files_of(one.path).items() < files_of(after.path).items()
    assert len(files_of(after.path)) == len(files_of(one.path)) + 1
    index.restore(one.name).result()
    index.restore(after.name).result()
    assert sorted(texts_of(search(index, "anything", k=10))) == ["first", "second"]
    index.close()


def test_every_backup_of_a_chain_restores_what_was_then(tmp_path: Path) -> None:
    index = open_with_deltas(tmp_path)
    names = []
    add(index, "kept", "changed", "deleted", metadata={"v": 1})
    names.append(index.backup("manual").name)
    index.delete([MemoryId(3)], request_id=fresh_request_id()).result()
    add(index, "added later", metadata={"v": 2})
    names.append(index.backup("manual").name)
    index.delete([MemoryId(1), MemoryId(2)], request_id=fresh_request_id()).result()
    names.append(index.backup("manual").name)
    expected = [["changed", "deleted", "kept"], ["added later", "changed", "kept"], ["added later"]]
    for name, texts in zip(names, expected, strict=True):
        assert index.verify_backup(name).problems == []
        index.restore(name).result()
        assert sorted(texts_of(search(index, "anything", k=10))) == texts
    assert add(index, "new") == [5]
    index.close()


def test_small_deltas_are_merged_and_large_ones_start_a_new_base(tmp_path: Path) -> None:
    index = open_with_deltas(tmp_path, merge_below_bytes=10**9)
    for n in range(4):
        add(index, f"text {n}")
        backup = index.backup("manual")
    assert len(files_of(backup.path)) == 2
    index.close()
    index = open_with_deltas(tmp_path, deltas_share=0.1)
    add(index, "more")
    assert len(files_of(index.backup("manual").path)) == 1
    index.close()


def test_a_new_backup_does_not_build_on_a_damaged_one(tmp_path: Path) -> None:
    index = open_with_deltas(tmp_path)
    add(index, "first")
    damaged = index.backup("manual")
    index.close()
    (base,) = Path(damaged.path).glob("base_*.db")
    content = bytearray(base.read_bytes())
    content[len(content) // 2] ^= 1
    base.write_bytes(content)
    index = open_with_deltas(tmp_path)  # a new process trusts nothing that it has not read
    add(index, "second")
    good = index.backup("manual")
    assert index.verify_backup(good.name).problems == []
    assert "not the file that was written" in index.verify_backup(damaged.name).problems[0]
    index.close()


def test_automatic_backups_follow_writes_and_only_they_are_pushed_out(tmp_path: Path) -> None:
    index = open_index(tmp_path, max_backups=2, backup_pause_s=0.001)
    manual = index.backup("manual").name
    for n in range(4):
        add(index, f"text {n}")
        index.close()  # backs up what has no backup yet
        index = open_index(tmp_path, max_backups=2, backup_pause_s=0.001)
    automatic = [b for b in index.backups() if b.name.startswith("auto_")]
    assert [b.total_memories for b in automatic] == [4, 3]
    assert manual in [b.name for b in index.backups()]
    index.close()


def test_without_automatic_backups_there_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = open_index(tmp_path, max_backups=0)
    add(index, "a")
    index.close()
    assert "no automatic backups" in caplog.text
    assert not list((tmp_path / "data" / "backups").iterdir())


def test_a_verified_backup_says_when(tmp_path: Path) -> None:
    index = open_with_deltas(tmp_path)
    add(index, "first")
    name = index.backup("manual").name
    assert index.backups()[0].verified_at is None
    index.verify_backup(name)
    assert (index.backups()[0].verified_at or "").endswith("+00:00")
    index.close()


def test_a_failed_automatic_backup_is_tried_again() -> None:
    attempts: list[int] = []
    succeeded = threading.Event()

    def back_up() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise StorageError("no space")
        succeeded.set()

    auto = AutoBackup(back_up, pause_s=0.0, longest_burst_s=1.0, retry_s=0.0)
    auto.notice_write()
    assert succeeded.wait(timeout=30)
    auto.close()
    assert len(attempts) == 2


def test_scheduled_backups_push_out_only_each_other(tmp_path: Path) -> None:
    index = open_with_deltas(tmp_path, max_scheduled_backups=2)
    kept = [index.backup("manual").name]
    for n in range(4):
        add(index, f"text {n}")
        kept.append(index.backup("scheduled").name)
    assert sorted(b.name for b in index.backups()) == sorted([kept[0], *kept[-2:]])
    index.close()


def n_tombstones(directory: Path) -> int:
    with closing(sqlite3.connect(directory / "data" / DATABASE_NAME)) as connection:
        (n,) = connection.execute("SELECT count(*) FROM tombstones").fetchone()
        return int(n)


def test_tombstones_go_when_no_backup_needs_them_any_more(tmp_path: Path) -> None:
    index = open_with_deltas(tmp_path)
    add(index, *(f"text {n}" for n in range(6)))
    base = index.backup("manual").name
    index.delete([MemoryId(1)], request_id=fresh_request_id()).result()
    delta = index.backup("manual").name
    index.close()
    assert n_tombstones(tmp_path) == 1  # a delta upon the base may be asked for again
    index = open_with_deltas(tmp_path, deltas_share=0.0)
    index.delete([MemoryId(2)], request_id=fresh_request_id()).result()
    new_base = index.backup("manual").name
    index.close()
    assert n_tombstones(tmp_path) == 0
    shutil.rmtree(tmp_path / "data" / "backups" / new_base)  # an older base is the newest again
    index = open_with_deltas(tmp_path)
    index.delete([MemoryId(3)], request_id=fresh_request_id()).result()
    last = index.backup("manual")
    assert len(files_of(last.path)) == 1  # a new base, since deletions are missing
    for name, n_left in [(base, 6), (delta, 5), (last.name, 3)]:
        assert index.restore(name).result() == n_left
    index.close()


def test_without_backups_no_tombstone_is_kept(tmp_path: Path) -> None:
    index = open_with_deltas(tmp_path)
    add(index, "a", "b")
    index.delete([MemoryId(1)], request_id=fresh_request_id()).result()
    index.close()
    open_with_deltas(tmp_path).close()
    assert n_tombstones(tmp_path) == 0


def test_a_restore_that_is_sent_again_happens_once(tmp_path: Path) -> None:
    index = open_with_deltas(tmp_path)
    add(index, "first")
    backup = index.backup("manual")
    add(index, "second")
    assert index.restore(backup.name, request_id="same").result() == 1
    index.close()
    index = open_with_deltas(tmp_path)  # as after a crash that lost the answer
    add(index, "acknowledged since")
    shutil.rmtree(backup.path)
    assert index.restore(backup.name, request_id="same").result() == 1
    assert index.count() == 2
    [safety] = [b.name for b in index.backups() if b.name.startswith("pre_restore")]
    assert index.restore(safety, request_id="another").result() == 2
    assert texts_of(search(index, "second", k=1)) == ["second"]
    index.close()


def test_a_restore_of_a_broken_backup_can_be_sent_again(tmp_path: Path) -> None:
    index = open_with_deltas(tmp_path)
    add(index, "first")
    backup = index.backup("manual")
    [base] = Path(backup.path).glob("base_*")
    aside = base.rename(tmp_path / "aside")
    add(index, "second")
    with pytest.raises(BackupError):
        index.restore(backup.name, request_id="same").result()
    aside.rename(base)
    assert index.restore(backup.name, request_id="same").result() == 1
    index.close()


def test_the_oldest_backup_of_its_kind_can_still_be_restored(tmp_path: Path) -> None:
    index = open_with_deltas(tmp_path, max_safety_backups=2)
    add(index, "first")
    oldest = index.backup("manual")
    index.restore(oldest.name).result()
    add(index, "second")
    index.restore(oldest.name).result()
    safety = [b.name for b in index.backups() if b.name.startswith("pre_restore")]
    assert len(safety) == 2
    assert index.restore(safety[-1]).result() == 1
    index.close()


def test_a_backup_made_after_the_clock_was_set_back_is_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = open_with_deltas(tmp_path, max_requested_backups=2)
    add(index, "first")
    for _ in range(2):
        index.backup("manual")
    now_s = time.time()
    monkeypatch.setattr("engine.backups.catalogue.time.time", lambda: now_s - 86_400)
    after = index.backup("manual")
    assert index.backups()[0].name == after.name
    index.close()


def test_a_backup_can_be_verified_by_several_at_once(tmp_path: Path) -> None:
    index = open_with_deltas(tmp_path)
    add(index, *(f"memory {i}" for i in range(50)))
    name = index.backup("manual").name
    with ThreadPoolExecutor(4) as threads:
        checks = list(threads.map(index.verify_backup, [name] * 8))
    assert [check.problems for check in checks] == [[]] * 8
    index.close()


def test_embeddings_are_read_as_of_one_commit(tmp_path: Path) -> None:
    index = open_with_deltas(tmp_path)
    ids = add(index, *(f"memory {i}" for i in range(200)))
    stop = threading.Event()

    def churn() -> None:
        for i in ids:
            index.delete([i], request_id=fresh_request_id()).result()
            add(index, f"other {i}", f"more {i}")
        stop.set()

    churning = threading.Thread(target=churn)
    churning.start()
    while not stop.is_set():
        ids_read, vectors = index._state.store.embeddings(FIRST_NAMESPACE_ID)
        assert (np.diff(ids_read) > 0).all()
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    churning.join()
    index.close()


def test_an_unexpected_error_does_not_end_automatic_backups() -> None:
    attempts: list[int] = []
    done = threading.Event()

    def back_up() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError(5, "Input/output error")
        done.set()

    automatic = AutoBackup(back_up, pause_s=0.0, longest_burst_s=0.0, retry_s=0.0)
    automatic.notice_write()
    assert done.wait(30)
    automatic.close()
    assert automatic.error is None
