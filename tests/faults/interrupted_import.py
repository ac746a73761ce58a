"""Interrupt `faiss-memory import` at random moments, and see that what it leaves is the same.

    python -m tests.faults.interrupted_import --lines 20000 --interruptions 10 --seed 7

The command sends a file to a real service through a proxy. At random bytes of the conversation
the client, a part of the service or all of it is killed with SIGKILL, or every connection is
reset; then the same command is run again, until it is through. What the service holds and what
the last run reports must be what an import without interruptions leaves in another service.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import httpx
import numpy as np
import pytest
import typer

from tests import ROOT
from tests.faults.cutting_proxy import CuttingProxy, Direction, cutting_proxy
from tests.faults.import_file import ImportFile
from tests.support.service import Service, running_service

Interruption = Literal["client", "index", "service", "network", "ingress", "embedder"]
INTERRUPTIONS: tuple[Interruption, ...] = get_args(Interruption)
SETTINGS = {"LOG_LEVEL": "warning"}

Memory = dict[str, Any]

_PATIENCE_S = 300
_ANSWER_BYTES_A_LINE = 50
_LONGEST_CUT_S = 3.0
_MOST_DIFFERENCE = 1e-5
"""Of a vector's numbers: the model rounds otherwise beside other texts."""
_NOW = "2026"
"""Times from here on are the import's own: the file's are older."""


class Violation(Exception):
    """An interrupted import is not what an uninterrupted one is."""


class ImportCommand:
    """`faiss-memory import` of one file, as often as it takes."""

    def __init__(self, file: Path, port: int, directory: Path) -> None:
        self._arguments = [sys.executable, "-m", "scripts.cli.app", "import", str(file), "--json"]
        self._environment = {
            **{name: value for name, value in os.environ.items() if name != "FAISS_API_KEY"},
            "FAISS_URL": f"http://127.0.0.1:{port}",
            "XDG_STATE_HOME": str(directory / "state"),
        }
        self._output = directory / "import.out"
        self._process: subprocess.Popen[bytes] | None = None
        self.ends: Counter[str] = Counter()
        """How its runs ended."""

    def run(self) -> None:
        """Start it, unless it is running."""
        if self._process is None:
            with self._output.open("wb") as output:
                self._process = subprocess.Popen(
                    self._arguments, cwd=ROOT, env=self._environment, stdout=output, stderr=output
                )

    def has_ended(self) -> bool:
        """Whether it is through; otherwise it is run again when it has stopped."""
        assert self._process is not None, "not started"
        status = self._process.poll()
        if status is None:
            return False
        self._process = None
        self.ends[f"ended with {status}"] += 1
        if self.report() is not None:
            return True
        if status not in (3, -signal.SIGKILL):
            raise Violation(f"the command ended with {status}: {self._output.read_text()[-2000:]}")
        self.run()
        return False

    def kill(self) -> None:
        """SIGKILL; it may have ended just before."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def report(self) -> dict[str, Any] | None:
        """What the last run said at its end; None when it did not get there."""
        for line in self._output.read_text().splitlines()[-2:]:
            with suppress(ValueError):
                event: dict[str, Any] = json.loads(line)
                if event["type"] == "summary":
                    return event
        return None


class InterruptedImport:
    """One import into one service, and what happens to it."""

    def __init__(self, service: Service, proxy: CuttingProxy, file: Path, seed: int) -> None:
        self.command = ImportCommand(file, proxy.port, file.parent)
        self.counts: Counter[str] = Counter()
        self._service = service
        self._proxy = proxy
        self._random = random.Random(seed)
        self._n_bytes = file.stat().st_size
        self._n_lines = file.read_bytes().count(b"\n")

    def run(self, interruptions: Sequence[Interruption]) -> dict[str, Any]:
        """Import, interrupted each time after some share of the file; returns the report."""
        share = 1 / (len(interruptions) + 1)
        passed = self._arm(interruptions[0], share) if interruptions else None
        self.command.run()
        for what, then in itertools.zip_longest(interruptions, interruptions[1:]):
            assert passed is not None, "armed for each"
            self._wait_for(passed)
            self._begin(what)
            # Before anything goes on: it might be through before it can be interrupted again.
            passed = self._arm(then, share) if then else None
            self._end(what)
        deadline_s = time.monotonic() + _PATIENCE_S
        while not self.command.has_ended():
            if time.monotonic() > deadline_s:
                raise Violation("the command never ends")
            time.sleep(0.05)
        report = self.command.report()
        assert report is not None, "it has ended"
        return report

    def _arm(self, what: Interruption, most: float) -> threading.Event:
        """Let something be struck after at most this share of the whole conversation."""
        n_sent, n_answered = most * self._n_bytes, most * self._n_lines * _ANSWER_BYTES_A_LINE
        share = self._random.uniform(0.3, 1)
        n_bytes: dict[Direction, int] = {"to client": 1 + int(share * n_answered)}
        if self._random.random() < 0.5:
            # What is sent may be all in the service's buffers already: the answers count, too.
            n_bytes = {"to service": 1 + int(share * n_sent), "to client": 1 + int(n_answered)}
        print(f"{what} after {n_bytes}", file=sys.stderr, flush=True)
        return self._proxy.arm(n_bytes, cuts=what == "network")

    def _begin(self, what: Interruption) -> None:
        self.counts[what] += 1
        if what == "client":
            self.command.kill()
        elif what == "service":
            pids = [process.pid for process in self._service.processes()]
            self._random.shuffle(pids)
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        elif what != "network":
            self._service.kill(what.capitalize())

    def _end(self, what: Interruption) -> None:
        if what == "network":
            time.sleep(self._random.uniform(0, _LONGEST_CUT_S))
        self._proxy.go_on()
        if what == "service":
            self._service.exited_within(30)
            self._service.start()

    def _wait_for(self, passed: threading.Event) -> None:
        deadline_s = time.monotonic() + _PATIENCE_S
        while not passed.wait(0.01):
            if self.command.has_ended():
                raise Violation("it was through before it could be interrupted")
            if time.monotonic() > deadline_s:
                raise Violation(f"nothing goes on: {self._service.log()}")


def exported(service: Service) -> list[Memory]:
    """Everything, in order, without what may differ between two imports: ids and times of now."""
    answer = httpx.get(
        f"{service.base_url}/export",
        params={"embeddings": True},
        timeout=_PATIENCE_S,
        trust_env=False,
    )
    header, *memories, footer = [json.loads(line) for line in answer.text.splitlines()]
    if (header["type"], footer) != ("header", {"type": "footer", "count": len(memories)}):
        raise Violation("the export is not whole")
    for memory in memories:
        del memory["id"]
        for name in ("timestamp", "updated_at"):
            if memory[name] >= _NOW:
                memory[name] = "now"
    return memories


def compare(found: list[Memory], expected: list[Memory]) -> float:
    """Returns the largest difference of two vectors' numbers. Raises `Violation`."""
    vectors = [[_vector(memory.pop("embedding")) for memory in each] for each in (found, expected)]
    for number, (one, other) in enumerate(itertools.zip_longest(found, expected)):
        if one != other:
            raise Violation(
                f"memory {number} (of {len(found)} and {len(expected)}) is {one}, expected {other}"
            )
    difference = float(np.abs(np.array(vectors[0]) - np.array(vectors[1])).max())
    if difference > _MOST_DIFFERENCE:
        raise Violation(f"vectors differ by {difference}")
    return difference


