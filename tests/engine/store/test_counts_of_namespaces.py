"""How many memories there are in all that a quota names, as namespaces come, change and go."""

from __future__ import annotations

import random

import pytest

from engine.namespaces import is_covered
from engine.store.layout import namespaces as module
from engine.store.layout.namespaces import NamespaceFacts, Namespaces

GLOBS = [("*",), ("team-*",), ("team-a", "solo"), ("team-a*", "team-*"), ("nobody",)]
NAMES = ["team-a", "team-b", "team-ab", "solo", "default"]


def facts(namespace_id: int, name: str, n: int) -> NamespaceFacts:
    return NamespaceFacts(id=namespace_id, name=name, changed_us=None, lsn=1, n_memories=n)


def test_counts_agree_with_the_namespaces_after_any_changes() -> None:
    chance = random.Random(7)
    namespaces = Namespaces([facts(1, "default", 3)])
    held = {1: facts(1, "default", 3)}
    for step in range(2_000):
        namespace_id = chance.randrange(1, 9)
        free = sorted(set(NAMES) - {f.name for i, f in held.items() if i != namespace_id})
        if chance.random() < 0.2:
            held.pop(namespace_id, None)
            namespaces.forget(namespace_id)
        elif free:
            held[namespace_id] = facts(namespace_id, chance.choice(free), chance.randrange(9))
            namespaces.note(held[namespace_id])
        for globs in GLOBS[: 1 + step % len(GLOBS)]:
            expected = sum(f.n_memories for f in held.values() if is_covered(f.name, globs))
            assert namespaces.count_in(globs) == expected
        assert namespaces.n_memories == sum(f.n_memories for f in held.values())


def test_a_write_under_a_quota_looks_at_no_other_namespace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    namespaces = Namespaces([facts(i, f"n{i}", 1) for i in range(1, 1_001)])
    assert namespaces.count_in(("*",)) == 1_000
    looked_at: list[str] = []

    def counting(name: str, globs: tuple[str, ...]) -> bool:
        looked_at.append(name)
        return is_covered(name, globs)

    monkeypatch.setattr(module, "is_covered", counting)
    namespaces.note(facts(5, "n5", 2))
    assert namespaces.count_in(("*",)) == 1_001
    assert looked_at == []
    namespaces.note(facts(1_001, "new", 1))
    assert namespaces.count_in(("*",)) == 1_002
    assert looked_at == ["new"]
