"""What thousands of requests leave in the memory of the running service: nothing."""

from __future__ import annotations

import random
from typing import Any

import httpx
import psutil
import pytest

from tests.support.service import Service

pytestmark = [pytest.mark.service, pytest.mark.timeout(1200)]

N_MEMORIES = 400
N_BEFORE = 2_500
"""Until the cache of the embedder is full, which keeps the last 2,048 queries."""
N_REQUESTS = 3_000
GROWTH_BYTES = 16 << 20
WORDS = [f"word{n}" for n in range(5_000)]


def held_bytes(service: Service) -> dict[str, int]:
    """What each part holds for itself, without what it shares with others."""
    return {
        part: sum(psutil.Process(pid).memory_full_info().uss for pid in service.replica_pids(part))
        for part in ("Ingress", "Embedder", "Index")
    }


def ask(http: httpx.Client, rng: random.Random) -> None:
    """One of the reads that clients make, with other words each time."""
    said = " ".join(rng.choices(WORDS, k=rng.randint(1, 12)))
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/search", {"query": said, "k": rng.choice([1, 5, 100])}),
        ("POST", "/search", {"query": said, "hybrid": False, "source_prefix": "flat"}),
        ("POST", "/search", {"query": said, "since": "7d", "metadata": {"n": rng.randrange(9)}}),
        ("POST", "/search/batch", {"queries": [{"query": said}, {"query": said[::-1]}]}),
        ("POST", "/memory/is-novel", {"text": said}),
        ("GET", f"/memories?limit=100&offset={rng.randrange(N_MEMORIES)}", {}),
        ("GET", rng.choice(["/stats", "/health/ready", "/metrics"]), {}),
    ]
    method, path, body = rng.choices(requests, weights=[10, 2, 2, 2, 2, 1, 1])[0]
    answer = http.request(method, path, json=body or None)
    assert answer.status_code == 200, answer.text


def test_thousands_of_searches_leave_memory_as_it_was(shared_service: Service) -> None:
    rng = random.Random(7)
    with httpx.Client(base_url=shared_service.base_url, timeout=120, trust_env=False) as http:
        memories = [
            {"text": " ".join(rng.choices(WORDS, k=20)), "source": "flat", "metadata": {"n": n % 9}}
            for n in range(N_MEMORIES)
        ]
        added = http.post("/memory/add-batch", json={"memories": memories, "deduplicate": False})
        assert added.json()["count"] == N_MEMORIES
        for _ in range(N_BEFORE):
            ask(http, rng)
        before = held_bytes(shared_service)
        for _ in range(N_REQUESTS):
            ask(http, rng)
        after = held_bytes(shared_service)
        http.post("/memory/delete-by-source", json={"source_pattern": "flat"})
    print("\nheld, in bytes:", before, after)
    assert {
        part: n - before[part] for part, n in after.items() if n > before[part] + GROWTH_BYTES
    } == {}
