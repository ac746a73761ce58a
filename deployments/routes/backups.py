"""Listing, making, verifying and restoring backups."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from deployments import rendering
from deployments.http.errors import detail_response
from deployments.http.json_route import json_response, json_router
from deployments.http.needs import ADMIN_ALL, needs
from deployments.http.openapi import problems
from deployments.http.request_trace import WriteId, trace_of
from deployments.http.services import services_of
from engine.errors import BackupError
from engine.operations.whole import CreateBackup, ListBackups, RestoreBackup, VerifyBackup
from wire import limits
from wire.answers import (
    BackupAnswer,
    BackupsAnswer,
    RestoreAnswer,
    VerifyAnswer,
)
from wire.requests import BackupNameRequest

router = json_router(tag="backups")


@router.get(
    "/backups", operation_id="listBackups", response_model=BackupsAnswer, responses=problems()
)
@needs(ADMIN_ALL)
async def list_backups(request: Request) -> Response:
    """List the backups that can be restored, newest first."""
    with trace_of(request).stage("index"):
        summaries = await services_of(request).index.ask(ListBackups())
    shown = [rendering.backup(summary) for summary in summaries]
    return json_response(BackupsAnswer(backups=shown, count=len(shown)))


@router.post(
    "/backup", operation_id="createBackup", response_model=BackupAnswer, responses=problems(507)
)
@needs(ADMIN_ALL)
async def create_backup(
    request: Request,
    prefix: Annotated[
        str, Query(max_length=limits.BACKUP_PREFIX_CHARS, description="Start of the name.")
    ] = "manual",
) -> Response:
    """Make a backup now."""
    with trace_of(request).stage("index"):
        summary = await services_of(request).index.ask(CreateBackup(prefix or "manual"))
    return json_response(
        BackupAnswer(
            success=True,
            backup_path=summary.path,
            message="Backup created successfully",
        )
    )


@router.post(
    "/backup/verify",
    operation_id="verifyBackup",
    response_model=VerifyAnswer,
    responses=problems(404),
)
@needs(ADMIN_ALL)
async def verify_backup(body: BackupNameRequest, request: Request) -> Response:
    """Check that a backup can be restored."""
    with trace_of(request).stage("index"):
        check = await services_of(request).index.ask(VerifyBackup(body.backup_name))
    return json_response(
        VerifyAnswer(backup_name=check.name, ok=not check.problems, problems=check.problems)
    )


@router.post(
    "/restore",
    operation_id="restoreBackup",
    response_model=RestoreAnswer,
    responses=problems(404, 409, 507),
)
@needs(ADMIN_ALL)
async def restore_backup(body: BackupNameRequest, request: Request, write_id: WriteId) -> Response:
    """Go back to a backup; the state before is kept as one named pre_restore_<time>."""
    try:
        with trace_of(request).stage("index"):
            operation = RestoreBackup(body.backup_name, request_id=write_id)
            total = await services_of(request).index.ask(operation)
    except BackupError as exc:
        # The service is fine, the named backup is not: the caller can choose another.
        return detail_response(409, str(exc))
    return json_response(
        RestoreAnswer(
            success=True,
            restored_from=body.backup_name,
            total_memories=total,
            message="Restored successfully",
        )
    )
