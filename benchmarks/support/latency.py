"""Timing calls one at a time and many at once, in fair turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

Job = TypeVar("Job")


def timed_s(call: Callable[..., object], *arguments: object) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    p50, p99 = np.percentile(np.array(seconds) * 1000, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


def ratio(a: float, b: float) -> float:
    """How many times b goes into a."""
    return round(a / b, 2)


def in_turns(
    calls: Mapping[str, Callable[[Job], object]], jobs: Sequence[Job]
) -> dict[str, list[float]]:
    """Give every job to every call, one after the other; who is first changes each time.

    Returns:
        Seconds of each call's jobs, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for at, job in enumerate(jobs):
        for name in names[at % len(names) :] + names[: at % len(names)]:
            seconds[name].append(timed_s(calls[name], job))
    return seconds


def at_once(
    call: Callable[[Job], object], jobs: Sequence[Job], n_clients: int
) -> tuple[list[float], float]:
    """Work the jobs off with so many clients, each waiting for its answer before its next job.

    Returns:
        Seconds of each job, and seconds in all.
    """
    start_line = threading.Barrier(n_clients)

    def client(first: int) -> list[float]:
        start_line.wait()
        return [timed_s(call, job) for job in jobs[first::n_clients]]

    start = time.perf_counter()
    with ThreadPoolExecutor(n_clients) as pool:
        parts = list(pool.map(client, range(n_clients)))
    return [s for part in parts for s in part], time.perf_counter() - start
