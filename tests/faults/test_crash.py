from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.records import MemoryFilter
from tests.support.index_under_test import open_index, search

SEED = 20261122

# Writes without end, one line of acknowledgement after each. Two writers, so that commits are
# shared; low thresholds, so that switches, compactions and caches fall into the rounds too.
CHILD = """
import json, random, sys, threading
from pathlib import Path
from engine.records import MemoryId, MemoryPatch
from tests.support.fakes import embedding_of
from tests.support.index_under_test import add, fresh_request_id, open_index

directory, seed, round_ = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
index = open_index(directory, exact_below=50)
lock = threading.Lock()

def say(*what):
    with lock:
        print(json.dumps(what), flush=True)

def work(worker):
    rng = random.Random(f"{seed}-{round_}-{worker}")
    own = []
    for n in range(10**9):
        request = f"{round_}-{worker}-{n}"
        text = f"{rng.choice(['red', 'green', 'blue'])} round{round_} worker{worker} item{n}"
        chance = rng.random()
        if chance < 0.7 or not own:
            say("try", "put", request, text)
            ids = add(index, text, source=request)
            own += ids
            say("done", "put", request, text, ids[0])
        elif chance < 0.85:
            i = rng.choice(own)
            say("try", "update", i, text)
            index.update(MemoryId(i), MemoryPatch(text=text), embedding_of(text)[None],
                         request_id=request).result()
            say("done", "update", i, text)
        else:
            i = own.pop(rng.randrange(len(own)))
            say("try", "delete", i)
            index.delete([MemoryId(i)], request_id=request).result()
            say("done", "delete", i)
        if n % 40 == 39:
            index.backup("manual")

for worker in range(2):
    threading.Thread(target=work, args=(worker,)).start()
say("ready")
"""


@pytest.mark.parametrize("rounds", [4])
def test_every_acknowledged_write_survives_sigkill(tmp_path: Path, rounds: int) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    acknowledged: dict[int, str] = {}
    uncertain: dict[int, set[str | None]] = {}
    unacknowledged_texts: set[str] = set()
    for round_ in range(rounds):
        events = _run_and_kill(tmp_path, round_, after_events=rng.randrange(100, 500))
        _replay(events, acknowledged, uncertain, unacknowledged_texts)
        index = open_index(tmp_path, exact_below=50)
        page = index.list_memories(MemoryFilter(), offset=0, limit=100_000)
        stored = {int(memory.id): memory.text for memory in page.memories}
        for i, text in acknowledged.items():
            allowed = uncertain.get(i, set()) | {text}
            assert stored.get(i) in allowed, f"memory {i} is {stored.get(i)!r}, not {allowed}"
        unexpected = {text for i, text in stored.items() if i not in acknowledged}
        assert unexpected <= unacknowledged_texts
        assert index.count() == page.total == index.stats().n_rows == len(stored)
        found = {hit.memory.id for hit in search(index, "red", k=100, vector_weight=0.0)}
        assert found <= stored.keys()
        assert all("red" in stored[i] for i in found)
        for backup in index.backups():
            assert index.verify_backup(backup.name).problems == []
        index.close()
        acknowledged = dict(stored)
        uncertain.clear()


def _run_and_kill(directory: Path, round_: int, *, after_events: int) -> list[list[object]]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(directory), str(SEED), str(round_)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    lines = []
    for line in child.stdout:
        lines.append(line)
        if len(lines) == after_events:
            child.send_signal(signal.SIGKILL)
    child.wait()
    assert len(lines) >= after_events, "the child ended by itself"
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _replay(
    events: list[list[object]],
    acknowledged: dict[int, str],
    uncertain: dict[int, set[str | None]],
    unacknowledged_texts: set[str],
) -> None:
    """What must be there after the kill, and what may be."""
    for event in events:
        match event:
            case ["try", "put", _, str(text)]:
                unacknowledged_texts.add(text)
            case ["done", "put", _, str(text), int(i)]:
                unacknowledged_texts.discard(text)
                acknowledged[i] = text
            case ["try", "update", int(i), str(text)]:
                uncertain[i] = {text}
            case ["done", "update", int(i), str(text)]:
                uncertain.pop(i)
                acknowledged[i] = text
            case ["try", "delete", int(i)]:
                uncertain[i] = {None}
            case ["done", "delete", int(i)]:
                uncertain.pop(i)
                del acknowledged[i]
