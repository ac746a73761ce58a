from __future__ import annotations

import dataclasses
import shutil
import sqlite3
import threading
import unicodedata
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Literal, TypeAlias

import pytest

from engine.errors import (
    BackupError,
    BackupNotFoundError,
    InvalidInputError,
    LeaseLostError,
    MemoryNotFoundError,
    ModelMismatchError,
    NotReadyError,
    OverloadedError,
    StoreCorruptError,
    StoreFormatError,
    StoreLockedError,
    StoreMovedError,
    UnavailableError,
)
from engine.memory_index import MemoryIndex
from engine.records import MemoryFilter, MemoryId, MemoryPatch, NewMemory
from engine.search.postings_cache import CACHE_NAME
from engine.search.search_index import SearchIndex
from engine.store.database import DATABASE_NAME, Store
from tests.support.fakes import embedding_of
from tests.support.index_under_test import (
    IDENTITY,
    add,
    embeddings_of,
    fresh_request_id,
    open_index,
    search,
    texts_of,
)

UnicodeForm: TypeAlias = Literal["NFC", "NFD"]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[MemoryIndex]:
    opened = open_index(tmp_path)
    yield opened
    opened.close()


def delete(index: MemoryIndex, *ids: int) -> list[MemoryId]:
    outcome = index.delete([MemoryId(i) for i in ids], request_id=fresh_request_id()).result()
    return [gone.id for gone in outcome.deleted]


def test_an_added_memory_is_found_by_the_next_search(index: MemoryIndex) -> None:
    (memory_id,) = add(index, "the gateway times out after thirty seconds")
    hits = search(index, "gateway times out")
    assert [hit.memory.id for hit in hits] == [memory_id]
    assert hits[0].rrf_score == pytest.approx(1 / 60)


def test_a_memory_is_found_by_its_source(index: MemoryIndex) -> None:
    add(index, "first", "second", source="notes")
    (wanted,) = add(index, "third", source="runbooks/postgres.md")
    assert search(index, "postgres", vector_weight=0.0)[0].memory.id == wanted


def test_a_duplicate_is_skipped_also_within_its_own_batch(index: MemoryIndex) -> None:
    texts = ["red green blue", "one two three", "red green blue"]
    memories = [NewMemory(text=text, source="s") for text in texts]
    outcomes = index.add(memories, embeddings_of(texts), request_id=fresh_request_id()).result()
    assert [outcome.id for outcome in outcomes] == [1, 2, None]
    assert outcomes[2].duplicate_of == 1
    assert outcomes[2].similarity == pytest.approx(1.0)
    again = index.add(memories[:1], embeddings_of(texts[:1]), request_id="x").result()
    assert again[0].duplicate_of == 1
    assert index.count() == 2


def test_a_deleted_memory_is_no_duplicate_any_more(index: MemoryIndex) -> None:
    memory = NewMemory(text="red green blue", source="s")
    vectors = embeddings_of([memory.text])
    index.add([memory], vectors, request_id="1").result()
    gone = index.delete([MemoryId(1)], request_id="2")
    added = index.add([memory], vectors, request_id="3")  # may share the delete's commit
    assert gone.result().missing == []
    assert added.result()[0].id == 2


def test_a_write_sent_again_is_applied_once(tmp_path: Path) -> None:
    memory = NewMemory(text="only once", source="s", deduplicate=False)
    vectors = embeddings_of([memory.text])
    index = open_index(tmp_path)
    first = index.add([memory], vectors, request_id="same").result()
    index.close()
    index = open_index(tmp_path)  # as after a crash that lost the answer
    second = index.add([memory], vectors, request_id="same").result()
    assert second == first
    assert index.count() == 1
    index.close()


def test_writes_that_change_nothing_leave_no_trace(index: MemoryIndex) -> None:
    add(index, "known")
    before = index.stats()
    memory = NewMemory(text="known", source="s")
    for n in range(20):
        index.add([memory], embeddings_of([memory.text]), request_id=f"again-{n}").result()
    index.delete([MemoryId(77)], request_id="missing").result()
    after = index.stats()
    assert (after.lsn, after.last_updated) == (before.lsn, before.last_updated)


