"""Backups that somebody else made: passed over or refused in words, and nothing else is harmed."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from engine.backups.manifest import LATEST_S, read_manifest, write_manifest
from engine.errors import BackupError, BackupNotFoundError
from engine.memory_index import MemoryIndex
from engine.offsite.sync_state import STATE_NAME, SyncStateFile
from engine.records import MemoryFilter
from engine.search.postings_cache import CACHE_NAME
from engine.store.acknowledged_mark import MARK_NAME
from engine.store.layout.row_checksum import row_checksum
from scripts.cli.offline.store import app
from tests.support.foreign_backups import (
    HOSTILE,
    change_backup,
    change_row,
    plant_odd_backups,
    running,
)
from tests.support.index_under_test import add, open_index, search, texts_of

OPTIONS: dict[str, Any] = {"max_backups": 0, "deltas_share": 100.0, "merge_below_bytes": 0}


@pytest.fixture
def index(tmp_path: Path) -> Iterator[MemoryIndex]:
    index = open_index(tmp_path, **OPTIONS)
    add(index, "first", "second", metadata={"colour": "red"})
    index.backup("base")
    add(index, "third")
    index.backup("delta")
    add(index, "later")
    yield index
    index.close()


def backups_dir(index: MemoryIndex) -> Path:
    return Path(index.backups()[0].path).parent


def named(index: MemoryIndex, prefix: str) -> str:
    return next(b.name for b in index.backups() if b.name.startswith(prefix))


def test_odd_manifests_are_passed_over_with_a_warning(
    index: MemoryIndex, caplog: pytest.LogCaptureFixture
) -> None:
    good = named(index, "delta")
    listed = index.backups()
    odd = plant_odd_backups(backups_dir(index), good)
    for _ in range(2):
        assert index.backups() == listed
    warned = [record for record in caplog.records if "no readable manifest" in record.message]
    assert len(warned) >= len(odd) - 2
    assert len({record.message for record in warned}) == len(warned), "once is enough"
    assert index.stats().backup_count == 2
    assert index.backup("after").name in [b.name for b in index.backups()]
    for name in odd:
        with pytest.raises(BackupNotFoundError):
            index.restore(name).result()
    assert index.restore(good).result() == 3
    assert add(index, "goes on") == [5]


def test_odd_manifests_stop_no_automatic_backup_and_no_start(tmp_path: Path) -> None:
    options = {**OPTIONS, "max_backups": 2, "backup_pause_s": 0.001}
    index = open_index(tmp_path, **options)
    add(index, "first")
    index.close()
    [good] = [path.name for path in (tmp_path / "data" / "backups").iterdir()]
    plant_odd_backups(tmp_path / "data" / "backups", good)
    for n in range(3):
        index = open_index(tmp_path, **options)
        add(index, f"more {n}")
        index.close()  # backs up what has no backup yet
    index = open_index(tmp_path, **{**options, "max_backups": 0})
    assert [b.total_memories for b in index.backups()] == [4, 3]
    index.close()
    done = CliRunner().invoke(app, ["doctor", "--data-dir", str(tmp_path / "data")])
    assert "its manifest is missing or not as it was written" in done.output


def test_a_backup_of_the_last_day_that_counts_does_not_end_backups(index: MemoryIndex) -> None:
    directory = backups_dir(index) / named(index, "delta")
    manifest = read_manifest(directory)
    assert manifest is not None
    fields = {name: getattr(manifest, name) for name in ("kind", "facts", "files")}
    write_manifest(directory, type(manifest)(**fields, created_s=LATEST_S))
    for _ in range(2):
        name = index.backup("after").name
        assert index.verify_backup(name).problems == []


@pytest.mark.parametrize("which", [0, 1], ids=["base", "delta"])
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_database_is_refused_before_it_is_asked_anything(
    index: MemoryIndex, what: str, which: int
) -> None:
    name, good = named(index, "delta"), named(index, "base")
    change_backup(backups_dir(index) / name, HOSTILE[what], which=which)
    [problem] = index.verify_backup(name).problems
    assert "cannot be used" in problem
    assert "scratch" not in problem
    with pytest.raises(BackupError, match="cannot be used"):
        index.restore(name).result()
    assert add(index, "goes on") == [5]
    assert index.verify_backup(good).problems == []
    assert index.restore(good).result() == 2


POISONED = {
    "a time that no calendar has": change_row("memories", "id = 1", created_us=1 << 62),
    "metadata that is no object": change_row("memories", "id = 1", metadata="[]"),
    "metadata that is no JSON": change_row("memories", "id = 1", metadata="{"),
    "metadata that is nested too deeply": change_row(
        "memories", "id = 1", metadata='{"a":' * 100_000 + "1" + "}" * 100_000
    ),
    "metadata that is no text": change_row("memories", "id = 1", metadata='{"a":"\\ud800"}'),
    "no epoch": change_row("meta", "name = 'epoch'", name="epoch2"),
    "a model of an odd type": change_row("meta", "name = 'model'", value="[]"),
    "an LSN that is no number": change_row("meta", "name = 'lsn'", value="x"),
    "an LSN that is the last one": change_row("meta", "name = 'lsn'", value=str((1 << 63) - 1)),
    "a creation that no calendar has": change_row("meta", "name = 'created_us'", value="9" * 18),
    "ids used up": running("UPDATE sqlite_sequence SET seq = (1 << 63) - 1 WHERE name='memories'"),
    "an id that is text": running("UPDATE sqlite_sequence SET seq = 'x' WHERE name='memories'"),
    "outcomes used up": running(
        "INSERT OR REPLACE INTO sqlite_sequence SELECT 'requests', 9223372036854775807"
    ),
}


@pytest.mark.parametrize("what", POISONED)
def test_facts_that_we_cannot_have_written_are_refused(index: MemoryIndex, what: str) -> None:
    name = named(index, "base")
    change_backup(backups_dir(index) / name, POISONED[what])
    assert index.verify_backup(name).problems
    with pytest.raises(BackupError):
        index.restore(name).result()
    page = index.list_memories(MemoryFilter(), offset=0, limit=9)
    assert [memory.text for memory in page.memories] == ["first", "second", "third", "later"]


@pytest.mark.parametrize(
    "content",
    [
        '{"machine": 3}',
        '{"machine": "m", "uploaded_at_s": 1e300}',
        '{"machine": "m", "uploaded_at_s": Infinity}',
        '{"machine": "m", "head": []}',
        "[" * 100_000,
        "[]",
    ],
)
def test_an_odd_state_of_the_sync_is_begun_anew(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / STATE_NAME).write_text(content)
    state = SyncStateFile(tmp_path).now
    assert (len(state.machine), state.head, state.uploaded_at_s) == (32, None, None)
    assert "it is begun anew" in caplog.text


def compress(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, member in members.items():
            file.writestr(name, member)


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def name_ids(path: Path) -> None:
    with np.load(path) as arrays:
        changed = {**arrays, "ids": np.array(["1"])}
    np.savez(path, **changed)


@pytest.mark.parametrize("make_odd", [compress, make_fifo, name_ids])
def test_an_odd_cache_and_an_odd_mark_are_not_used(
    tmp_path: Path, make_odd: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    index = open_index(tmp_path, **OPTIONS)
    add(index, "first")
    index.close()
    make_odd(tmp_path / "data" / CACHE_NAME)
    (tmp_path / "data" / MARK_NAME).write_text(f"e {1 << 60} 1 {row_checksum(('e', 1 << 60, 1))}")
    index = open_index(tmp_path, **OPTIONS)
    assert texts_of(search(index, "first")) == ["first"]
    assert ("is not used" in caplog.text) == (make_odd is not make_fifo)
    index.close()
