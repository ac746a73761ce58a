"""Work on a data directory whose file operations are watched, and made to fail, by a shim.

Runs in a process of its own, with `file_faults.c` preloaded:

    record DIRECTORY LOG        do the work once, and log every change to the files
    fail DIRECTORY ERRNO MODE STRIDE OFFSET
                                let the n-th change fail, for n = OFFSET, OFFSET + STRIDE, …, until
                                the work completes; check after each what is left
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.memory_index import MemoryIndex
from engine.records import MemoryFilter, MemoryId
from tests.support.index_under_test import add, fresh_request_id, open_index

OPTIONS: dict[str, Any] = {"max_backups": 0, "deltas_share": 100.0, "merge_below_bytes": 0}
ACKNOWLEDGED_NAME = "acks"

State = dict[str, list[str]]
"""What must be there: the texts stored, and the names of backups."""


def texts_in(index: MemoryIndex) -> list[str]:
    page = index.list_memories(MemoryFilter(), offset=0, limit=100)
    return [memory.text for memory in page.memories]


def work(directory: Path, acknowledge: Callable[[State], None], attempt: Callable[[State], None]):  # type: ignore[no-untyped-def] # noqa: ANN201
    """Add, back up, delete, restore, reopen; `attempt` says what each step may lead to."""
    state: State = {"texts": [], "backups": []}

    def step(do: Callable[[], Any], texts: list[str]) -> Any:
        nonlocal state
        attempt({"texts": texts, "backups": state["backups"]})
        result = do()
        state = {"texts": texts, "backups": [b.name for b in index.backups()]}
        acknowledge(state)
        return result

    index = open_index(directory, **OPTIONS)
    try:
        step(lambda: add(index, "text 1", "text 2", metadata={"n": 1}), ["text 1", "text 2"])
        first = step(lambda: index.backup("manual"), ["text 1", "text 2"])
        step(lambda: add(index, "text 3"), ["text 1", "text 2", "text 3"])
        step(
            lambda: index.delete([MemoryId(1)], request_id=fresh_request_id()).result(),
            ["text 2", "text 3"],
        )
        step(lambda: index.backup("manual"), ["text 2", "text 3"])
        step(lambda: index.restore(first.name).result(), ["text 1", "text 2"])
        index.verify_backup(first.name)
        step(lambda: add(index, "text 4"), ["text 1", "text 2", "text 4"])
    finally:
        index.close()
    index = open_index(directory, **OPTIONS)
    try:
        step(lambda: add(index, "text 5"), ["text 1", "text 2", "text 4", "text 5"])
        step(lambda: index.backup("manual"), ["text 1", "text 2", "text 4", "text 5"])
    finally:
        index.close()


def check(directory: Path, allowed: list[list[str]], backups: list[str], where: str) -> None:
    """What is left is one of the allowed states, can be searched, and every backup is sound."""
    index = open_index(directory, **OPTIONS)
    try:
        texts = texts_in(index)
        assert texts in allowed, f"{where}: {texts} is stored, not one of {allowed}"
        assert index.count() == len(texts), where
        listed = [backup.name for backup in index.backups()]
        assert set(backups) <= set(listed), f"{where}: {backups} were made, {listed} are listed"
        for name in listed:
            problems = index.verify_backup(name).problems
            assert not problems, f"{where}: {name}: {problems}"
        add(index, "afterwards")
        assert [*texts, "afterwards"] == texts_in(index), where
    finally:
        index.close()


def record(directory: Path, log: Path) -> None:
    shim = ctypes.CDLL(None)
    directory.mkdir()
    shim.faults_arm(str(directory).encode(), str(log).encode(), 0, 0, 0)

    def acknowledge(state: State) -> None:
        fd = os.open(directory / ACKNOWLEDGED_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, json.dumps(state).encode() + b"\n")
        os.close(fd)

    work(directory, acknowledge, lambda _: None)
    shim.faults_disarm()


def fail(directory: Path, code: int, mode: int, stride: int, offset: int) -> None:
    shim = ctypes.CDLL(None)
    n = offset
    while True:
        target = directory / str(n)
        target.mkdir(parents=True)
        acknowledged: list[State] = [{"texts": [], "backups": []}]
        in_doubt: list[State] = []
        shim.faults_arm(str(target).encode(), b"", n, code, mode)
        with contextlib.suppress(EngineError, OSError):
            work(target, acknowledged.append, in_doubt.append)
        n_changes = shim.faults_disarm()
        allowed = [acknowledged[-1]["texts"], *(state["texts"] for state in in_doubt[-1:])]
        check(target, allowed, acknowledged[-1]["backups"], f"change {n}")
        shutil.rmtree(target)
        if n_changes < n:
            print(n_changes)
            return
        n += stride


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    command, where, *rest = sys.argv[1:]
    if command == "record":
        record(Path(where), Path(rest[0]))
    else:
        fail(Path(where), *map(int, rest))