def test_ids_are_never_used_twice(tmp_path: Path) -> None:
    index = open_index(tmp_path)
    add(index, "a", "b")
    delete(index, 1, 2)
    index.close()
    index = open_index(tmp_path)
    assert add(index, "c") == [3]
    index.close()


def test_an_upsert_replaces_the_memory_with_its_key(index: MemoryIndex) -> None:
    def upsert(text: str) -> tuple[int, bool]:
        memory = NewMemory(text=text, source="s", key="k", metadata={"text": text})
        outcome = index.upsert(memory, embedding_of(text), request_id=fresh_request_id()).result()
        return outcome.id, outcome.created

    assert upsert("old words") == (1, True)
    assert upsert("new phrase") == (1, False)
    assert index.get(MemoryId(1)).text == "new phrase"
    assert search(index, "old words", vector_weight=0.0) == []
    assert texts_of(search(index, "phrase", where=MemoryFilter(metadata={"text": "new phrase"})))
    assert not search(index, "phrase", where=MemoryFilter(metadata={"text": "old words"}))


def test_an_update_changes_only_what_it_names(index: MemoryIndex) -> None:
    add(index, "old words", metadata={"a": 1})
    before = index.get(MemoryId(1))
    patch = MemoryPatch(source="elsewhere")
    after = index.update(MemoryId(1), patch, None, request_id="1").result()
    assert after == index.get(MemoryId(1))
    assert dataclasses.replace(after, updated_at=before.updated_at) == dataclasses.replace(
        before, source="elsewhere"
    )
    assert after.updated_at > before.updated_at
    assert texts_of(search(index, "elsewhere", vector_weight=0.0)) == ["old words"]


def test_an_update_of_a_missing_memory_fails_alone(index: MemoryIndex) -> None:
    patch = MemoryPatch(metadata={})
    failing = index.update(MemoryId(77), patch, None, request_id="1")
    memory = NewMemory(text="a", source="s")
    working = index.add([memory], embeddings_of(["a"]), request_id="2")
    with pytest.raises(MemoryNotFoundError, match="77"):
        failing.result()
    assert working.result()[0].id == 1
    assert index.count() == 1


def test_a_delete_names_what_was_missing(index: MemoryIndex) -> None:
    add(index, "a" * 150, "b")
    outcome = index.delete([MemoryId(1), MemoryId(9), MemoryId(1)], request_id="1").result()
    assert [gone.text for gone in outcome.deleted] == ["a" * 100]
    assert outcome.missing == [9]
    assert index.count() == 1


def test_delete_by_source_takes_the_pattern_literally(index: MemoryIndex) -> None:
    add(index, "a", source="50%_done")
    add(index, "b", source="50 xdone")
    add(index, "c", source="50%_DONE")
    assert index.delete_by_source(MemoryFilter(source="%_d"), request_id="1").result() == 1
    assert index.count() == 2


def test_a_delete_without_any_condition_deletes_nothing(index: MemoryIndex) -> None:
    add(index, "a")
    with pytest.raises(InvalidInputError, match="deletes nothing"):
        index.delete_by_source(MemoryFilter(), request_id="1").result()
    assert index.count() == 1


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (MemoryFilter(source="b"), ["two", "three"]),
        (MemoryFilter(source_prefix="a/"), ["one", "two"]),
        (MemoryFilter(source_exact="b"), ["three"]),
        (MemoryFilter(source_exact="B"), []),
        (MemoryFilter(source_exact="a/b", source="b"), ["two"]),
        (MemoryFilter(source_prefix="a/", source="b"), ["two"]),
        (MemoryFilter(metadata={"n": 1}), ["one"]),
        (MemoryFilter(metadata={"n": 1.0}), ["one"]),
        (MemoryFilter(metadata={"n": True}), ["two"]),
        (MemoryFilter(metadata={"n": "1"}), ["three"]),
        (MemoryFilter(metadata={"n": 1, "tags": ["x"]}), ["one"]),
        (MemoryFilter(metadata={"absent": None}), []),
        (MemoryFilter(since_us=0), ["one", "two", "three"]),
        (MemoryFilter(until_us=0), []),
    ],
)
def test_a_filter_limits_searches_and_lists(
    index: MemoryIndex, where: MemoryFilter, expected: list[str]
) -> None:
    add(index, "one", source="a/x", metadata={"n": 1, "tags": ["x"]})
    add(index, "two", source="a/b", metadata={"n": True})
    add(index, "three", source="b", metadata={"n": "1"})
    page = index.list_memories(where, offset=0, limit=10)
    assert [memory.text for memory in page.memories] == expected
    assert page.total == len(expected)
    assert sorted(texts_of(search(index, "one two three", where=where))) == sorted(expected)


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_a_source_is_found_in_either_unicode_form(
    index: MemoryIndex, stored: UnicodeForm, asked: UnicodeForm
) -> None:
    add(index, "one", source=unicodedata.normalize(stored, "Café/Übersicht.md"))
    add(index, "two", source="Cafe/Ubersicht.md")
    wanted = unicodedata.normalize(asked, "Café/Ü")

    whole = unicodedata.normalize(asked, "Café/Übersicht.md")
    for where in (
        MemoryFilter(source=wanted),
        MemoryFilter(source_prefix=wanted),
        MemoryFilter(source_exact=whole),
    ):
        page = index.list_memories(where, offset=0, limit=10)
        assert [memory.text for memory in page.memories] == ["one"]
    assert index.delete_by_source(MemoryFilter(source=wanted), request_id="1").result() == 1


