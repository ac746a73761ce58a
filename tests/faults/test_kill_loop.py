"""A few rounds of the kill loop; `python -m tests.faults.kill_loop` runs as many as you like."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.kill_loop import Moment, Victim, kill_loop

SEED = 20261122
ROUNDS: list[tuple[Victim, Moment]] = [
    ("index", "restore"),
    ("service", "any"),
    ("index", "switch"),
]


@pytest.mark.service
@pytest.mark.timeout(1200)
def test_every_acknowledged_change_survives_kills_of_the_running_service(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    with kill_loop(tmp_path, SEED) as loop:
        for victim, moment in ROUNDS:
            print(loop.run_round(victim, moment))
        loop.verify_all_backups()
