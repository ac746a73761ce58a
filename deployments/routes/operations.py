"""What operators ask: health, stats, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, Literal, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from deployments.calls.operations import Report
from deployments.calls.part_reports import own_report
from deployments.http.callers import caller_of, known_caller, within
from deployments.http.json_route import json_response, json_router
from deployments.http.needs import OPEN, READ, READ_ALL, needs
from deployments.http.openapi import problems
from deployments.http.request_trace import trace_of
from deployments.http.services import Services, services_of
from engine.errors import EngineError, NotReadyError, OverloadedError
from engine.operations.reads import NamespaceStats
from engine.operations.whole import Count, Problem, Stats
from wire.answers import HealthAnswer, StatsAnswer, StatusAnswer

T = TypeVar("T")

router = json_router(tag="operations")

_RETRY = {"Retry-After": "2"}
_OF_ALL: Final[tuple[Literal["backup_error", "store_bytes", "lsn", "pending_writes"], ...]] = (
    "backup_error",
    "store_bytes",
    "lsn",
    "pending_writes",
)
"""What `/stats` says of the whole store."""


async def _in_time(services: Services, answer: Awaitable[T]) -> T | None:
    """An answer for a probe or a scrape; None when it does not come in time."""
    try:
        return await asyncio.wait_for(answer, services.settings.health_timeout_s)
    except (EngineError, asyncio.TimeoutError):
        return None


async def _count(services: Services) -> tuple[int | None, str | None]:
    """How many memories there are; or None, and what the index says that it waits for."""
    try:
        services.last_count.value = await asyncio.wait_for(
            services.index.ask(Count()), services.settings.health_timeout_s
        )
    except OverloadedError:
        pass  # busy is healthy: what it last said will do
    except NotReadyError as exc:
        return None, str(exc)
    except (EngineError, asyncio.TimeoutError):
        return None, None
    return services.last_count.value, None


@router.get(
    "/health",
    operation_id="getHealth",
    response_model=HealthAnswer,
    responses={**problems(), 503: {"model": HealthAnswer, "description": "Starting"}},
)
@needs(OPEN)
async def health(request: Request) -> Response:
    """Tell whether the service answers, and how much it remembers."""
    services = services_of(request)
    total, _ = await _count(services)
    settings = services.settings
    shown: HealthAnswer = {
        "status": "starting" if total is None else "ok",
        "service": "faiss-memory",
        "version": settings.version,
        "total_memories": total,
        "dimension": settings.dim,
        "model": settings.model_name,
    }
    if total is None:
        return json_response(shown, status=503, headers=_RETRY)
    return json_response(shown)


@router.get(
    "/health/live",
    operation_id="getLiveness",
    response_model=StatusAnswer,
    responses=problems(),
)
@needs(OPEN)
async def live() -> Response:
    """Tell that this process answers."""
    return json_response(StatusAnswer(status="ok"))


@router.get(
    "/health/ready",
    operation_id="getReadiness",
    response_model=StatusAnswer,
    responses={**problems(), 503: {"model": StatusAnswer, "description": "Starting"}},
)
@needs(OPEN)
async def ready(request: Request) -> Response:
    """Tell whether memories can be searched and stored."""
    services = services_of(request)
    embedding = await _in_time(services, services.embedder.embed_query("ready"))
    total, reason = await _count(services)
    if embedding is None or total is None:
        return _not_ready("starting", reason)
    if problem := await _problem(services):
        # It names paths: whoever has no key for everything learns that there is one.
        caller = known_caller(request.scope)
        may_know = caller is not None and caller.key.is_of_all
        return _not_ready("failing", problem if may_know else "see the service's log")
    return json_response(StatusAnswer(status="ready"))


async def _problem(services: Services) -> str | None:
    """What keeps memories from being stored, if something does."""
    try:
        return await asyncio.wait_for(
            services.index.ask(Problem()), services.settings.health_timeout_s
        )
    except OverloadedError:
        return None  # busy is healthy
    except EngineError as exc:
        return str(exc)
    except asyncio.TimeoutError:
        return "the index or its disk does not answer"


def _not_ready(status: str, reason: str | None) -> Response:
    return json_response(StatusAnswer(status=status, reason=reason), status=503, headers=_RETRY)


@router.get("/stats", operation_id="getStats", response_model=StatsAnswer, responses=problems())
@needs(READ)
async def stats(request: Request) -> Response:
    """Describe the store and its indexes."""
    services = services_of(request)
    with trace_of(request).stage("index"):
        state = await services.index.ask(NamespaceStats(within=within(request)))
    shown = StatsAnswer(
        total_memories=state.total_memories,
        dimension=state.model.dim,
        model=state.model.name,
        created_at=state.created_at,
        last_updated=state.last_updated,
        index_size_bytes=state.index_bytes,
        backup_count=state.backup_count,
        backup_error=state.backup_error,
        version=services.settings.version,
        precision=state.model.precision,
        vector_index=state.vector_index,
        store_bytes=state.store_bytes,
        lsn=state.lsn,
        index_rows=state.n_rows,
        index_terms=state.n_terms,
        pending_writes=state.pending_writes,
        workspace_dir=services.settings.workspace_dir,
        workspace_id=state.workspace_id,
        counts={
            "store": state.n_stored,
            "vectors": state.n_vectors,
            "keywords": state.n_documents,
        },
    )
    if not caller_of(request).key.is_of_all:
        for name in _OF_ALL:
            del shown[name]
    return json_response(shown)


@router.get(
    "/metrics",
    operation_id="getMetrics",
    response_class=Response,
    responses={
        **problems(),
        200: {
            "description": "Prometheus text",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
    },
)
@needs(READ_ALL)
async def metrics(request: Request) -> Response:
    """Answer this ingress replica's metrics, the index's and the embedders', to Prometheus."""
    services = services_of(request)
    stats, index, embedders = await asyncio.gather(
        _in_time(services, services.index.ask(Stats())),
        _in_time(services, services.index.ask(Report())),
        _in_time(services, services.embedder.reports()),
    )
    services.metrics.set_index(stats)
    services.metrics.set_parts(
        {
            "ingress": [own_report()],
            "index": [index] if index else [],
            "embedder": embedders or [],
        }
    )
    return Response(services.metrics.text(), media_type=CONTENT_TYPE_LATEST)