@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_go_by_time_then_by_id(index: MemoryIndex, *, newest_first: bool) -> None:
    times = [5, 1, 5, -3, 9, 1]
    memories = [
        NewMemory(text=f"text {n}", source="s", created_us=time, deduplicate=False)
        for n, time in enumerate(times)
    ]
    index.add(memories, embeddings_of([m.text for m in memories]), request_id="1").result()
    expected = sorted(range(len(times)), key=lambda n: (times[n], n), reverse=newest_first)

    seen: list[str] = []
    cursor = None
    while len(seen) < len(times):
        page = index.list_memories(
            MemoryFilter(), offset=0, limit=2, newest_first=newest_first, cursor=cursor
        )
        seen += [memory.text for memory in page.memories]
        cursor = page.next_cursor

    assert seen == [f"text {n}" for n in expected]
    offset = index.list_memories(MemoryFilter(), offset=1, limit=1, newest_first=newest_first)
    assert [memory.text for memory in offset.memories] == [f"text {expected[1]}"]


@pytest.mark.parametrize("cursor", ["", "7", "x.1", "1.x", "1.2.3", "9" * 30 + ".1"])
def test_a_cursor_of_somebody_else_is_refused(index: MemoryIndex, cursor: str) -> None:
    with pytest.raises(InvalidInputError, match="cursor"):
        index.list_memories(MemoryFilter(), offset=0, limit=1, cursor=cursor)


@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_by_cursor_give_every_memory_once(index: MemoryIndex, *, newest_first: bool) -> None:
    ids = add(index, *(f"text {n}" for n in range(7)))
    seen: list[int] = []
    cursor = None
    while True:
        page = index.list_memories(
            MemoryFilter(), offset=0, limit=3, newest_first=newest_first, cursor=cursor
        )
        seen += [memory.id for memory in page.memories]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == (ids[::-1] if newest_first else ids)


def test_threshold_drops_hits_of_both_sides(index: MemoryIndex) -> None:
    add(index, "alpha beta", "alpha gamma delta epsilon")
    hits = search(index, "alpha beta", threshold=0.9)
    assert texts_of(hits) == ["alpha beta"]
    assert hits[0].similarity >= 0.9


def test_deduplicate_keeps_the_earliest_of_each_group(index: MemoryIndex) -> None:
    add(index, "red green", "one two", "red green", "red green", "one two", "else")
    dry = index.deduplicate(0.9, by="same", dry_run=True, request_id="1")
    assert (dry.n_pairs, dry.n_removed, index.count()) == (4, 3, 6)
    assert {(pair.id_a, pair.id_b) for pair in dry.best_pairs} == {(1, 3), (1, 4), (3, 4), (2, 5)}
    real = index.deduplicate(0.9, by="same", dry_run=False, request_id="2")
    assert (real.n_removed, real.remaining) == (3, 3)
    page = index.list_memories(MemoryFilter(), offset=0, limit=10)
    assert [memory.id for memory in page.memories] == [1, 2, 6]


