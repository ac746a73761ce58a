"""A few interruptions; `python -m tests.faults.interrupted_import` makes as many as you like."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.faults.import_file import ImportFile
from tests.faults.interrupted_import import SETTINGS, Interruption, compare, interrupted
from tests.support.service import Service, running_service

SEED = 20261123
N_LINES = 2_500
KINDS: list[Interruption] = ["client", "service", "network"]
PATIENCE_S = 120


@pytest.mark.service
@pytest.mark.timeout(1200)
def test_an_interrupted_import_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    file = tmp_path / "memories.jsonl"
    ImportFile(SEED).write(file, N_LINES)
    with running_service(tmp_path, env=SETTINGS) as service:
        found, report, counts = interrupted(service, file, KINDS, SEED)
        forget_everything(service)
        expected, plain_report, _ = interrupted(service, file, [], SEED)

    assert all(counts[kind] == 1 for kind in KINDS)
    assert report == plain_report
    assert {"added", "duplicates", "updated", "errors"} <= {k for k, n in report.items() if n}
    compare(found, expected)


def forget_everything(service: Service) -> None:
    for source in ("notes/", "people", "twin"):
        httpx.post(
            f"{service.base_url}/memory/delete-by-source",
            json={"source_pattern": source},
            timeout=PATIENCE_S,
            trust_env=False,
        ).raise_for_status()
    stats = httpx.get(f"{service.base_url}/stats", timeout=PATIENCE_S, trust_env=False).json()
    assert stats["total_memories"] == 0
