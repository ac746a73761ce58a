"""Random histories against a dictionary and brute force."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from engine.memory_index import MemoryIndex
from engine.records import MemoryFilter, MemoryId, MemoryPatch, NewMemory
from engine.store.database import DATABASE_NAME
from engine.store.soundness import problems_in
from engine.writing.duplicates.deduplication import DuplicateRule
from tests.support.fakes import embedding_of
from tests.support.index_under_test import (
    add,
    embeddings_of,
    fresh_request_id,
    open_index,
    search,
)

WORDS = ["red", "green", "blue", "one", "two", "three", "north", "south"]
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
SOURCES = st.sampled_from(["a", "b", "a/b"])


class MemoriesMachine(RuleBasedStateMachine):
    """The model: id to (text, source, key). Thresholds are turned down, so that the switch to
    codes, compaction and the cache happen within a few steps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.index = self._open()
        self.model: dict[int, tuple[str, str, str | None]] = {}
        self.last_id = 0
        self.backup: tuple[str, dict[int, tuple[str, str, str | None]]] | None = None

    def _open(self) -> MemoryIndex:
        return open_index(
            self.directory,
            exact_below=8,
            deltas_share=100.0,
            merge_below_bytes=200_000,
            backup_pause_s=0.001,
        )

    def teardown(self) -> None:
        self.index.close()
        assert problems_in(self.directory / "data" / DATABASE_NAME) == []
        shutil.rmtree(self.directory)

    def _ids(self) -> list[int]:
        return sorted(self.model)

    @rule(texts=st.lists(TEXTS, min_size=1, max_size=4), source=SOURCES)
    def add(self, texts: list[str], source: str) -> None:
        ids = add(self.index, *texts, source=source)
        assert ids == sorted(ids)
        assert ids[0] > self.last_id, "an id was used twice"
        self.last_id = ids[-1]
        self.model.update((i, (text, source, None)) for i, text in zip(ids, texts, strict=True))

    @rule(text=TEXTS, is_loud=st.booleans())
    def add_unless_duplicate(self, text: str, is_loud: bool) -> None:
        text = f" {text.upper()}! " if is_loud else text
        is_known = _said(text) in {_said(known) for known, _, _ in self.model.values()}
        (outcome,) = self.index.add(
            [NewMemory(text=text, source="a")],
            embeddings_of([text]),
            request_id=fresh_request_id(),
        ).result()
        assert (outcome.id is None) == is_known
        if outcome.id is not None:
            self.last_id = outcome.id
            self.model[outcome.id] = (text, "a", None)

    @rule(text=TEXTS, source=SOURCES, key=st.sampled_from(["k1", "k2"]))
    def upsert(self, text: str, source: str, key: str) -> None:
        outcome = self.index.upsert(
            NewMemory(text=text, source=source, key=key),
            embedding_of(text),
            request_id=fresh_request_id(),
        ).result()
        known = [i for i, (_, s, k) in self.model.items() if (s, k) == (source, key)]
        assert outcome.created == (not known)
        assert not known or outcome.id == known[0]
        self.last_id = max(self.last_id, outcome.id)
        self.model[outcome.id] = (text, source, key)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), text=TEXTS)
    def update(self, data: st.DataObject, text: str) -> None:
        i = data.draw(st.sampled_from(self._ids()))
        self.index.update(
            MemoryId(i),
            MemoryPatch(text=text),
            embedding_of(text)[None],
            request_id=fresh_request_id(),
        ).result()
        self.model[i] = (text, *self.model[i][1:])

    @precondition(lambda self: self.model)
    @rule(data=st.data(), source=SOURCES)
    def move(self, data: st.DataObject, source: str) -> None:
        """Another source, without a new embedding; a key may be taken there."""
        i = data.draw(st.sampled_from(self._ids()))
        text, _, key = self.model[i]
        if key is not None:
            return
        patch = MemoryPatch(source=source, metadata={"moved": source})
        self.index.update(MemoryId(i), patch, None, request_id=fresh_request_id()).result()
        self.model[i] = (text, source, None)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        i = data.draw(st.sampled_from(self._ids()))
        outcome = self.index.delete(
            [MemoryId(i), MemoryId(10**6)], request_id=fresh_request_id()
        ).result()
        assert [gone.id for gone in outcome.deleted] == [i]
        del self.model[i]

    @rule(pattern=st.sampled_from(["a", "b", "/"]))
    def delete_by_source(self, pattern: str) -> None:
        doomed = [i for i, (_, source, _) in self.model.items() if pattern in source]
        where = MemoryFilter(source=pattern)
        count = self.index.delete_by_source(where, request_id=fresh_request_id()).result()
        assert count == len(doomed)
        for i in doomed:
            del self.model[i]

    @rule(by=st.sampled_from(["same", "similarity"]))
    def deduplicate(self, by: DuplicateRule) -> None:
        staying: list[int] = []
        for i, (text, _, _) in sorted(self.model.items()):
            if not any(self._are_duplicates(text, j, by) for j in staying):
                staying.append(i)
        report = self.index.deduplicate(0.95, by=by, dry_run=False, request_id=fresh_request_id())
        assert report.n_removed == len(self.model) - len(staying)
        self.model = {i: self.model[i] for i in staying}

    @rule()
    def back_up(self) -> None:
        self.backup = (self.index.backup("manual").name, dict(self.model))

    @precondition(lambda self: self.backup)
    @rule()
    def verify(self) -> None:
        assert self.backup is not None
        assert self.index.verify_backup(self.backup[0]).problems == []

    @precondition(lambda self: self.backup)
    @rule()
    def restore(self) -> None:
        assert self.backup is not None
        name, self.model = self.backup[0], dict(self.backup[1])
        assert self.index.restore(name).result() == len(self.model)

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = self._open()

    @invariant()
    def the_store_holds_the_model(self) -> None:
        page = self.index.list_memories(MemoryFilter(), offset=0, limit=1_000)
        stored = {memory.id: (memory.text, memory.source, memory.key) for memory in page.memories}
        assert stored == self.model
        assert self.index.count() == page.total == len(self.model)

    @invariant()
    def every_filter_agrees_with_the_model(self) -> None:
        for where, expected in (
            (MemoryFilter(source_prefix="a"), lambda source: source.startswith("a")),
            (MemoryFilter(source="b"), lambda source: "b" in source),
        ):
            page = self.index.list_memories(where, offset=0, limit=1_000)
            assert [m.id for m in page.memories] == [
                i for i in self._ids() if expected(self.model[i][1])
            ]

    @invariant()
    def every_search_agrees_with_brute_force(self) -> None:
        for query in ("red one", "south"):
            wanted = embedding_of(query)
            hits = search(self.index, query, k=5, hybrid=False)
            cosines = sorted((self._cosine(i, wanted) for i in self.model), reverse=True)
            found = [hit.similarity for hit in hits]
            np.testing.assert_allclose(found, cosines[:5], atol=1e-5)
            keyword_ids = {
                hit.memory.id for hit in search(self.index, query, k=100, vector_weight=0.0)
            }
            holding = {
                i
                for i, (text, _, _) in self.model.items()
                if set(_said(text).split()) & set(query.split())
            }
            assert keyword_ids == holding or len(holding) > 100

    def _cosine(self, i: int, wanted: np.ndarray) -> float:
        return float(embedding_of(self.model[i][0]) @ wanted)

    def _are_duplicates(self, text: str, i: int, by: DuplicateRule) -> bool:
        if by == "same":
            return _said(text) == _said(self.model[i][0])
        return self._cosine(i, embedding_of(text)) >= 0.95


def _said(text: str) -> str:
    return text.casefold().strip(" !")


def test_random_histories_agree_with_a_dictionary_and_brute_force() -> None:
    run_state_machine_as_test(
        MemoriesMachine,
        settings=settings(
            max_examples=20,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
