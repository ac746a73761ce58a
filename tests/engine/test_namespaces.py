"""Namespaces: nothing of one is told by, or changes, another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import (
    EngineError,
    InvalidInputError,
    LeaseLostError,
    MemoryNotFoundError,
    QuotaExceededError,
)
from engine.memory_index import MemoryIndex
from engine.namespace import Namespace
from engine.records import (
    MemoryFilter,
    MemoryId,
    MemoryPatch,
    MemoryQuota,
    NewMemory,
    SearchHit,
    SearchQuery,
)
from engine.store.layout.remembered_outcomes import CALLERS_KEY
from engine.writing.lines import ImportAttempt
from tests.support.fakes import embedding_of
from tests.support.index_under_test import (
    add,
    embeddings_of,
    fresh_request_id,
    open_index,
    search,
    texts_of,
)

BIRDS = [f"the {colour} bird sings song {n}" for n in range(5) for colour in ("red", "blue")]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[MemoryIndex]:
    index = open_index(tmp_path, max_backups=0)
    yield index
    index.close()


def texts_in(namespace: Namespace) -> list[str]:
    page = namespace.list_memories(MemoryFilter(), offset=0, limit=1000)
    return [memory.text for memory in page.memories]


def names_in(index: MemoryIndex) -> list[str]:
    return [each.name for each in index.namespaces()]


@pytest.mark.parametrize("name", ["", "A", "a b", ".a", "-a", "a/b", "ä", "a" * 101, "a\n"])
def test_what_is_no_name_is_refused(index: MemoryIndex, name: str) -> None:
    add(index, "a")
    with pytest.raises(InvalidInputError, match="cannot be a namespace"):
        index.namespace(name)
    with pytest.raises(InvalidInputError, match="cannot be a namespace"):
        index.rename_namespace("default", name, request_id="r")
    with pytest.raises(InvalidInputError, match="cannot be a namespace"):
        index.move("default", name, ids=[MemoryId(1)], request_id="m")


def test_a_namespace_comes_to_be_with_its_first_memory(index: MemoryIndex) -> None:
    empty = index.namespace("x")
    assert search(empty, "anything") == []
    assert empty.delete([MemoryId(1)], request_id="d").result().missing == [1]
    assert empty.stats().total_memories == 0
    assert names_in(index) == []
    add(empty, "first")
    assert names_in(index) == ["x"]
    assert index.namespaces()[0].memories == 1


def test_scores_do_not_depend_on_what_another_namespace_holds(index: MemoryIndex) -> None:
    mine = index.namespace("mine")
    add(mine, *BIRDS, source="birds/a")

    def answers() -> list[SearchHit]:
        return [
            hit
            for query in ("red bird", "song 3", "blue")
            for fusion in ("score", "rrf")
            for hit in search(mine, query, k=10, fusion=fusion)
        ]

    before = answers()
    other = index.namespace("other")
    add(other, *[f"red bird song {n} of the other" for n in range(200)], source="birds/a")
    assert answers() == before
    assert {hit.namespace for hit in before} == {"mine"}
    assert mine.stats().n_terms < other.stats().n_terms
    assert mine.stats().lsn < other.stats().lsn


def test_an_id_of_another_namespace_is_as_if_it_did_not_exist(index: MemoryIndex) -> None:
    mine, other = index.namespace("mine"), index.namespace("other")
    [theirs] = add(other, "secret", metadata={"n": 1})
    add(mine, "open")
    with pytest.raises(MemoryNotFoundError):
        mine.get(theirs)
    patch = MemoryPatch(text="changed")
    with pytest.raises(MemoryNotFoundError):
        mine.update(theirs, patch, embedding_of("changed")[None], request_id="u").result()
    assert mine.delete([theirs], request_id="d").result().missing == [theirs]
    assert mine.delete_by_source(MemoryFilter(source="notes"), request_id="s").result() == 1
    assert mine.list_memories(MemoryFilter(metadata={"n": 1}), offset=0, limit=9).total == 0
    assert search(mine, "secret", where=MemoryFilter(metadata={"n": 1})) == []
    assert mine.known_embeddings(["secret"]) == {}
    assert mine.nearest(embedding_of("secret"), "secret") is None
    assert other.get(theirs).text == "secret"


def test_an_export_of_another_namespace_is_as_if_it_were_ended(index: MemoryIndex) -> None:
    mine, other = index.namespace("mine"), index.namespace("other")
    add(mine, "mine")
    add(other, "theirs")
    facts = other.begin_export(MemoryFilter(), with_embeddings=True)
    assert facts.total == 1
    with pytest.raises(LeaseLostError) as of_another:
        mine.read_export(facts.export_id, 1000)
    with pytest.raises(LeaseLostError) as of_none:
        mine.read_export("none", 1000)
    assert str(of_another.value) == str(of_none.value)
    mine.end_export(facts.export_id)
    assert [each.memory.text for each in other.read_export(facts.export_id, 1000)] == ["theirs"]


def test_a_callers_key_means_another_write_in_another_namespace(index: MemoryIndex) -> None:
    request_id = f"{CALLERS_KEY}POST /memory/add abc"
    memory = [NewMemory(text="once", source="notes")]
    for name in ("default", "a", "b", "a"):
        namespace = index.namespace(name)
        namespace.add(memory, embeddings_of(["once"]), request_id=request_id).result()
    attempt = ImportAttempt(key="import", attempt=1, digests=[b"line"])
    for name in ("default", "a", "b"):
        line = [NewMemory(text=f"line of {name}", source="notes")]
        [outcome] = (
            index.namespace(name)
            .ingest(
                line,
                embeddings_of([line[0].text]),
                request_id=fresh_request_id(),
                attempt=attempt,
            )
            .result()
        )
        assert outcome.status == "added"
    assert {each.name: each.memories for each in index.namespaces()} == {
        "a": 2,
        "b": 2,
        "default": 2,
    }


def test_no_key_can_be_made_to_mean_a_write_of_another_namespace(index: MemoryIndex) -> None:
    ids = set()
    for name, key in (("a", "x"), ("default", "x\x1fa"), ("default", "x"), ("a", "x\x1fa")):
        memory = NewMemory(text="once", source="notes", deduplicate=False)
        [outcome] = (
            index.namespace(name)
            .add([memory], embeddings_of(["once"]), request_id=f"{CALLERS_KEY}{key}")
            .result()
        )
        ids.add(outcome.id)
    assert ids == {1, 2, 3, 4}, "a write got the outcome of another"


def test_a_renamed_namespace_has_its_memories_under_the_new_name_alone(tmp_path: Path) -> None:
    index = open_index(tmp_path, max_backups=0)
    add(index.namespace("old"), *BIRDS)
    add(index.namespace("taken"), "one")
    with pytest.raises(InvalidInputError, match="'taken' already"):
        index.rename_namespace("old", "taken", request_id="1").result()
    with pytest.raises(InvalidInputError, match="no namespace 'absent'"):
        index.rename_namespace("absent", "new", request_id="2").result()
    index.rename_namespace("old", "new", request_id="3").result()
    assert names_in(index) == ["new", "taken"]
    assert texts_in(index.namespace("old")) == []
    assert search(index.namespace("old"), "red") == []
    assert texts_in(index.namespace("new")) == BIRDS
    add(index.namespace("old"), "another of that name")
    index.close()
    index = open_index(tmp_path, max_backups=0)
    assert texts_in(index.namespace("new")) == BIRDS
    assert texts_of(search(index.namespace("old"), "name")) == ["another of that name"]
    index.close()


def test_a_deleted_namespace_is_gone_with_its_index_and_comes_back_with_a_backup(
    index: MemoryIndex,
) -> None:
    add(index.namespace("doomed"), *BIRDS, metadata={"n": 1})
    add(index.namespace("kept"), *BIRDS)
    backup = index.backup("before").name
    assert index.delete_namespace("doomed", request_id="d").result() == len(BIRDS)
    assert names_in(index) == ["kept"]
    assert search(index.namespace("doomed"), "red bird") == []
    add(index.namespace("doomed"), "new under that name")
    assert texts_of(search(index.namespace("doomed"), "red bird")) == ["new under that name"]
    after = index.backup("after").name
    assert index.verify_backup(after).problems == []
    index.restore(backup).result()
    assert texts_in(index.namespace("doomed")) == BIRDS
    assert len(search(index.namespace("doomed"), "red bird", k=20)) == len(BIRDS)
    index.restore(after).result()
    assert texts_in(index.namespace("doomed")) == ["new under that name"]
    assert texts_in(index.namespace("kept")) == BIRDS


def test_memories_move_by_ids_or_by_source_unless_their_key_is_taken(index: MemoryIndex) -> None:
    a, b = index.namespace("a"), index.namespace("b")
    ids = add(a, *BIRDS, source="birds/x", metadata={"kind": "bird"})
    [keyed] = add(a, "mine", source="keys", key="k")
    add(b, "theirs", source="keys", key="k")
    with pytest.raises(InvalidInputError, match=f"source and key of: {keyed}"):
        index.move("a", "b", ids=[ids[0], keyed], request_id="1").result()
    assert (a.count(), b.count()) == (11, 1)
    outcome = index.move("a", "b", ids=[*ids[:2], MemoryId(999)], request_id="2").result()
    assert (outcome.moved, outcome.missing) == (ids[:2], [999])
    outcome = index.move("a", "b", source_prefix="birds/", request_id="3").result()
    assert outcome.moved == ids[2:]
    assert texts_in(a) == ["mine"]
    assert search(a, "red bird", where=MemoryFilter(metadata={"kind": "bird"})) == []
    hits = search(b, "red bird", k=20, where=MemoryFilter(metadata={"kind": "bird"}))
    assert {hit.memory.id for hit in hits} == set(ids)
    [repeated] = b.add(
        [NewMemory(text=BIRDS[0], source="notes")], embeddings_of(BIRDS[:1]), request_id="4"
    ).result()
    assert repeated.duplicate_of == ids[0]
    assert b.known_embeddings(BIRDS[:1]).keys() == {0}
    assert a.known_embeddings(BIRDS[:1]) == {}


def test_a_write_beyond_the_quota_applies_nothing(index: MemoryIndex) -> None:
    quota = MemoryQuota(max_memories=3, namespaces=("team.*",))
    a = index.namespace("team.a", quota=quota)
    b = index.namespace("team.b", quota=quota)
    add(index.namespace("other"), *BIRDS)
    add(a, "one", "two")
    with pytest.raises(QuotaExceededError) as refused:
        add(b, "three", "four")
    assert (refused.value.used, refused.value.limit) == (2, 3)
    assert names_in(index) == ["other", "team.a"]
    add(b, "three")
    with pytest.raises(QuotaExceededError):
        a.upsert(
            NewMemory(text="4", source="s", key="k"), embedding_of("4"), request_id="u"
        ).result()
    with pytest.raises(QuotaExceededError):
        index.move("other", "team.a", ids=[MemoryId(1)], quota=quota, request_id="m").result()
    assert a.delete([MemoryId(11)], request_id="d").result().deleted
    add(a, "another")
    tighter = index.namespace("team.a", quota=MemoryQuota(max_memories=1, namespaces=("*",)))
    patch = MemoryPatch(text="changed")
    changed = embedding_of("changed")[None]
    assert tighter.update(MemoryId(12), patch, changed, request_id="c").result().text == "changed"


def test_several_namespaces_are_searched_and_listed_as_one(index: MemoryIndex) -> None:
    for name, text in (("a", "red bird"), ("b", "red fish"), ("c", "red fox")):
        add(index.namespace(name), text, f"{text} and more of it")
    names = ["a", "b", "absent"]
    several = index.several(names)
    [hits] = several.search(embeddings_of(["red fish"]), [SearchQuery(text="red fish", k=3)])
    assert hits[0].memory.text == "red fish"
    assert hits[0].namespace == "b"
    assert len(hits) == 3
    assert {hit.namespace for hit in hits} == {"a", "b"}
    assert [hit.score for hit in hits] == sorted((hit.score or 0 for hit in hits), reverse=True)
    first = several.list_memories(MemoryFilter(), offset=0, limit=3)
    rest = several.list_memories(MemoryFilter(), offset=0, limit=3, cursor=first.next_cursor)
    assert first.total == 4
    assert first.namespaces + rest.namespaces == ["a", "a", "b", "b"]
    newest = several.list_memories(MemoryFilter(), offset=1, limit=2, newest_first=True)
    assert [m.text for m in newest.memories] == ["red fish", "red bird and more of it"]


def test_more_namespaces_than_twenty_are_not_asked_at_once(index: MemoryIndex) -> None:
    with pytest.raises(InvalidInputError, match="20 at most"):
        index.several([f"n{n}" for n in range(21)])


def test_deduplication_removes_nothing_of_another_namespace(index: MemoryIndex) -> None:
    for name in ("a", "b"):
        add(index.namespace(name), "The same.", "the same")
    report = index.namespace("a").deduplicate(0.9, by="same", dry_run=False, request_id="d")
    assert (report.n_removed, report.remaining) == (1, 1)
    add(index.namespace("a"), "unlike anything")
    similar = index.namespace("a").deduplicate(0.9, by="similarity", dry_run=True, request_id="s")
    assert (similar.n_pairs, similar.n_removed) == (0, 0)
    assert index.namespace("b").count() == 2


def test_a_build_of_one_namespace_leaves_the_others(index: MemoryIndex, tmp_path: Path) -> None:
    (tmp_path / "workspace" / "a.md").write_text("# Title\n\nA passage.\n")
    for name in ("a", "b"):
        namespace = index.namespace(name)
        plan = namespace.plan_build(None, replace_all=True)
        vectors = embeddings_of([plan.chunks[at].text for at in plan.to_embed])
        report = namespace.apply_build(plan, vectors, request_id=fresh_request_id())
        assert (report.memories_added, report.memories_removed) == (1, 0)
        add(namespace, "noted")
    plan = index.namespace("a").plan_build(None, replace_all=True)
    report = index.namespace("a").apply_build(plan, embeddings_of(["x"])[:0], request_id="again")
    assert (report.memories_added, report.memories_removed, report.unchanged) == (0, 1, 1)
    assert index.namespace("b").count() == 2


def test_indexes_are_given_back_and_loaded_again_while_all_is_asked_and_written(
    tmp_path: Path,
) -> None:
    bound = 1_500_000
    index = open_index(tmp_path, max_backups=0, index_memory_bytes=bound)
    names = [f"n{n}" for n in range(30)]
    for name in names:
        add(index.namespace(name), *[f"{text} of {name}" for text in BIRDS])
    assert 0 < index.stats().index_bytes <= bound
    assert len(index._state.indexes.ids()) < len(names)
    failures: list[str] = []

    def use(first: int) -> None:
        for turn in range(40):
            name = names[(first * 11 + turn * 7) % len(names)]
            namespace = index.namespace(name)
            try:
                if turn % 4 == 0:
                    add(namespace, f"more {first} {turn} of {name}")
                hits = search(namespace, f"red bird of {name}", k=100)
            except EngineError as exc:
                failures.append(repr(exc))
                return
            if not all(hit.memory.text.endswith(f"of {name}") for hit in hits) or len(hits) < 10:
                failures.append(f"{name}: {texts_of(hits)}")

    threads = [threading.Thread(target=use, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert index.stats().index_bytes <= bound
    stored = {name: texts_in(index.namespace(name)) for name in names}
    index.close()
    index = open_index(tmp_path, max_backups=0)
    for name in names:
        hits = search(index.namespace(name), f"red bird of {name}", k=100)
        assert sorted(texts_of(hits)) == sorted(stored[name])
    index.close()


def test_a_large_namespace_has_a_cache_that_goes_with_it(tmp_path: Path) -> None:
    index = open_index(tmp_path, max_backups=0, cache_after=5)
    add(index.namespace("large"), *BIRDS)
    add(index.namespace("small"), "one")
    search(index.namespace("large"), "red")
    index.close()
    caches = sorted(path.name for path in (tmp_path / "data").glob("postings*.npz"))
    index = open_index(tmp_path, max_backups=0, cache_after=5)
    assert len(caches) == 1
    large = index._state.id_of("large")
    assert caches == [f"postings_{large}.npz"]
    assert large in index._state.indexes.ids(), "it is not ready at start"
    assert len(search(index.namespace("large"), "red bird", k=50)) == len(BIRDS)
    index.delete_namespace("large", request_id="d").result()
    assert not list((tmp_path / "data").glob("postings_*.npz"))
    index.close()


def test_a_write_that_cannot_be_done_fails_alone(index: MemoryIndex) -> None:
    """Also where nobody foresaw why: what waits for the same commit is of other people."""
    go_on = threading.Event()
    index._writer.submit_alone(go_on.wait)
    too_high = index.namespace("a").delete([MemoryId(1 << 70)], request_id=fresh_request_id())
    kept = index.namespace("b").add(
        [NewMemory(text="kept", source="s")],
        embeddings_of(["kept"]),
        request_id=fresh_request_id(),
    )
    go_on.set()
    with pytest.raises(OverflowError):
        too_high.result()
    assert kept.result()[0].id is not None
    assert index.namespace("b").count() == 1


def test_a_callers_key_means_another_move_out_of_another_namespace(index: MemoryIndex) -> None:
    for name in ("a", "b"):
        add(index.namespace(name), f"a note of {name}", source="docs/note")
    moved = [
        index.move(name, "archive", source_prefix="docs/", request_id=f"{CALLERS_KEY}k").result()
        for name in ("a", "b", "a")
    ]
    assert moved[0].moved != moved[1].moved
    assert moved[2] == moved[0]
    assert texts_in(index.namespace("archive")) == ["a note of a", "a note of b"]


@pytest.mark.parametrize("name", ["default", "team.a"])
@pytest.mark.parametrize("is_renamed", [True, False])
def test_a_name_that_is_used_again_has_no_outcomes_of_who_had_it(
    index: MemoryIndex, name: str, is_renamed: bool
) -> None:
    def write() -> None:
        once, line = (NewMemory(text=text, source="notes") for text in ("once", "a line"))
        namespace = index.namespace(name)
        namespace.add([once], embeddings_of(["once"]), request_id=f"{CALLERS_KEY}k").result()
        namespace.ingest(
            [line],
            embeddings_of(["a line"]),
            request_id=fresh_request_id(),
            attempt=ImportAttempt(key="import", attempt=len(names_in(index)), digests=[b"line"]),
        ).result()

    write()
    add(index.namespace("other"), "of another")
    if is_renamed:
        index.rename_namespace(name, "new", request_id="r").result()
    else:
        index.delete_namespace(name, request_id="d").result()
    write()
    assert sorted(texts_in(index.namespace(name))) == ["a line", "once"]