def _vector(embedding: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.frombuffer(base64.b64decode(embedding), "<f4")


def interrupted(
    service: Service, file: Path, interruptions: Sequence[Interruption], seed: int
) -> tuple[list[Memory], dict[str, Any], dict[str, int]]:
    """Import a file into an empty service; returns its memories, the last report and counts."""
    with cutting_proxy(service.port) as proxy:
        run = InterruptedImport(service, proxy, file, seed)
        try:
            report = run.run(interruptions)
        finally:
            run.command.kill()
    return exported(service), report, dict(run.counts + run.command.ends)


def main(
    lines: int = 20_000,
    interruptions: int = 10,
    seed: Annotated[int, typer.Option(help="0: a new one.")] = 0,
) -> None:
    """Compare an interrupted import with another; ends with 1 when they differ."""
    seed = seed or random.SystemRandom().randrange(1, 10**6)
    directory = Path(tempfile.mkdtemp(prefix="interrupted_import_"))
    print(f"seed {seed}, data in {directory}", file=sys.stderr)
    summary: dict[str, Any] = {"lines": lines, "seed": seed, "broken": None}
    kinds = list(itertools.islice(itertools.cycle(INTERRUPTIONS), interruptions))
    results = []
    try:
        for name, chosen in (("plain", []), ("interrupted", kinds)):
            (directory / name).mkdir()
            file = directory / name / "memories.jsonl"
            ImportFile(seed).write(file, lines)
            started_s = time.monotonic()
            with running_service(directory / name, env=SETTINGS) as service:
                memories, report, counts = interrupted(service, file, chosen, seed)
            results.append((memories, report))
            summary[name] = {**report, **counts, "seconds": round(time.monotonic() - started_s)}
        (expected, plain_report), (found, report) = results
        summary["memories"] = len(expected)
        if report != plain_report:
            raise Violation(f"reported are {report}, expected {plain_report}")
        summary["vectors differ by"] = compare(found, expected)
    except (Violation, pytest.fail.Exception, httpx.HTTPError) as exc:
        summary["broken"] = f"{type(exc).__name__}: {exc}"
    print(json.dumps(summary, indent=1))
    raise typer.Exit(summary["broken"] is not None)


if __name__ == "__main__":
    typer.run(main)
