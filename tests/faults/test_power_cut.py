"""Every change to a file fails once, and the power goes at every moment: nothing acknowledged is
lost, nothing is listed that cannot be restored. Needs Linux and a C compiler.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.faults.fault_workload import ACKNOWLEDGED_NAME, State, check
from tests.faults.power_cut import Disk

SEED = 20261122
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
STRIDE = int(os.environ.get("FAULT_STRIDE", "60"))
"""Of so many changes one fails in a run of all tests; FAULT_STRIDE=1 takes minutes."""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or COMPILER is None, reason="needs Linux and a C compiler"
)


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("shim") / "file_faults.so"
    source = Path(__file__).with_name("file_faults.c")
    subprocess.run(
        [str(COMPILER), "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl", "-lpthread"],
        check=True,
    )
    return library


def run(shim: Path, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.fault_workload", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("code", "mode"),
    [(errno.EIO, "fails"), (errno.ENOSPC, "fails"), (errno.ENOSPC, "is cut short")],
)
def test_no_failed_change_of_a_file_loses_a_write_or_lists_a_broken_backup(
    shim: Path, tmp_path: Path, code: int, mode: str
) -> None:
    offset = 1 + random.Random(f"{SEED} {code} {mode}").randrange(STRIDE)
    is_short = int(mode == "is cut short")
    n_changes = int(run(shim, "fail", tmp_path / "f", code, is_short, STRIDE, offset))
    assert n_changes > 500, "SQLite's own writes were not seen"


def test_a_power_cut_at_any_moment_keeps_what_was_acknowledged(shim: Path, tmp_path: Path) -> None:
    original, log = tmp_path / "original", tmp_path / "log"
    run(shim, "record", original, log)
    whole = Disk(original, ACKNOWLEDGED_NAME)
    n_cuts = 1 + max(whole.replay(log.read_bytes()))
    states: list[State] = [{"texts": [], "backups": []}, *whole.acknowledged]
    assert len(states) == 10
    disk = Disk(original, ACKNOWLEDGED_NAME)
    rng = random.Random(SEED)
    for cut in disk.replay(log.read_bytes()):
        now = len(disk.acknowledged)
        allowed = [state["texts"] for state in states[now : now + 2]]
        for chance in (None, rng) if cut % 3 == 0 else (None,):
            left = tmp_path / "left"
            disk.leave(left, chance)
            where = f"cut {cut} of {n_cuts}, {'some' if chance else 'none'} of the rest survives"
            check(left, allowed, states[now]["backups"], where)
            shutil.rmtree(left)
    assert n_cuts > 60
