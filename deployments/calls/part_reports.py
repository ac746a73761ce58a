"""What each process of the service says of itself, for the metrics."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_STATM = Path("/proc/self/statm")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartReport:
    """One process, as of now."""

    replica: str
    """Names the process, so that no counter goes on where another's ended."""
    cpu_s: float
    """Processor time since it started, of all its threads."""
    resident_bytes: int
    totals: Mapping[str, float] = field(default_factory=dict)
    """By name, what only grows: `batches`, `texts`, …"""
    levels: Mapping[str, float] = field(default_factory=dict)
    """By name, what goes up and down: `queue_depth`, …"""


def own_report(
    *, totals: Mapping[str, float] | None = None, levels: Mapping[str, float] | None = None
) -> PartReport:
    """The report of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return PartReport(
        replica=replica_name(),
        cpu_s=used.ru_utime + used.ru_stime,
        resident_bytes=_resident_bytes(most=used.ru_maxrss),
        totals=totals or {},
        levels=levels or {},
    )


def replica_name() -> str:
    """Names this process among all nodes'."""
    return f"{platform.node()}:{os.getpid()}"


def _resident_bytes(*, most: int) -> int:
    """Memory held now; on macOS, which has no `/proc`, the most that ever was."""
    try:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return most
