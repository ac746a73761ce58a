"""The file of keys: durable, private, its owner's alone, and never trusted when it is damaged."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from engine.errors import KeyNotFoundError, StoreCorruptError, StoreFormatError, UnavailableError
from engine.keys.key_store import KeyStore, check_keys
from engine.keys.records import RingVersion
from tests.support.keys_under_test import new_key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.db"


@pytest.fixture
def store(path: Path) -> Iterator[KeyStore]:
    with closing(KeyStore(path)) as opened:
        yield opened


def reopened(store: KeyStore, path: Path) -> KeyStore:
    store.close()
    return KeyStore(path)


def test_a_key_is_there_after_a_reopening_as_it_was_made(store: KeyStore, path: Path) -> None:
    key, _ = new_key(
        scopes=("read",), namespaces=("a", "team.*"), expires_us=9, max_memories=3, created_us=7
    )
    assert store.create(key, request_id="r") == key
    store.note_uses({key.id: 11, "unknown": 12})
    with closing(reopened(store, path)) as again:
        [found] = again.list_keys()
        assert (found.last_used_us, found.digest) == (11, key.digest)
        assert found.namespaces == ("a", "team.*")
        assert (found.scopes, found.expires_us, found.max_memories) == (("read",), 9, 3)
        assert found.writes_per_minute is None


def test_the_file_is_its_owners_alone_whatever_the_umask(path: Path) -> None:
    umask = os.umask(0)
    try:
        with closing(KeyStore(path)) as store:
            store.create(new_key()[0], request_id="r")
            for file in path.parent.iterdir():
                assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    finally:
        os.umask(umask)


def test_no_file_holds_the_text_of_a_key(store: KeyStore, path: Path) -> None:
    key, text = new_key()
    store.create(key, request_id="r")
    store.change(key.id, {"name": "another"})
    store.close()
    written = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert key.id.encode() in written
    assert text.rpartition("_")[2].encode() not in written


def test_a_request_that_is_sent_again_makes_no_second_key(store: KeyStore, path: Path) -> None:
    key, _ = new_key()
    store.create(key, request_id="r")
    again = reopened(store, path)
    with closing(again):
        assert again.create(new_key()[0], request_id="r").id == key.id
        assert len(again.list_keys()) == 1
        again.revoke(key.id)
        with pytest.raises(KeyNotFoundError):
            again.create(new_key()[0], request_id="r")


def test_a_change_leaves_what_it_does_not_name(store: KeyStore, path: Path) -> None:
    key, _ = new_key(max_memories=5, writes_per_minute=6)
    store.create(key, request_id="r")
    store.note_uses({key.id: 3})
    changed = store.change(key.id, {"max_memories": None, "namespaces": ("b",)})
    assert (changed.max_memories, changed.writes_per_minute, changed.last_used_us) == (None, 6, 3)
    with closing(reopened(store, path)) as again:
        assert again.get(key.id) == changed


def test_a_revoked_key_stays_revoked_and_its_digest_is_gone(store: KeyStore, path: Path) -> None:
    key, _ = new_key()
    store.create(key, request_id="r")
    store.note_uses({key.id: 3})
    store.revoke(key.id)
    store.revoke(key.id)
    store.note_uses({key.id: 9})
    with closing(reopened(store, path)) as again:
        again.revoke(key.id)
        assert again.list_keys() == []
        with pytest.raises(KeyNotFoundError):
            again.get(key.id)
        with pytest.raises(KeyNotFoundError):
            again.change(key.id, {"name": "x"})
    assert key.digest not in path.read_bytes()


def test_what_never_was_a_key_cannot_be_revoked(store: KeyStore) -> None:
    with pytest.raises(KeyNotFoundError, match="Key '7' not found"):
        store.revoke("7")


_KILLED = """
import os, sys
from pathlib import Path
from engine.keys.key_store import KeyStore, check_keys
from tests.support.keys_under_test import new_key
store = KeyStore(Path(sys.argv[1]))
keys = [new_key()[0] for _ in range(3)]
for key in keys:
    store.create(key, request_id=key.id)