def test_a_rebuild_keeps_unchanged_chunks_and_everything_else(
    index: MemoryIndex, tmp_path: Path
) -> None:
    (kept,) = add(index, "not from a file")
    file = tmp_path / "workspace" / "notes.md"
    file.write_text("# A\n\nfirst\n\n# B\n\nsecond\n")

    def build() -> tuple[int, int, int, int]:
        plan = index.plan_build(None, replace_all=False)
        texts = [plan.chunks[at].text for at in plan.to_embed]
        vectors = embeddings_of(texts) if texts else embeddings_of(["x"])[:0]
        report = index.apply_build(plan, vectors, request_id=fresh_request_id())
        return len(texts), report.memories_added, report.memories_removed, report.unchanged

    assert build() == (2, 2, 0, 0)
    ids = {
        memory.text: memory.id
        for memory in index.list_memories(
            MemoryFilter(source="notes.md"), offset=0, limit=9
        ).memories
    }
    file.write_text("# New\n\nat the top\n\n# A\n\nfirst\n\n# B\n\nchanged\n")
    assert build() == (2, 2, 1, 1)
    after = index.list_memories(MemoryFilter(source="notes.md"), offset=0, limit=9).memories
    assert {(m.source, m.id) for m in after if "first" in m.text} == {
        ("notes.md:chunk_1", ids["A\n\nfirst"])
    }
    assert index.get(kept).text == "not from a file"


def test_a_rebuild_takes_front_matter_out_of_what_was_built_before(
    index: MemoryIndex, tmp_path: Path
) -> None:
    top = "---\ntitle: Tides\nauthor: Ann\n---"
    stored = [top, "Tides\n\nTwice a day.", "Tides > Neap\n\nhalf moon"]
    before = [
        NewMemory(text=text, source=f"n.md:chunk_{n}", metadata={"by": "me"}, deduplicate=False)
        for n, text in enumerate(stored)
    ]
    added = index.add(before, embeddings_of(stored), request_id="1").result()
    text = f"{top}\n# Tides\nTwice a day.\n## Neap\nhalf moon\n"
    (tmp_path / "workspace" / "n.md").write_text(text)

    plan = index.plan_build(None, replace_all=False)
    report = index.apply_build(plan, embeddings_of(["x"])[:0], request_id="2")
    assert (report.memories_added, report.memories_removed, report.unchanged) == (0, 1, 2)
    kept = index.get(added[1].id or MemoryId(0))
    assert (kept.source, kept.text) == ("n.md:chunk_0", stored[1])
    assert kept.metadata == {"by": "me", "title": "Tides", "author": "Ann"}
    again = index.apply_build(
        index.plan_build(None, replace_all=False), embeddings_of(["x"])[:0], request_id="3"
    )
    assert again.unchanged == 2
    assert index.get(kept.id).updated_at == kept.updated_at


def test_a_build_leaves_alone_what_others_put_under_a_file_s_name(
    index: MemoryIndex, tmp_path: Path
) -> None:
    (tmp_path / "workspace" / "a.md").write_text("of the workspace\n")
    theirs = NewMemory(text="imported", source="a.md:chunk_0", key="file:1", deduplicate=False)
    [added] = index.add([theirs], embeddings_of(["imported"]), request_id="1").result()

    def build(*, replace_all: bool) -> tuple[int, int, int]:
        plan = index.plan_build(None, replace_all=replace_all)
        texts = [plan.chunks[at].text for at in plan.to_embed]
        vectors = embeddings_of(texts) if texts else embeddings_of(["x"])[:0]
        report = index.apply_build(plan, vectors, request_id=fresh_request_id())
        return report.memories_added, report.memories_removed, report.unchanged

    assert build(replace_all=False) == (1, 0, 0)
    assert build(replace_all=False) == (0, 0, 1)
    assert index.get(added.id or MemoryId(0)).text == "imported"
    assert build(replace_all=True) == (0, 1, 1)
    assert index.count() == 1


def test_a_build_whose_plan_is_stale_changes_nothing(index: MemoryIndex, tmp_path: Path) -> None:
    (tmp_path / "workspace" / "notes.md").write_text("# A\n\nfirst\n")
    plan = index.plan_build(None, replace_all=False)
    index.apply_build(plan, embeddings_of([plan.chunks[0].text]), request_id="1")
    stale = index.plan_build(None, replace_all=False)
    delete(index, 1)
    with pytest.raises(NotReadyError):
        index.apply_build(stale, embeddings_of(["x"])[:0], request_id="2")
    assert index.count() == 0


