"""How many cores a process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deployments.embedder.cores import usable_cores

N_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(
    ("cpu_max", "n_cores"),
    [
        ("max 100000\n", N_CORES),
        ("100000 100000\n", 1),
        ("20000 100000\n", 1),
        ("640000000 100000\n", N_CORES),
        ("nonsense", N_CORES),
    ],
)
def test_a_containers_limit_bounds_the_cores(cpu_max: str, n_cores: int, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(cpu_max)
    assert usable_cores(tmp_path / "cpu.max") == n_cores


def test_without_control_groups_all_cores_count(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "missing") == N_CORES
