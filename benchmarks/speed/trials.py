"""Search, add and delete by several contenders in turns: percentiles and ratios of p50."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.speed.contenders import Contender
from benchmarks.support.latency import at_once, in_turns, percentiles_ms, ratio

Measured = dict[str, Any]
Contenders = Mapping[str, Contender]
Compared = Mapping[str, tuple[str, str]]
"""Name of a ratio, to whose p50 is divided by whose."""

_ROUNDS = 4
_WARM_UP_SEARCHES = 10


def warm_up(contenders: Contenders) -> None:
    """Let everything have run once."""
    for contender in contenders.values():
        for i in range(_WARM_UP_SEARCHES):
            contender.search(f"warm-up {i}")
        memory_id = contender.add("A sentence that only warms up, about nothing in particular.")
        if memory_id is not None:
            contender.delete(memory_id)


def search_alone(contenders: Contenders, queries: Sequence[str], compared: Compared) -> Measured:
    """One client that searches."""
    calls = {name: contender.search for name, contender in contenders.items()}
    return _alone(in_turns(calls, queries), compared)


def write_alone(contenders: Contenders, texts: Sequence[str], compared: Compared) -> Measured:
    """One client that adds, then deletes what it added.

    A text that is a duplicate somewhere does not count; what was added of it stays.
    """
    ids: dict[str, list[int | None]] = {name: [] for name in contenders}
    adds = in_turns({n: _noting(c.add, ids[n]) for n, c in contenders.items()}, texts)
    added = [i for i in range(len(texts)) if all(ids[name][i] is not None for name in contenders)]
    deletes = in_turns({n: _at(c.delete, ids[n]) for n, c in contenders.items()}, added)
    adds = {name: [seconds[i] for i in added] for name, seconds in adds.items()}
    return {"add": _alone(adds, compared), "delete": _alone(deletes, compared)}


def search_many(
    contenders: Contenders, queries: Sequence[str], compared: Compared, n_clients: int
) -> Measured:
    """Many clients that search."""
    calls = {name: contender.search for name, contender in contenders.items()}
    return _many(calls, dict.fromkeys(calls, queries), compared, n_clients)


def write_many(
    contenders: Contenders, texts: Sequence[str], compared: Compared, n_clients: int
) -> Measured:
    """Many clients that add, then delete what they added."""
    ids: dict[str, list[int]] = {name: [] for name in contenders}
    adders = {name: adder(c, ids[name]) for name, c in contenders.items()}
    adds = _many(adders, dict.fromkeys(contenders, texts), compared, n_clients)
    deleters = {name: contender.delete for name, contender in contenders.items()}
    return {"add": adds, "delete": _many(deleters, ids, compared, n_clients)}


def adder(contender: Contender, ids: list[int]) -> Callable[[str], None]:
    """Adds a text and notes its id, unless it is a duplicate."""

    def add(text: str) -> None:
        memory_id = contender.add(text)
        if memory_id is not None:
            ids.append(memory_id)

    return add


def _alone(seconds: Mapping[str, Sequence[float]], compared: Compared) -> Measured:
    report: Measured = {name: percentiles_ms(values) for name, values in seconds.items()}
    n_requests = min(map(len, seconds.values()))
    return {"requests": n_requests} | report | _ratios(report, compared)


def _many(
    calls: Mapping[str, Callable[[Any], object]],
    jobs: Mapping[str, Sequence[Any]],
    compared: Compared,
    n_clients: int,
) -> Measured:
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    elapsed_s = dict.fromkeys(calls, 0.0)
    for start in range(_ROUNDS):
        for name, call in calls.items():
            times, total_s = at_once(call, jobs[name][start::_ROUNDS], n_clients)
            seconds[name] += times
            elapsed_s[name] += total_s
    report: Measured = {
        name: percentiles_ms(times) | {"per_s": round(len(times) / elapsed_s[name], 1)}
        for name, times in seconds.items()
    }
    return report | _ratios(report, compared)


def _ratios(report: Mapping[str, Mapping[str, float]], compared: Compared) -> dict[str, float]:
    return {
        f"{name}_p50": ratio(report[a]["p50"], report[b]["p50"])
        for name, (a, b) in compared.items()
        if a in report and b in report
    }


def _noting(call: Callable[[str], int | None], answers: list[int | None]) -> Callable[[str], None]:
    return lambda text: answers.append(call(text))


def _at(call: Callable[[int], object], ids: Sequence[int | None]) -> Callable[[int], object]:
    """A call by position among the ids."""

    def call_at(position: int) -> object:
        memory_id = ids[position]
        assert memory_id is not None
        return call(memory_id)

    return call_at
