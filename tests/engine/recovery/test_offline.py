from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.errors import EngineError
from engine.store.database import DATABASE_NAME
from scripts.cli.offline.store import app
from tests.support.index_under_test import add, open_index, search, texts_of


def run(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*arguments, "--data-dir", str(tmp_path / "data")])
    return result.exit_code, result.output


def make_store(tmp_path: Path) -> str:
    index = open_index(tmp_path, max_backups=0)
    add(index, "first words", "second phrase")
    name = index.backup("manual").name
    add(index, "third, after the backup")
    index.close()
    return name


def test_a_sound_directory_has_nothing_to_mend(tmp_path: Path) -> None:
    name = make_store(tmp_path)
    assert run(tmp_path, "doctor") == (0, "Nothing is wrong.\n")
    assert run(tmp_path, "verify") == (0, f"{name}: ok\n")
    assert run(tmp_path, "verify", name) == (0, f"{name}: ok\n")


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "missing"])
def test_the_doctor_names_the_command_that_mends_a_destroyed_store(
    tmp_path: Path, damage: str
) -> None:
    name = make_store(tmp_path)
    database = tmp_path / "data" / DATABASE_NAME
    if damage == "truncated":
        database.write_bytes(database.read_bytes()[:10_000])
    elif damage == "overwritten":
        database.write_bytes(b"\xff" * database.stat().st_size)
    else:
        database.unlink()
    code, output = run(tmp_path, "doctor")
    assert code == 1
    assert f" -m scripts.store restore {name}" in output
    code, output = run(tmp_path, "restore", name)
    assert code == 0, output
    index = open_index(tmp_path, max_backups=0)
    assert sorted(texts_of(search(index, "words", k=9))) == ["first words", "second phrase"]
    (new_id,) = add(index, "new")
    assert new_id > 3 or damage == "missing"
    index.close()
    assert run(tmp_path, "doctor")[0] == 0


def test_a_damaged_backup_is_named_and_not_restored(tmp_path: Path) -> None:
    name = make_store(tmp_path)
    (base,) = (tmp_path / "data" / "backups" / name).glob("base_*.db")
    base.write_bytes(base.read_bytes()[:-1])
    before = (tmp_path / "data" / DATABASE_NAME).read_bytes()
    assert run(tmp_path, "doctor")[0] == 1
    assert run(tmp_path, "verify")[0] == 1
    code, output = run(tmp_path, "restore", name)
    assert code == 1
    assert "is not the file that was written" in output
    assert (tmp_path / "data" / DATABASE_NAME).read_bytes() == before


def test_commands_are_refused_while_the_service_runs(tmp_path: Path) -> None:
    index = open_index(tmp_path)
    code, output = run(tmp_path, "doctor")
    index.close()
    assert code == 1
    assert "in use by process" in output


def test_a_rotten_byte_never_ends_in_a_crash_without_a_sentence(tmp_path: Path) -> None:
    make_store(tmp_path)
    good = (tmp_path / "data" / DATABASE_NAME).read_bytes()
    codes = []
    for at in range(0, len(good), len(good) // 60):
        scratch = tmp_path / f"rot{at}"
        (scratch / "data").mkdir(parents=True)
        rotten = bytearray(good)
        rotten[at] ^= 0x40
        (scratch / "data" / DATABASE_NAME).write_bytes(rotten)
        codes.append(run(scratch, "doctor")[0])
        with contextlib.suppress(EngineError):
            open_index(scratch, max_backups=0).close()
        shutil.rmtree(scratch)
    assert set(codes) == {0, 1}
