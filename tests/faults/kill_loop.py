"""Kill the running service at random moments under load, and see that nothing is lost.

    python -m tests.faults.kill_loop --rounds 200 --seed 7

A round lets clients write over REST, kills the index replica or every process of the service
with SIGKILL (at any moment, or aimed at a backup, a restore, an index switch or a compaction),
waits until it is back, and compares all of it with what was acknowledged.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import httpx
import pytest
import typer

from tests.faults.kill_client import PATIENCE_S, Client, Shared, searches_of
from tests.faults.kill_keys import KeyClient
from tests.faults.kill_model import Slot, Violation
from tests.support.service import Service, running_service

Victim = Literal["index", "service"]
Moment = Literal["any", "backup", "restore", "switch", "compaction"]
MOMENTS: tuple[Moment, ...] = get_args(Moment)

NAMESPACES = ("default", "default", "default", "other")
"""Of the clients; most in one, so that its index switches and is compacted."""
N_CLIENTS = len(NAMESPACES)
EXACT_BELOW = 240
COMPACT_FROM = 40
SETTINGS = {
    "EXACT_BELOW": str(EXACT_BELOW),
    "COMPACT_FROM": str(COMPACT_FROM),
    "CACHE_AFTER": "50",
    "LOG_LEVEL": "warning",
}
"""Thresholds so low that switches, compactions and caches fall into every round."""
_COMPACT_SHARE = 0.25
_AIM_S = 5.0
_AIM_ROWS = 6
"""A switch or a compaction is near when so few rows are missing: the clients soon add them."""
_AIM_SPREAD_S = 0.1
_KEPT_SNAPSHOTS = 4
_LEAST_SIMILARITY = 0.999


class KillLoop:
    """One service, its clients, and what must be true of it."""

    def __init__(self, service: Service, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.round_s: dict[str, list[float]] = defaultdict(list)
        self.back_after_s: dict[str, list[float]] = defaultdict(list)
        self._service = service
        self._rng = random.Random(seed)
        self._shared = Shared(service.base_url, seed)
        self._clients = [Client(self._shared, *each) for each in enumerate(NAMESPACES)]
        self._keys = KeyClient(seed)
        self._took_s: dict[str, float] = {"backup": 0.1, "restore": 0.4}
        self._http = self._shared.http()

    def run_round(self, victim: Victim, moment: Moment) -> str:
        """Load, kill, restart, check; returns a line for people. Raises `Violation`."""
        started_s = time.monotonic()
        acknowledged = self._n_acknowledged()
        with ThreadPoolExecutor(N_CLIENTS + 2) as threads, self._shared.http() as http:
            self._shared.stop.clear()
            running = [threads.submit(client.run) for client in self._clients]
            running.append(threads.submit(self._keys.run, http, self._rng.randrange(5, 60)))
            try:
                self._wait_for_acknowledgements(self._rng.randrange(20, 80), running)
                pids = self._pids_of(victim)
                struck = self._aim(moment, threads, running)
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                killed_s = time.monotonic()
                in_time = struck()
            finally:
                self._shared.stop.set()
            if victim == "service":
                self._service.exited_within(30)
                self._service.start()
            for future in running:
                future.result()
        self._wait_until_ready()
        back_s = time.monotonic() - killed_s
        for client in self._clients:
            client.settle()
        self.check()
        took_s = time.monotonic() - started_s
        self.counts[f"{victim} killed"] += 1
        self.counts[f"at {moment}"] += 1
        if moment != "any":
            self.counts[f"met {moment}"] += in_time
        self.round_s[victim].append(took_s)
        self.back_after_s[victim].append(back_s)
        n = self._n_acknowledged() - acknowledged
        return (
            f"{victim} killed at {moment}{'' if in_time else ' (missed)'}: {n} writes "
            f"acknowledged, back after {back_s:.1f} s, round {took_s:.1f} s"
        )

    def _n_acknowledged(self) -> int:
        return sum(client.n_acknowledged for client in self._clients)

    def _wait_for_acknowledgements(self, n: int, running: list[Future[None]]) -> None:
        wanted = self._n_acknowledged() + n
        deadline = time.monotonic() + PATIENCE_S
        while self._n_acknowledged() < wanted:
            _raise_early(running)
            if time.monotonic() > deadline:
                raise Violation(f"no answers: {self._service.log()}")
            time.sleep(0.005)

    def _pids_of(self, victim: Victim) -> list[int]:
        if victim == "index":
            return self._service.replica_pids("Index")
        pids = [process.pid for process in self._service.processes()]
        self._rng.shuffle(pids)
        return pids

    # Moments

    def _aim(
        self, moment: Moment, threads: ThreadPoolExecutor, running: list[Future[None]]
    ) -> Callable[[], bool]:
        """Wait for the moment; what is returned tells, after the kill, whether it was met."""
        if moment == "any":
            time.sleep(self._rng.uniform(0, 0.3))
            return lambda: True
        if moment == "backup":
            return self._aim_at(threads.submit(self._back_up), "backup")
        if moment == "restore":
            if not self._shared.snapshots:
                self._snapshot()
            return self._aim_at(threads.submit(self._restore), "restore")
        deadline = time.monotonic() + _AIM_S
        while not (due := self._is_near(moment)) and time.monotonic() < deadline:
            _raise_early(running)
        time.sleep(self._rng.uniform(0, _AIM_SPREAD_S))
        return lambda: due

    def _aim_at(self, future: Future[None], what: str) -> Callable[[], bool]:
        time.sleep(self._rng.uniform(0, 1.1 * self._took_s[what]))
        was_running = not future.done()
        return lambda: was_running

    def _is_near(self, moment: Moment) -> bool:
        stats = self._http.get("/stats").json()
        if moment == "switch":
            n_missing = EXACT_BELOW - stats["index_rows"]
            return bool(stats["vector_index"] == "exact" and n_missing <= _AIM_ROWS)
        n_dead = stats["index_rows"] - stats["total_memories"]
        return bool(n_dead >= max(COMPACT_FROM, _COMPACT_SHARE * stats["index_rows"]) - _AIM_ROWS)

    # Backups

    def _back_up(self) -> None:
        """A backup while clients write; it need not be answered."""
        started_s = time.monotonic()
        with suppress(httpx.TransportError), self._shared.http() as http:
            answer = http.post("/backup", params={"prefix": "under_load"})
            _expect(answer, 200, 429, 503)
            self._learn("backup", started_s)
            self.counts["backups under load"] += 1

    def _snapshot(self) -> None:
        """A backup of which it is known what it holds."""
        with self._shared.turn.exclusive():
            answer = _expect(self._http.post("/backup", params={"prefix": "known"}), 200)
            name = Path(answer.json()["backup_path"]).name
            snapshots = self._shared.snapshots
            snapshots[name] = self._shared.model.snapshot()
            while len(snapshots) > _KEPT_SNAPSHOTS:
                del snapshots[next(iter(snapshots))]
        self.counts["backups"] += 1

    def _restore(self) -> None:
        name = self._rng.choice(list(self._shared.snapshots))
        model, snapshot = self._shared.model, self._shared.snapshots[name]
        with self._shared.turn.exclusive(), self._shared.http() as http:
            started_s = time.monotonic()
            try:
                answer = http.post("/restore", json={"backup_name": name})
            except httpx.TransportError:
                model.restore(snapshot, answered=False)
                self.counts["restores without an answer"] += 1
                return
            if answer.status_code == 503:
                self.counts["restores refused"] += 1
                return
            _expect(answer, 200)
            model.restore(snapshot, answered=True)
            self._learn("restore", started_s)
            self.counts["restores"] += 1

    def _learn(self, what: str, started_s: float) -> None:
        took_s = time.monotonic() - started_s
        if took_s < 2:  # no restart in between
            self._took_s[what] = 0.7 * self._took_s[what] + 0.3 * took_s

    # Checks

    def check(self) -> None:
        """Compare everything the service shows with what was acknowledged."""
        memories = self._list()
        self._shared.model.settle(memories)
        for namespace in set(NAMESPACES):
            n_listed = sum(memory["namespace"] == namespace for memory in memories)
            headers = {"X-Memory-Namespace": namespace}
            counts = _expect(self._http.get("/stats", headers=headers), 200).json()["counts"]
            if set(counts.values()) != {n_listed}:
                raise Violation(f"{n_listed} are listed in {namespace}; the counts are {counts}")
        for memory in memories:
            self._check_namespace(memory)
        self._keys.check(self._http)
        self._check_searches(*self._shared.model.touched())
        newest = self._backups()[:1]
        for backup in newest:
            self._verify(backup["name"])
        if self._rng.random() < 0.3:
            self._snapshot()

    def _check_namespace(self, shown: dict[str, Any]) -> None:
        number = int(shown["source"].partition("/")[0].removeprefix("client"))
        if shown["namespace"] != NAMESPACES[number]:
            raise Violation(f"a memory has crossed into {shown['namespace']}: {shown}")

    def _list(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        query: dict[str, str | int] = {"limit": 100, "namespaces": "*"}
        while True:
            page = _expect(self._http.get("/memories", params=query), 200).json()
            found += page["memories"]
            if not page["next_cursor"]:
                return found
            query["cursor"] = page["next_cursor"]

    def _check_searches(self, living: list[Slot], dead: list[int]) -> None:
        living = self._rng.sample(living, min(len(living), 40))
        texts = [slot.version.text for slot in living if slot.version is not None]
        for by_meaning, score in ((True, "similarity"), (False, "bm25_score")):
            answers = self._search(searches_of([*texts, *dead], by_meaning=by_meaning))
            for slot, answer in zip(living, answers, strict=False):
                best = answer["results"][:1]
                if not best or best[0]["source"] != slot.source or best[0][score] <= 0:
                    raise Violation(f"{slot.source} is not found by {score}: {best}")
                if by_meaning and best[0][score] < _LEAST_SIMILARITY:
                    raise Violation(f"{slot.source} has another vector: {best}")
            for number, answer in zip(dead, answers[len(living) :], strict=True):
                for hit in answer["results"]:
                    if by_meaning and hit[score] > _LEAST_SIMILARITY:
                        raise Violation(f"text {number} is gone, but its vector is not: {hit}")
                    if not by_meaning and hit[score] > 0:
                        raise Violation(f"text {number} is gone, but its word is not: {hit}")

    def _search(self, searches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        for start in range(0, len(searches), 100):
            body = {"queries": searches[start : start + 100]}
            answers += _expect(self._http.post("/search/batch", json=body), 200).json()["results"]
        return answers

    def _verify(self, name: str) -> None:
        answer = _expect(self._http.post("/backup/verify", json={"backup_name": name}), 200)
        if answer.json()["problems"]:
            raise Violation(f"a listed backup is broken: {answer.json()}")
        self.counts["backups verified"] += 1

    def verify_all_backups(self) -> None:
        """Every backup that is listed can be restored."""
        self._wait_for_automatic_backup()
        for backup in self._backups():
            self._verify(backup["name"])

    def _wait_for_automatic_backup(self) -> None:
        """Until no further one is due, which would remove the oldest that is listed."""
        before, now = None, self._backups()
        while now != before:
            time.sleep(2)
            before, now = now, self._backups()

    def _backups(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._http.get("/backups").json()["backups"]
        return found

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with suppress(httpx.TransportError):
                if self._http.get("/health/ready").status_code == 200:
                    return
            if time.monotonic() > deadline:
                raise Violation(f"the service did not come back: {self._service.log()}")
            time.sleep(0.05)

    def summary(self) -> dict[str, Any]:
        """What happened, for machines."""
        medians = {
            f"median {name} s, {victim}": round(statistics.median(seconds), 1)
            for name, by_victim in (("round", self.round_s), ("back after", self.back_after_s))
            for victim, seconds in by_victim.items()
        }
        return {
            "seed": self._shared.seed,
            "acknowledged": self._n_acknowledged(),
            "acknowledged changes of keys": self._keys.n_acknowledged,
            "revoked keys": len(self._keys.revoked),
            **dict(sorted(self.counts.items())),
            "answers": dict(sorted(self._shared.outcomes.items())),
            **medians,
        }


def _expect(answer: httpx.Response, *statuses: int) -> httpx.Response:
    if answer.status_code not in statuses:
        raise Violation(f"{answer.request.url}: {answer.status_code} {answer.text[:300]}")
    return answer


def _raise_early(running: list[Future[None]]) -> None:
    for future in running:
        if future.done():
            future.result()


@contextmanager
def kill_loop(directory: Path, seed: int) -> Iterator[KillLoop]:
    """A started service with a loop around it."""
    with running_service(directory, env=SETTINGS) as service:
        yield KillLoop(service, seed)


def main(
    rounds: int = 200,
    seed: Annotated[int, typer.Option(help="0: a new one.")] = 0,
    service_share: Annotated[
        float, typer.Option(help="Rounds that kill every process, of 1.", min=0, max=1)
    ] = 0.25,
) -> None:
    """Run the loop; ends with status 1 at the first broken promise and keeps the directory."""
    seed = seed or random.SystemRandom().randrange(1, 10**6)
    directory = Path(tempfile.mkdtemp(prefix="kill_loop_"))
    print(f"seed {seed}, data in {directory}", file=sys.stderr)
    started_s = time.monotonic()
    n_done = 0
    with kill_loop(directory, seed) as loop:
        try:
            for n_done, (victim, moment) in enumerate(_plan(rounds, service_share), 1):
                line = loop.run_round(victim, moment)
                print(f"round {n_done}/{rounds}: {line}", file=sys.stderr, flush=True)
            loop.verify_all_backups()
            broken = None
        except (Violation, pytest.fail.Exception, httpx.HTTPError) as exc:
            broken = f"{type(exc).__name__}: {exc}"
            print(f"round {n_done}: {broken}", file=sys.stderr)
        summary = loop.summary()
    seconds = round(time.monotonic() - started_s)
    print(json.dumps({"rounds": n_done, "broken": broken, "seconds": seconds, **summary}, indent=1))
    raise typer.Exit(broken is not None)


def _plan(rounds: int, service_share: float) -> list[tuple[Victim, Moment]]:
    """Whole-service rounds spread evenly; each victim meets the moments in turn."""
    turns = {victim: itertools.cycle(MOMENTS) for victim in get_args(Victim)}
    plan: list[tuple[Victim, Moment]] = []
    for n in range(rounds):
        whole = int((n + 1) * service_share) > int(n * service_share)
        victim: Victim = "service" if whole else "index"
        plan.append((victim, next(turns[victim])))
    return plan


if __name__ == "__main__":
    typer.run(main)