def test_a_build_that_was_applied_is_known_by_its_request(
    index: MemoryIndex, tmp_path: Path
) -> None:
    (tmp_path / "workspace" / "notes.md").write_text("# A\n\nfirst\n")
    plan = index.plan_build(None, replace_all=False)
    with pytest.raises(LeaseLostError):
        index.built_before("1")
    report = index.apply_build(plan, embeddings_of([plan.chunks[0].text]), request_id="1")
    assert index.built_before("1") == report
    assert report.memories_added == 1


def test_a_large_export_is_read_in_pages_of_some_bytes(index: MemoryIndex) -> None:
    add(index, *("x" * 1_000 for _ in range(10)))
    facts = index.begin_export(MemoryFilter(), with_embeddings=False)
    pages = []
    while page := index.read_export(facts.export_id, 2_500):
        pages.append(len(page))
    assert pages == [3, 3, 3, 1]


def test_a_database_that_is_gone_is_not_written_and_comes_back_whole(
    index: MemoryIndex, tmp_path: Path
) -> None:
    add(index, "before")
    for name in ("memories.db", "memories.db-wal"):
        file = tmp_path / "data" / name
        aside = file.rename(file.with_name("aside"))
        with pytest.raises(StoreMovedError, match="nothing can be stored"):
            add(index, "into nowhere")
        assert "memories.db was removed" in (index.problem() or "")
        assert texts_of(search(index, "before"))[0] == "before"
        aside.rename(file)
        assert index.problem() is None
    add(index, "after")
    assert index.stats().n_stored == index.count() == 2


def test_a_writer_that_hangs_is_a_problem(tmp_path: Path) -> None:
    index = open_index(tmp_path, longest_write_s=0.0)
    release, began = threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        release.wait()

    hanging = index._writer.submit_alone(hang)
    began.wait()
    assert "a write has been under way" in (index.problem() or "")
    release.set()
    hanging.result()
    index.close()


@pytest.mark.parametrize("put_in_the_way", [False, True])
def test_backups_that_were_removed_are_made_anew_or_missed(
    index: MemoryIndex, tmp_path: Path, put_in_the_way: bool
) -> None:
    add(index, "kept")
    backups = tmp_path / "data" / "backups"
    index.backup("manual")
    shutil.rmtree(backups)
    if put_in_the_way:
        backups.write_text("a file")
        assert index.stats().backup_count == 0
        with pytest.raises(UnavailableError):
            index.backup("manual")
        assert str(backups) in (index.problem() or "")
    else:
        assert index.problem() is None
        made = index.backup("manual")
        assert index.backups() == [made]
        assert not index.verify_backup(made.name).problems


def test_restore_brings_back_what_was_and_keeps_what_is(index: MemoryIndex) -> None:
    add(index, "first words", "second phrase")
    backup = index.backup("manual")
    delete(index, 1)
    add(index, "third sentence")
    assert index.restore(backup.name).result() == 2
    assert texts_of(search(index, "first words", k=1)) == ["first words"]
    assert search(index, "third sentence", vector_weight=0.0) == []
    assert add(index, "fourth") == [4]  # id 3 was given out before the restore
    assert [b.total_memories for b in index.backups() if b.name.startswith("pre_restore")] == [2]


def test_a_broken_backup_is_refused_and_changes_nothing(index: MemoryIndex) -> None:
    add(index, "first")
    backup = index.backup("manual")
    (copy,) = Path(backup.path).glob("base_*.db")
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    add(index, "second")
    assert index.verify_backup(backup.name).problems
    with pytest.raises(BackupError, match="not the file that was written"):
        index.restore(backup.name).result()
    assert index.count() == 2
    assert texts_of(search(index, "second", k=1)) == ["second"]


@pytest.mark.parametrize("name", ["nope", "../data", "/etc", "manual_20260101_000000"])
def test_a_name_that_is_no_backup_is_not_found(index: MemoryIndex, name: str) -> None:
    with pytest.raises(BackupNotFoundError):
        index.restore(name).result()
    assert index.backups() == []


