"""Data directories that released versions wrote open, answer and restore for ever."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from engine.errors import StoreCorruptError, StoreFormatError
from engine.store.database import DATABASE_NAME
from engine.store.layout.tables import FORMAT_VERSION
from tests.golden.make_data_directory import DIRECTORIES, EXPECTED_NAME, memories_in, namespaces_in
from tests.support.index_under_test import add, open_index, search, texts_of

FORMATS = [f"format_{version}" for version in range(1, FORMAT_VERSION + 1)]


def copy_of(name: str, directory: Path) -> Path:
    copied = directory / name
    shutil.copytree(DIRECTORIES / name, copied)
    return copied


@pytest.mark.parametrize("name", FORMATS)
def test_a_data_directory_of_every_format_opens_answers_and_restores(
    tmp_path: Path, name: str
) -> None:
    directory = copy_of(name, tmp_path)
    expected = {"last_id": 6, "namespaces": {"base": {}, "delta": {}, "live": {}}} | json.loads(
        (directory / EXPECTED_NAME).read_text("utf-8")
    )
    for _ in range(2):  # upgraded the first time, as it is the second
        index = open_index(directory, max_backups=0)
        assert memories_in(index) == expected["memories"]["live"]
        assert namespaces_in(index) == expected["namespaces"]["live"]
        assert index.namespace("default").count() == 5
        assert texts_of(search(index, "deploy Tuesday", k=1)) == ["The deploy day is Tuesday."]
        assert texts_of(search(index, "大きさ", k=1, vector_weight=0.0))[0].startswith("Größe")
        assert search(index, "deleted", vector_weight=0.0) == []
        index.close()
    index = open_index(directory, max_backups=0)
    for each, backup in expected["backups"].items():
        assert index.verify_backup(backup).problems == []
        index.restore(backup).result()
        assert memories_in(index) == expected["memories"][each]
        assert namespaces_in(index) == expected["namespaces"][each]
    assert add(index, "new") == [expected["last_id"] + 1], "an id was used twice"
    new = index.backup("new").name
    assert index.verify_backup(new).problems == []
    index.close()


@pytest.mark.parametrize("name", FORMATS[:-1])
def test_an_upgrade_that_dies_half_way_is_made_again(tmp_path: Path, name: str) -> None:
    directory = copy_of(name, tmp_path)
    (directory / "data" / f"{DATABASE_NAME}.upgrading.partial").write_bytes(b"half")
    expected = json.loads((directory / EXPECTED_NAME).read_text("utf-8"))
    index = open_index(directory, max_backups=0)
    assert memories_in(index) == expected["memories"]["live"]
    index.close()
    assert not list(directory.rglob("*.partial"))


def test_a_damaged_database_of_an_older_format_is_not_upgraded(tmp_path: Path) -> None:
    directory = copy_of("format_1", tmp_path)
    database = directory / "data" / DATABASE_NAME
    content = bytearray(database.read_bytes())
    content[4096 * 3 : 4096 * 4] = b"\xff" * 4096
    database.write_bytes(content)
    with pytest.raises(StoreCorruptError, match=r"scripts\.store restore delta_"):
        open_index(directory, max_backups=0)
    assert database.read_bytes()[4096 * 3 :] == bytes(content[4096 * 3 :])


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 99])
def test_a_newer_format_is_refused_and_left_as_it_is(tmp_path: Path, version: int) -> None:
    directory = copy_of(FORMATS[-1], tmp_path)
    database = directory / "data" / DATABASE_NAME
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    before = database.read_bytes()
    with pytest.raises(StoreFormatError, match=f"format {version}, written by a newer release"):
        open_index(directory, max_backups=0)
    assert database.read_bytes() == before


def content_of(database: Path) -> list[str]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        return [f"format {version}", *connection.iterdump()]


KILLED_UPGRADE = """
import os, sys
from pathlib import Path
import engine.store.upgrade as upgrade
from tests.support.index_under_test import open_index

where, name = sys.argv[1:]
called = getattr(upgrade, name)

def die(*args, **kwargs):
    called(*args, **kwargs)
    os.kill(os.getpid(), 9)

setattr(upgrade, name, die)
open_index(Path(where), max_backups=0)
"""


@pytest.mark.parametrize("step", ["create_tables", "_copy", "check_sound", "fsync_file"])
def test_an_upgrade_that_is_killed_changes_nothing(tmp_path: Path, step: str) -> None:
    directory = copy_of("format_3", tmp_path)
    expected = json.loads((directory / EXPECTED_NAME).read_text("utf-8"))
    database = directory / "data" / DATABASE_NAME
    before = content_of(database)
    for _ in range(2):
        killed = subprocess.run(
            [sys.executable, "-c", KILLED_UPGRADE, directory, step], check=False
        )
        assert killed.returncode == -signal.SIGKILL
        assert content_of(database) == before
    index = open_index(directory, max_backups=0)
    assert memories_in(index) == expected["memories"]["live"]
    kept = [backup.name for backup in index.backups() if backup.name.startswith("pre_upgrade")]
    assert len(kept) == 1, "the state before is not backed up once"
    add(index, "later")
    assert index.verify_backup(kept[0]).problems == []
    index.restore(kept[0]).result()
    assert memories_in(index) == expected["memories"]["live"]
    new = index.backup("new").name
    assert index.verify_backup(new).problems == []
    index.close()


def test_a_row_that_rotted_in_an_older_format_is_not_taken_over(tmp_path: Path) -> None:
    directory = copy_of("format_3", tmp_path)
    database = directory / "data" / DATABASE_NAME
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE memories SET text = 'rotten' WHERE id = 1")
        connection.commit()
    with pytest.raises(StoreCorruptError, match="memories row 1 is not as it was written"):
        open_index(directory, max_backups=0)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
