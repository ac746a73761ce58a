"""`deploy/image/check.sh`, which CI runs: only a broken image fails it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

CHECK = ROOT / "deploy" / "image" / "check.sh"
TOOLS = ["buildah", "runc", "debootstrap", "unshare", "uname", "id", "make"]
WORDS = {"uname": "echo Linux", "id": "echo 0"}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the check is for Linux")


def check(directory: Path, **scripts: str) -> tuple[int, str]:
    """Its status and what it says, with these programs in place of the real ones."""
    for name in TOOLS:
        program = directory / name
        program.write_text(f"#!/bin/sh\n{scripts.get(name, WORDS.get(name, ':'))}\n")
        program.chmod(0o755)
    env = os.environ | {"PATH": f"{directory}:{os.environ['PATH']}", "IMAGE_LIMIT_S": "2"}
    done = subprocess.run(["bash", CHECK], env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("scripts", "reason"),
    [
        ({"id": "echo 1000"}, "it needs root"),
        ({"uname": "echo Darwin"}, "it needs Linux"),
        ({"unshare": "echo not permitted >&2; exit 1"}, "not permitted"),
        ({"buildah": "[ $1 != run ] || { echo no mirror >&2; exit 100; }"}, "no mirror"),
        ({"make": "exec sleep 60"}, "not done after 2 s"),
    ],
)
def test_where_the_image_cannot_be_checked_it_says_so_and_fails_nothing(
    scripts: dict[str, str], reason: str, tmp_path: Path
) -> None:
    status, said = check(tmp_path, **scripts)
    assert status == 0
    assert said.startswith("The image was not checked: ")
    assert reason in said


def test_a_broken_image_fails(tmp_path: Path) -> None:
    assert check(tmp_path, make="exit 2") == (2, "")


def test_a_sound_image_passes(tmp_path: Path) -> None:
    assert check(tmp_path, make="echo 12 passed") == (0, "12 passed\n")
