"""Data directories that released versions wrote open, answer and restore for ever."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from engine.errors import StoreCorruptError, StoreFormatError
from engine.store.database import DATABASE_NAME
from engine.store.tables import FORMAT_VERSION
from tests.golden.make_data_directory import DIRECTORIES, EXPECTED_NAME, memories_in
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
    expected = json.loads((directory / EXPECTED_NAME).read_text("utf-8"))
    for _ in range(2):  # upgraded the first time, as it is the second
        index = open_index(directory, max_backups=0)
        assert memories_in(index) == expected["memories"]["live"]
        assert index.count() == 5
        assert texts_of(search(index, "deploy Tuesday", k=1)) == ["The deploy day is Tuesday."]
        assert texts_of(search(index, "大きさ", k=1, vector_weight=0.0))[0].startswith("Größe")
        assert search(index, "deleted", vector_weight=0.0) == []
        index.close()
    index = open_index(directory, max_backups=0)
    for each, backup in expected["backups"].items():
        assert index.verify_backup(backup).problems == []
        index.restore(backup).result()
        assert memories_in(index) == expected["memories"][each]
    assert add(index, "new") == [7], "an id was used twice"
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