def test_a_backup_killed_half_way_is_never_listed(tmp_path: Path) -> None:
    index = open_index(tmp_path)
    backup = index.backup("manual")
    index.close()
    Path(backup.path).rename(backup.path + ".partial")
    index = open_index(tmp_path)
    assert index.backups() == []
    assert list((tmp_path / "data" / "backups").iterdir()) == []
    index.close()


def test_a_restart_answers_the_same_without_a_cache_with_one_and_with_a_broken_one(
    tmp_path: Path,
) -> None:
    index = open_index(tmp_path)
    add(index, "alpha beta", "beta gamma", "gamma delta")
    delete(index, 2)
    index.update(
        MemoryId(3), MemoryPatch(text="epsilon"), embedding_of("epsilon")[None], request_id="u"
    ).result()
    expected = search(index, "alpha epsilon")
    index.close()
    cache = tmp_path / "data" / CACHE_NAME
    assert cache.exists()
    damaged = cache.read_bytes()[:-40] + b"\0" * 40
    for content in (cache.read_bytes(), None, b"", damaged, damaged[:100]):
        if content is None:
            cache.unlink()
        else:
            cache.write_bytes(content)
        index = open_index(tmp_path)
        assert search(index, "alpha epsilon") == expected
        index.close()


def test_a_cache_that_is_behind_is_caught_up(tmp_path: Path) -> None:
    index = open_index(tmp_path)
    add(index, "alpha beta", "beta gamma", "gamma delta")
    index.close()
    cache = tmp_path / "data" / CACHE_NAME
    old = cache.read_bytes()
    index = open_index(tmp_path)
    delete(index, 1)
    add(index, "zeta")
    index.update(
        MemoryId(2), MemoryPatch(text="eta"), embedding_of("eta")[None], request_id="u2"
    ).result()
    expected = [search(index, query) for query in ("alpha beta gamma", "zeta", "eta")]
    index.close()
    cache.write_bytes(old)
    index = open_index(tmp_path)
    assert [search(index, query) for query in ("alpha beta gamma", "zeta", "eta")] == expected
    index.close()


def test_a_second_process_is_refused(index: MemoryIndex, tmp_path: Path) -> None:
    with pytest.raises(StoreLockedError, match="in use by process"):
        open_index(tmp_path)


def test_another_model_is_refused_with_the_command_that_re_embeds(tmp_path: Path) -> None:
    open_index(tmp_path).close()
    other = dataclasses.replace(IDENTITY, precision="int8")
    with pytest.raises(ModelMismatchError, match=r"scripts\.reembed"):
        open_index(tmp_path, identity=other)


def test_a_foreign_or_damaged_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    open_index(tmp_path).close()
    database = tmp_path / "data" / DATABASE_NAME
    good = database.read_bytes()
    database.write_bytes(b"not a database at all, but long enough" * 100)
    with pytest.raises(StoreCorruptError):
        open_index(tmp_path)
    database.write_bytes(good)
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreFormatError, match="newer release"):
        open_index(tmp_path)


def test_writes_beyond_the_queue_are_refused_and_not_applied(tmp_path: Path) -> None:
    index = open_index(tmp_path, max_pending_jobs=2)
    started, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        started.set()
        go_on.wait()

    index._writer.submit_alone(hold)
    started.wait()
    memory = NewMemory(text="a", source="s", deduplicate=False)
    waiting = [
        index.add([memory], embeddings_of(["a"]), request_id=fresh_request_id()) for _ in range(2)
    ]
    with pytest.raises(OverloadedError):
        index.add([memory], embeddings_of(["a"]), request_id=fresh_request_id())
    waiting[1].cancel()  # its caller went away
    go_on.set()
    assert waiting[0].result()[0].id == 1
    assert add(index, "b") == [2]
    index.close()


def test_large_stores_switch_to_codes_and_compact_while_they_are_used(tmp_path: Path) -> None:
    index = open_index(tmp_path, exact_below=300)
    texts = [f"word{n} word{n + 1} common" for n in range(3_000)]
    for start in range(0, len(texts), 500):
        add(index, *texts[start : start + 500])
    for start in range(1, 2_001, 500):
        delete(index, *range(start, start + 500))
    add(index, "the last one")
    stats = index.stats()
    assert stats.total_memories == 1_001
    assert stats.n_rows < 3_001
    assert texts_of(search(index, "word2500 word2501 common", k=1)) == [texts[2500]]
    index.close()
    index = open_index(tmp_path, exact_below=300)
    assert index.stats().vector_index == "rabitq"
    assert texts_of(search(index, "word2500 word2501 common", k=1)) == [texts[2500]]
    assert all(hit.memory.id > 2_000 for hit in search(index, "word100 common", k=100))
    index.close()


