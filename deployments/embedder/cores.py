"""How many cores this process may use, which in a container is fewer than the machine has."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(cpu_max: Path = _CPU_MAX) -> int:
    """Cores of the machine, or of the process's affinity or control group if those are fewer.

    Args:
        cpu_max: the control group's `<quota> <period>` in microseconds; `max` is no limit.
    """
    n_cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        n_cores = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        quota, period = cpu_max.read_text("ascii").split()
        if quota != "max":
            n_cores = min(n_cores, max(1, round(int(quota) / int(period))))
    return n_cores
