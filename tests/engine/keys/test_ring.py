"""Who is let in: by the key that is presented, whatever their number."""

from __future__ import annotations

import ast
import hmac
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from engine.errors import NotReadyError
from engine.keys import key_text
from engine.keys.key_store import KeyStore
from engine.keys.ring import KeyRing, root_key
from tests import ROOT
from tests.support.keys_under_test import new_key


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KeyStore]:
    with closing(KeyStore(tmp_path / "keys.db")) as opened:
        yield opened


def follow(keys: KeyRing, store: KeyStore) -> None:
    change = store.changes_since(keys.version)
    assert change is not None
    keys.follow(change)


def test_a_key_is_let_in_until_it_expires_or_is_revoked(store: KeyStore) -> None:
    keys = KeyRing(root_key("root"))
    key, text = new_key(expires_us=100)
    store.create(key, request_id="r")
    follow(keys, store)
    assert keys.key_of(text, 99) == key
    assert keys.key_of(text, 100) is None
    assert keys.key_of(text + "0", 99) is None
    assert keys.key_of(text[:-1] + ("0" if text[-1] != "0" else "1"), 99) is None
    store.revoke(key.id)
    follow(keys, store)
    assert keys.key_of(text, 99) is None


def test_a_ring_forgets_what_a_whole_one_lacks(store: KeyStore) -> None:
    keys = KeyRing(root_key(""))
    key, text = new_key()
    store.create(key, request_id="r")
    follow(keys, store)
    store.revoke(key.id)
    keys.version = keys.version._replace(counted_by="another process")
    follow(keys, store)
    assert keys.key_of(text, 0) is None


def test_before_the_keys_are_known_only_the_root_key_is_let_in(store: KeyStore) -> None:
    _, text = new_key()
    for root in ("root", key_text.new_key_text()):
        keys = KeyRing(root_key(root))
        assert keys.key_of(root, 0) == keys.root
        assert keys.key_of("another", 0) is None
        with pytest.raises(NotReadyError):
            keys.key_of(text, 0)
        follow(keys, store)
        assert keys.key_of(text, 0) is None
        assert keys.key_of(root, 0) == keys.root


def test_without_a_root_key_nothing_is_it() -> None:
    keys = KeyRing(root_key(""))
    for text in ("", "root", "fm_", "fm_root"):
        if not text.startswith("fm_"):
            assert keys.key_of(text, 0) is None
        else:
            with pytest.raises(NotReadyError):
                keys.key_of(text, 0)


def test_uses_are_told_once_and_not_of_the_root_key(store: KeyStore) -> None:
    keys = KeyRing(root_key("root"))
    key, text = new_key()
    store.create(key, request_id="r")
    follow(keys, store)
    keys.key_of(text, 5)
    keys.key_of("root", 6)
    used_us = keys.take_uses()
    assert used_us == {key.id: 5}
    assert keys.take_uses() == {}
    keys.key_of(text, 7)
    keys.put_back(used_us)
    assert keys.take_uses() == {key.id: 7}


def test_one_comparison_in_constant_time_is_made_however_many_keys_there_are(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = KeyRing(root_key("root"))
    texts = []
    for _ in range(20):
        key, text = new_key()
        texts.append(text)
        store.create(key, request_id=key.id)
    follow(keys, store)
    lengths = []

    def counted(one: bytes, other: bytes) -> bool:
        lengths.append((len(one), len(other)))
        return compare(one, other)

    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", counted)
    _, unknown = new_key()
    for text in (*texts, unknown, texts[0] + "x", "root", "", "fm_", "sécret\udcff"):
        keys.key_of(text, 0)
        assert lengths.pop() == (32, 32)
        assert lengths == []


def test_secrets_are_compared_in_one_place() -> None:
    """And nowhere with `==`: the digest of a key is not even read elsewhere."""
    calls = [
        f"{path.relative_to(ROOT)}"
        for package in ("engine", "deployments")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "compare_digest"
    ]
    assert calls == ["engine/keys/ring.py"]


def test_ten_thousand_keys_cost_no_more_than_one(store: KeyStore) -> None:
    few, many = KeyRing(root_key("root")), KeyRing(root_key("root"))
    key, text = new_key()
    store.create(key, request_id="r")
    follow(few, store)
    change = store.changes_since(many.version)
    assert change is not None
    change.keys.extend(new_key()[0] for _ in range(10_000))
    many.follow(change)

    def seconds(keys: KeyRing) -> float:
        began_s = time.perf_counter()
        for _ in range(2_000):
            assert keys.key_of(text, 0) is not None
        return time.perf_counter() - began_s

    ratios = [seconds(many) / seconds(few) for _ in range(9)]
    assert sorted(ratios)[4] < 5