def test_concurrent_writers_and_readers_see_whole_writes(index: MemoryIndex) -> None:
    def write(worker: int) -> None:
        for n in range(30):
            (memory_id,) = add(index, f"worker{worker} item{n}", source=f"w{worker}")
            assert texts_of(search(index, f"worker{worker} item{n}", k=1))
            if n % 3 == 0:
                delete(index, memory_id)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert index.count() == 4 * 20
    page = index.list_memories(MemoryFilter(), offset=0, limit=100)
    assert page.total == index.count()
    assert len({memory.text for memory in page.memories}) == 80


def test_writes_submitted_together_share_commits(index: MemoryIndex) -> None:
    texts = [f"text {n}" for n in range(50)]
    futures = [
        index.add(
            [NewMemory(text=text, source="s", deduplicate=False)],
            embeddings_of([text]),
            request_id=text,
        )
        for text in texts
    ]
    wait(futures)
    assert sorted(future.result()[0].id or 0 for future in futures) == list(range(1, 51))


def test_a_source_that_would_give_two_memories_one_key_is_refused_and_spares_the_group(
    index: MemoryIndex,
) -> None:
    def upsert(source: str, text: str) -> MemoryId:
        memory = NewMemory(text=text, source=source, key="k")
        written = index.upsert(memory, embedding_of(text), request_id=fresh_request_id())
        return written.result().id

    upsert("a", "tea")
    other = upsert("b", "coffee")
    refused = index.update(other, MemoryPatch(source="a"), None, request_id=fresh_request_id())
    with pytest.raises(InvalidInputError, match="delete that first"):
        refused.result()
    assert index.get(other).source == "b"


def test_the_same_text_again_keeps_the_vector_that_it_has(index: MemoryIndex) -> None:
    own = embedding_of("something else entirely")
    memory = NewMemory(text="tea", source="a", key="k", own_vector=True)
    first = index.upsert(memory, own, request_id=fresh_request_id()).result()
    again = NewMemory(text="tea", source="a", key="k", metadata={"n": 1})
    index.upsert(again, embedding_of("tea"), request_id=fresh_request_id()).result()
    hits = search(index, "something else entirely", hybrid=False)
    assert [(hit.memory.id, hit.memory.metadata) for hit in hits] == [(first.id, {"n": 1})]
    assert hits[0].similarity == pytest.approx(1)


def test_a_search_between_a_deletes_commit_and_its_last_step_finds_the_others(
    index: MemoryIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, *_ = add(index, "tea tea tea", "tea and cake", "tea and bread")
    committed, searched = threading.Event(), threading.Event()
    publish = Store.publish_lsn

    def publish_and_wait(store: Store, lsn: int) -> None:
        publish(store, lsn)
        committed.set()
        searched.wait(30)

    monkeypatch.setattr(Store, "publish_lsn", publish_and_wait)
    deleted = index.delete([gone], request_id=fresh_request_id())
    assert committed.wait(30)
    found = search(index, "tea tea tea", k=2)
    nearest = index.nearest(embedding_of("tea tea tea"), "tea tea tea")
    searched.set()
    assert deleted.result().deleted
    assert len(found) == 2
    assert gone not in [hit.memory.id for hit in found]
    assert nearest is not None


def test_terms_of_another_analyser_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    index = open_index(tmp_path)
    (memory_id,) = add(index, "running gateways")
    index.close()
    monkeypatch.setattr("engine.search.postings_cache.ANALYSER", "another")
    index = open_index(tmp_path)
    assert "another analyser" in caplog.text
    index.delete([memory_id], request_id=fresh_request_id()).result()
    index.check()
    index.close()


def test_a_failure_of_maintenance_does_not_end_the_writer(
    index: MemoryIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> bool:
        raise MemoryError

    monkeypatch.setattr(SearchIndex, "needs_compaction", fail)
    add(index, "one")
    add(index, "two")
    index.check()
    assert index.count() == 2
