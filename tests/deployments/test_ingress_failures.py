"""What callers and operators see when something behind the ingress fails, and when nothing does."""

from __future__ import annotations

import asyncio

import pytest
import structlog
from structlog.typing import EventDict

from deployments.calls.operations import Report
from deployments.calls.part_reports import PartReport
from engine.errors import (
    BackupError,
    BackupNotFoundError,
    EngineError,
    InvalidInputError,
    MemoryNotFoundError,
    ModelMismatchError,
    NotReadyError,
    OverloadedError,
    PathNotAllowedError,
    StoreCorruptError,
    StoreFullError,
    StoreMovedError,
    TooLargeError,
    UnavailableError,
)
from engine.operations.whole import Count
from tests.support.ingress_under_test import Ingress, make_ingress


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (InvalidInputError("no"), 400, "no"),
        (PathNotAllowedError("/x"), 400, "'/x' is outside the workspace directory"),
        (MemoryNotFoundError(9), 404, "Memory ID 9 not found"),
        (BackupNotFoundError("x"), 404, "Backup 'x' not found"),
        (OverloadedError("busy"), 429, "busy"),
        (NotReadyError("starting"), 503, "starting"),
        (StoreFullError("disk full"), 507, str(StoreFullError("disk full"))),
        (UnavailableError("no such directory"), 503, "no such directory"),
        (StoreMovedError("memories.db"), 503, str(StoreMovedError("memories.db"))),
        (TooLargeError("too large"), 502, "too large"),
    ],
)
def test_an_engine_error_has_its_status(error: EngineError, status: int, detail: str) -> None:
    ingress = make_ingress()
    ingress.index.fails = error

    answer = ingress.http.post("/search", json={"query": "alpha"})

    assert (answer.status_code, answer.json()) == (status, {"detail": detail})
    assert ("retry-after" in answer.headers) == (status in {429, 502, 503, 507})


@pytest.mark.parametrize(
    "error",
    [
        StoreCorruptError("memories.db", "row 7"),
        ModelMismatchError("fp32"),
        BackupError("x"),
        RuntimeError("quotes a private memory"),
        KeyError("quotes a private memory"),
    ],
)
def test_an_internal_error_tells_the_caller_nothing_but_its_id(error: Exception) -> None:
    ingress = make_ingress()
    ingress.index.fails = error

    with structlog.testing.capture_logs() as logs:
        answer = ingress.http.post("/search", json={"query": "alpha"})

    request_id = answer.headers["x-request-id"]
    assert answer.status_code == 500
    assert answer.json() == {"detail": "Internal error", "request_id": request_id}
    [failure] = [line for line in logs if line["event"] == "request_failed"]
    assert failure["request_id"] == request_id
    assert failure["error"] == type(error).__name__
    assert any("fake_index.py" in frame for frame in failure["frames"])
    assert "private" not in str(logs)


def test_restoring_a_broken_backup_is_a_conflict_that_says_what_is_wrong() -> None:
    ingress = make_ingress()
    ingress.index.fails = BackupError("manual_1: memories.db does not match its hash")

    answer = ingress.http.post("/restore", json={"backup_name": "manual_1"})

    assert answer.status_code == 409
    assert "does not match" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
def test_health_says_starting_while_the_index_is_not_ready(path: str) -> None:
    ingress = make_ingress()
    ingress.index.fails = NotReadyError("loading")

    answer = ingress.http.get(path)

    assert answer.status_code == 503
    assert answer.json()["status"] == "starting"
    assert answer.headers["retry-after"]
    assert ingress.http.get("/health/live").status_code == 200


def test_ready_says_what_keeps_memories_from_being_stored() -> None:
    ingress = make_ingress()
    ingress.index.trouble = "no space left"

    answer = ingress.http.get("/health/ready")

    assert answer.status_code == 503
    assert answer.json() == {"status": "failing", "reason": "no space left"}
    assert ingress.http.get("/health").json()["status"] == "ok"


def test_health_does_not_wait_for_an_index_that_hangs() -> None:
    ingress = make_ingress(health_timeout_s=0.01)

    async def hang(_: Count) -> int:
        await asyncio.Event().wait()
        return 0

    ingress.index.answers[Count] = hang
    assert ingress.http.get("/health").status_code == 503


