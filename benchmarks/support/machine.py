"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

from engine.model.precision import read_cpuinfo

_TELLING_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp")
_PACKAGES = ("ray", "faiss-cpu", "onnxruntime", "numpy")


def machine_facts() -> dict[str, Any]:
    """Cores, processor, load at the start, versions."""
    cpuinfo = [line.partition(":") for line in read_cpuinfo().splitlines()]
    values = {key.strip(): value.strip() for key, _, value in cpuinfo}
    flags = set(values.get("flags", values.get("Features", "")).split())
    return {
        "cores": os.cpu_count(),
        "cpu": values.get("model name", platform.processor() or platform.machine()),
        "cpu_flags": [flag for flag in _TELLING_FLAGS if flag in flags],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
    }
