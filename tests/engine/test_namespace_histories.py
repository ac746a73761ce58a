"""Random histories over several namespaces against one dictionary each."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from engine.errors import InvalidInputError, MemoryNotFoundError
from engine.memory_index import MemoryIndex
from engine.records import MemoryFilter, MemoryId, MemoryPatch, NewMemory
from engine.store.database import DATABASE_NAME
from engine.store.soundness import problems_in
from tests.support.fakes import embedding_of
from tests.support.index_under_test import (
    add,
    embeddings_of,
    fresh_request_id,
    open_index,
    search,
)

NAMES = st.sampled_from(["default", "a", "b", "c"])
TEXTS = st.lists(st.sampled_from(["red", "green", "blue", "one", "two"]), min_size=1, max_size=3)
KEYS = st.sampled_from(["k1", "k2"])
IDS = st.integers(1, 25).map(MemoryId)

Model = dict[str, dict[int, tuple[str, str | None]]]
"""Namespace to id to text and key; every source is the same."""


class NamespacesMachine(RuleBasedStateMachine):
    """Indexes are given back all the time, large ones come early, and the store is restored."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.index = self._open()
        self.model: Model = {}
        self.backup: tuple[str, Model] | None = None

    def _open(self) -> MemoryIndex:
        return open_index(
            self.directory,
            cache_after=3,
            compact_from=2,
            index_memory_bytes=1_000_000,
            deltas_share=100.0,
            backup_pause_s=0.001,
        )

    def teardown(self) -> None:
        self.index.close()
        assert problems_in(self.directory / "data" / DATABASE_NAME) == []
        shutil.rmtree(self.directory)

    def _of(self, name: str) -> dict[int, tuple[str, str | None]]:
        return self.model.setdefault(name, {})

    @rule(name=NAMES, words=TEXTS)
    def add(self, name: str, words: list[str]) -> None:
        text = " ".join(words)
        [new_id] = add(self.index.namespace(name), text)
        self._of(name)[new_id] = (text, None)

    @rule(name=NAMES, words=TEXTS)
    def add_unless_said(self, name: str, words: list[str]) -> None:
        text = " ".join(words)
        is_said = text in {said for said, _ in self.model.get(name, {}).values()}
        (outcome,) = (
            self.index.namespace(name)
            .add(
                [NewMemory(text=text, source="notes")],
                embeddings_of([text]),
                request_id=fresh_request_id(),
            )
            .result()
        )
        assert (outcome.id is None) == is_said
        if outcome.id is None:
            assert outcome.duplicate_of in self.model[name]
        else:
            self._of(name)[outcome.id] = (text, None)
        assert {similar.id for similar in outcome.similar} <= set(self._of(name))

    @rule(name=NAMES, words=TEXTS, key=KEYS)
    def upsert(self, name: str, words: list[str], key: str) -> None:
        text = " ".join(words)
        known = [i for i, (_, k) in self.model.get(name, {}).items() if k == key]
        outcome = (
            self.index.namespace(name)
            .upsert(
                NewMemory(text=text, source="notes", key=key),
                embedding_of(text),
                request_id=fresh_request_id(),
            )
            .result()
        )
        assert outcome.created == (not known)
        assert not known or outcome.id == known[0]
        self._of(name)[outcome.id] = (text, key)

    @rule(name=NAMES, memory_id=IDS, words=TEXTS)
    def update(self, name: str, memory_id: MemoryId, words: list[str]) -> None:
        text = " ".join(words)
        future = self.index.namespace(name).update(
            memory_id,
            MemoryPatch(text=text),
            embedding_of(text)[None],
            request_id=fresh_request_id(),
        )
        if memory_id in self.model.get(name, {}):
            assert future.result().text == text
            self.model[name][memory_id] = (text, self.model[name][memory_id][1])
        else:
            assert isinstance(future.exception(), MemoryNotFoundError)

    @rule(name=NAMES, ids=st.lists(IDS, min_size=1, max_size=3, unique=True))
    def delete(self, name: str, ids: list[MemoryId]) -> None:
        outcome = self.index.namespace(name).delete(ids, request_id=fresh_request_id()).result()
        mine = self.model.get(name, {})
        assert {memory.id for memory in outcome.deleted} == mine.keys() & set(ids)
        for gone in outcome.deleted:
            del mine[gone.id]

    @rule(name=NAMES, to=NAMES, ids=st.lists(IDS, min_size=1, max_size=3, unique=True))
    def move(self, name: str, to: str, ids: list[MemoryId]) -> None:
        moving = {i: m for i, m in self.model.get(name, {}).items() if i in ids}
        keys = {key for _, key in self.model.get(to, {}).values() if key is not None}
        is_taken = any(key in keys for _, key in moving.values())
        future = self.index.move(name, to, ids=ids, request_id=fresh_request_id())
        if name == to or is_taken:
            assert isinstance(future.exception(), InvalidInputError)
            return
        assert set(future.result().moved) == moving.keys()
        if moving:
            self._of(to).update(moving)
        for memory_id in moving:
            del self.model[name][memory_id]

    @rule(name=NAMES, to=NAMES)
    def rename(self, name: str, to: str) -> None:
        future = self.index.rename_namespace(name, to, request_id=fresh_request_id())
        # `default` is there before anybody has written to it, and so may others be, emptied.
        if isinstance(future.exception(), InvalidInputError):
            known = {"default", *self.model}
            assert name not in self.model or to in known
            return
        assert to not in self.model
        self.model[to] = self.model.pop(name, {})

    @rule(name=NAMES)
    def delete_namespace(self, name: str) -> None:
        future = self.index.delete_namespace(name, request_id=fresh_request_id())
        if future.exception() is None:
            assert future.result() == len(self.model.pop(name, {}))
        else:
            assert name not in self.model

    @rule()
    def restart(self) -> None:
        self.index.close()
        self.index = self._open()

    @rule()
    def back_up(self) -> None:
        copied = {name: memories.copy() for name, memories in self.model.items()}
        self.backup = (self.index.backup("manual").name, copied)

    @rule()
    def restore(self) -> None:
        if self.backup is not None:
            name, model = self.backup
            self.index.restore(name).result()
            self.model = {each: memories.copy() for each, memories in model.items()}

    @invariant()
    def every_namespace_is_its_dictionary(self) -> None:
        assert {each.name for each in self.index.namespaces()} == self.model.keys()
        assert self.index.count() == sum(map(len, self.model.values()))
        for name in ("default", "a", "b", "c"):
            mine, namespace = self.model.get(name, {}), self.index.namespace(name)
            page = namespace.list_memories(MemoryFilter(), offset=0, limit=100)
            assert {m.id: (m.text, m.key) for m in page.memories} == mine
            assert namespace.count() == page.total == len(mine)
            hits = search(namespace, "red one", k=100, vector_weight=0.5)
            assert {hit.memory.id: (hit.memory.text, hit.memory.key) for hit in hits} == mine
            known = namespace.known_embeddings(["red", "green blue"])
            said = {text for text, _ in mine.values()}
            assert all(["red", "green blue"][at] in said for at in known)


def test_every_namespace_is_as_if_it_were_alone() -> None:
    run_state_machine_as_test(
        NamespacesMachine,
        settings=settings(
            max_examples=12,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