def test_an_overloaded_index_is_healthy() -> None:
    ingress = make_ingress()
    ingress.add("alpha")
    assert ingress.http.get("/health").json()["total_memories"] == 1
    ingress.index.fails = OverloadedError("queue full")

    answer = ingress.http.get("/health")

    assert answer.status_code == 200
    assert answer.json()["total_memories"] == 1


def _search_log(ingress: Ingress) -> EventDict:
    with structlog.testing.capture_logs() as logs:
        ingress.http.post(
            "/search",
            json={"query": "private words", "source": "private.md", "k": 7},
            headers={"X-Request-ID": "abc-1", "X-API-Key": "private"},
        )
    [line] = logs
    assert isinstance(line, dict)
    return line


def test_each_request_leaves_one_line_without_anything_private() -> None:
    ingress = make_ingress(api_key="private")
    line = _search_log(ingress)

    assert {key: line[key] for key in line if not key.endswith("_ms")} == {
        "event": "request",
        "log_level": "info",
        "request_id": "abc-1",
        "route": "/search",
        "method": "POST",
        "status": 200,
        "k": 7,
        "n_hits": 0,
        "key": "root",
        "namespace": "default",
    }
    assert {key for key in line if key.endswith("_ms")} == {"embed_ms", "search_ms", "total_ms"}
    assert "private" not in str(line)


def test_a_request_that_matches_no_route_is_logged_with_its_path() -> None:
    http = make_ingress().http
    with structlog.testing.capture_logs() as logs:
        http.get("/nowhere/a%20b%1b?key=private")
    assert [line["path"] for line in logs] == ["/nowhere/a%20b%1B"]


def test_a_request_id_that_could_forge_a_log_line_is_replaced() -> None:
    http = make_ingress().http
    answer = http.get("/stats", headers={"X-Request-ID": 'x" event="y'})
    assert answer.headers["x-request-id"].isalnum()
    assert (
        http.get("/stats", headers={"X-Request-ID": "mine.1"}).headers["x-request-id"] == "mine.1"
    )


async def report(_: Report) -> PartReport:
    return PartReport(replica="i1", cpu_s=2.5, resident_bytes=2**21)


def test_metrics_count_requests_by_route_and_status_and_time_their_stages() -> None:
    ingress = make_ingress(replica="r1")
    ingress.index.answers[Report] = report
    ingress.add("alpha")
    ingress.http.post("/search", json={"query": "alpha"})
    ingress.http.post("/search", json={})
    ingress.http.get("/memory/1")
    ingress.http.get("/nowhere/42")

    answer = ingress.http.get("/metrics")
    text = answer.text

    assert answer.headers["content-type"].startswith("text/plain")
    for line in (
        'faiss_memory_requests_total{method="POST",replica="r1",route="/search",status="200"} 1.0',
        'faiss_memory_requests_total{method="POST",replica="r1",route="/search",status="422"} 1.0',
        'faiss_memory_requests_total{method="GET",replica="r1",route="/memory/{memory_id}",'
        'status="200"} 1.0',
        'faiss_memory_requests_total{method="GET",replica="r1",route="unmatched",status="404"} 1.0',
        'faiss_memory_request_seconds_count{replica="r1",route="/search",stage="embed"} 1.0',
        'faiss_memory_request_seconds_count{replica="r1",route="/search",stage="index"} 1.0',
        'faiss_memory_request_seconds_count{replica="r1",route="/search",stage="total"} 2.0',
        'faiss_memory_memories{replica="r1"} 1.0',
        'faiss_memory_embedder_batches_total{replica="e1"} 0.0',
        "# TYPE faiss_memory_embedder_batches_total counter",
        'faiss_memory_embedder_queue_depth{replica="e2"} 0.0',
        'faiss_memory_process_cpu_seconds_total{part="index",replica="i1"} 2.5',
        'faiss_memory_process_resident_memory_bytes{part="embedder",replica="e2"} 1.048576e+06',
        'faiss_memory_requests_in_flight{replica="r1"} 1.0',
        'faiss_memory_index_up{replica="r1"} 1.0',
        'faiss_memory_build_info{model="all-MiniLM-L6-v2",replica="r1",version="1.2.3"} 1.0',
    ):
        assert line in text
    ingress.index.fails = NotReadyError("loading")
    assert 'faiss_memory_index_up{replica="r1"} 0.0' in ingress.http.get("/metrics").text
