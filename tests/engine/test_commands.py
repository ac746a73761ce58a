"""The commands that errors name work where the service runs, checkout or image."""

from __future__ import annotations

import pickle
import subprocess
from pathlib import Path

import pytest

from engine.commands import script_command
from engine.errors import RottenRowError, StoreCorruptError
from engine.model.files import SET_UP_COMMAND


@pytest.mark.parametrize(
    "command", [script_command("store doctor", "/a b"), SET_UP_COMMAND, script_command("reembed")]
)
def test_a_command_that_an_error_names_starts_in_any_directory(
    command: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{command} --help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout or "usage" in done.stdout


def test_an_error_names_a_whole_command() -> None:
    for error in (StoreCorruptError("memories.db", "it is gone"), RottenRowError("row 7")):
        assert script_command("store doctor") in str(error)


def test_an_error_of_a_known_database_names_its_directory() -> None:
    database = "/my memories/memories.db"
    for error in (StoreCorruptError(database, "it is gone"), RottenRowError("row 7", database)):
        again = pickle.loads(pickle.dumps(error))
        assert str(again).endswith("-m scripts.store doctor --data-dir '/my memories'")
