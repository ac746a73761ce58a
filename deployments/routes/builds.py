"""Building memories from workspace files."""

from __future__ import annotations

import asyncio
import functools

from starlette.requests import Request
from starlette.responses import Response

from deployments.calls.patience import patiently
from deployments.http.callers import caller_of, within
from deployments.http.json_route import json_response, json_router
from deployments.http.needs import WRITE, needs
from deployments.http.openapi import problems
from deployments.http.request_trace import RequestTrace, WriteId, trace_of
from deployments.http.services import Services, services_of
from engine.operations.builds import (
    ApplyBuild,
    DropBuild,
    PlanBuild,
    PutEmbeddings,
    TextsOfBuild,
)
from engine.operations.operation import Within
from engine.workspace.planned_builds import PlannedBuild
from wire.answers import BuildAnswer
from wire.requests import BuildRequest

router = json_router(tag="builds")


async def _embed(
    services: Services, build: PlannedBuild, here: Within, trace: RequestTrace
) -> None:
    """Have all new texts of a build embedded, a page at a time."""
    n_embedded = 0
    while n_embedded < build.n_texts:
        texts = await services.index.ask(TextsOfBuild(build.build_id, n_embedded, within=here))
        embedded = await patiently(functools.partial(services.embed, texts, trace, is_long=True))
        await services.index.ask(
            PutEmbeddings(build.build_id, n_embedded, embedded.firsts, within=here)
        )
        n_embedded += len(texts)


@router.post(
    "/index/build",
    operation_id="buildIndex",
    response_model=BuildAnswer,
    responses=problems(507),
)
@needs(WRITE)
async def build_index(
    request: Request,
    write_id: WriteId,
    body: BuildRequest = BuildRequest(),  # noqa: B008 - immutable in use
) -> Response:
    """Read workspace files again: their old chunks go, unchanged ones keep their id."""
    services, trace, here = services_of(request), trace_of(request), within(request)
    with trace.stage("index"):
        build = await services.index.ask(PlanBuild(body.sources, body.replace_all, within=here))
    try:
        await _embed(services, build, here, trace)
        caller_of(request).check_still("write")  # it may have taken minutes
    except BaseException:  # the caller gone, too: a plan kept for nobody is a place less for others
        await asyncio.shield(services.index.ask(DropBuild(build.build_id, within=here)))
        raise
    with trace.stage("index"):
        report = await services.index.ask(
            ApplyBuild(build.build_id, request_id=write_id, within=here)
        )
    return json_response(
        BuildAnswer(
            success=True,
            files_processed=report.files_processed,
            memories_added=report.memories_added,
            backup_location=report.backup_location,
            message="Index rebuilt successfully",
            memories_removed=report.memories_removed,
            unchanged=report.unchanged,
            skipped=[{"path": file.path, "reason": file.reason} for file in report.skipped],
        )
    )