store.revoke(keys[0].id)
store.change(keys[1].id, {"name": "changed"})
print(*(key.id for key in keys), flush=True)
os.kill(os.getpid(), 9)
"""


def test_what_was_acknowledged_is_there_after_a_kill(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr
    revoked, changed, kept = done.stdout.split()
    with closing(KeyStore(path)) as store:
        assert {key.id: key.name for key in store.list_keys()} == {
            changed: "changed",
            kept: "a key",
        }
        store.revoke(revoked)


def test_a_second_process_cannot_write_beside_the_first(store: KeyStore, path: Path) -> None:
    code = f"import sqlite3; sqlite3.connect({str(path)!r}, timeout=0).execute('DELETE FROM keys')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "database is locked" in done.stderr


@pytest.mark.parametrize("column", ["namespaces", "scopes", "expires_us", "digest"])
def test_a_row_that_is_not_as_it_was_written_is_not_trusted(
    store: KeyStore, path: Path, column: str
) -> None:
    key, _ = new_key(namespaces=("a",), scopes=("read",), expires_us=1)
    store.create(key, request_id="r")
    store.close()
    value = {"namespaces": "*", "scopes": "admin", "expires_us": None, "digest": b"d"}[column]
    with closing(sqlite3.connect(path)) as other, other:
        other.execute(f"UPDATE keys SET {column} = ?", (value,))
    with pytest.raises(
        StoreCorruptError, match=r"Stop the service and run: mv .*keys\.db\.damaged"
    ):
        KeyStore(path)


def test_what_is_no_file_of_keys_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"something else" * 1000)
    with pytest.raises(StoreCorruptError, match=r"mv .*keys\.db\.damaged"):
        KeyStore(path)
    assert path.read_bytes().startswith(b"something else")
    path.unlink()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE t (a)")
    with pytest.raises(StoreFormatError):
        KeyStore(path)


def test_an_empty_file_becomes_one_of_keys(path: Path) -> None:
    path.touch()
    with closing(KeyStore(path)) as store:
        assert store.list_keys() == []


def test_changes_are_told_once_and_all_after_a_reopening(store: KeyStore, path: Path) -> None:
    first = store.changes_since(RingVersion())
    assert first is not None
    assert (first.keys, first.is_whole) == ([], True)
    one, two = new_key()[0], new_key()[0]
    store.create(one, request_id="1")
    store.create(two, request_id="2")
    store.revoke(one.id)
    store.note_uses({two.id: 5})
    change = store.changes_since(first.version)
    assert change is not None
    assert [key.id for key in change.keys] == [two.id]
    assert (change.revoked, change.is_whole) == ([one.id], False)
    assert store.changes_since(change.version) is None
    with closing(reopened(store, path)) as again:
        whole = again.changes_since(change.version)
        assert whole is not None
        assert ([key.id for key in whole.keys], whole.is_whole) == ([two.id], True)


def test_a_look_at_the_keys_makes_no_file(path: Path) -> None:
    check_keys(path)
    assert not path.exists()


def test_whoever_follows_hears_of_a_change_at_once_and_of_none_when_it_no_longer_waits(
    store: KeyStore,
) -> None:
    whole = store.after(RingVersion()).result(timeout=60)
    waiting, gone = store.after(whole.version), store.after(whole.version)
    assert not waiting.done()
    gone.cancel()
    key, _ = new_key()
    store.create(key, request_id="r")
    change = waiting.result(timeout=60)
    assert [made.id for made in change.keys] == [key.id]
    store.note_uses({key.id: 5})
    assert not store.after(change.version).done()


@pytest.mark.parametrize("by", ["nothing", "an older copy"])
def test_nothing_is_revoked_in_a_file_that_was_replaced(
    store: KeyStore, path: Path, by: str
) -> None:
    key, _ = new_key()
    store.create(key, request_id="r")
    content = path.read_bytes()
    aside = path.rename(path.with_suffix(".aside"))
    if by == "an older copy":
        path.write_bytes(content)
    with pytest.raises(UnavailableError, match="removed or replaced"):
        store.revoke(key.id)
    assert store.list_keys() == [key]
    aside.rename(path)
    store.revoke(key.id)
    with closing(reopened(store, path)) as again:
        assert again.list_keys() == []
