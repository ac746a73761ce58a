"""The copy in the cloud: how it stands, upload, download, restore. Off, every route says so."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from deployments import rendering
from deployments.http.errors import detail_response
from deployments.http.json_route import json_response, json_router
from deployments.http.needs import ADMIN_ALL, needs
from deployments.http.openapi import problems
from deployments.http.request_trace import WriteId, trace_of
from deployments.http.services import Services, services_of
from engine.errors import BackupError, InvalidInputError
from engine.operations.offsite import (
    DownloadSnapshot,
    ListSnapshots,
    OffsiteStatus,
    RestoreSnapshot,
    UploadBackup,
)
from wire import limits
from wire.answers import (
    SnapshotsAnswer,
    SyncDownloadAnswer,
    SyncRestoreAnswer,
    SyncStatusAnswer,
    SyncUploadAnswer,
)

NOT_CONFIGURED = "Cloud sync not configured"
_UPLOAD_PREFIX = "sync"

router = json_router(tag="sync")

Confirm = Annotated[bool, Query(description="Must be true.")]
Name = Annotated[
    str | None,
    Query(min_length=1, max_length=limits.BACKUP_NAME_CHARS, description="The newest without."),
]


def _services(request: Request) -> Services:
    """The services, or the refusal of every route when cloud sync is off."""
    services = services_of(request)
    if services.settings.cloud_sync_prefix is None:
        raise InvalidInputError(NOT_CONFIGURED)
    return services


def _confirmed(confirm: bool, what: str) -> None:
    if not confirm:
        raise InvalidInputError(f"{what}; add confirm=true to do it")


@router.get(
    "/sync/status",
    operation_id="getSyncStatus",
    response_model=SyncStatusAnswer,
    responses=problems(),
)
@needs(ADMIN_ALL)
async def sync_status(request: Request) -> Response:
    """Tell whether cloud sync is on, what is uploaded, what waits and what went wrong last."""
    services = services_of(request)
    if services.settings.cloud_sync_prefix is None:
        return json_response(SyncStatusAnswer(enabled=False, message=NOT_CONFIGURED))
    with trace_of(request).stage("index"):
        status = await services.index.ask(OffsiteStatus())
    return json_response(rendering.sync_status(status))


@router.post(
    "/sync/upload",
    operation_id="uploadBackup",
    response_model=SyncUploadAnswer,
    responses=problems(502, 507),
)
@needs(ADMIN_ALL)
async def sync_upload(
    request: Request,
    overwrite: Annotated[
        bool, Query(description="Go on from this store although another machine wrote since.")
    ] = False,
) -> Response:
    """Make a backup and upload it; answers once it can be restored from the cloud."""
    with trace_of(request).stage("index"):
        report = await _services(request).index.ask(UploadBackup(_UPLOAD_PREFIX, overwrite))
    return json_response(
        SyncUploadAnswer(
            success=True,
            backup_name=report.snapshot.name or report.snapshot.label,
            message="Backup created and uploaded to cloud",
        )
    )


@router.get(
    "/sync/snapshots",
    operation_id="listSnapshots",
    response_model=SnapshotsAnswer,
    responses=problems(502),
)
@needs(ADMIN_ALL)
async def sync_snapshots(request: Request) -> Response:
    """List the snapshots in the cloud, newest first."""
    services = _services(request)
    with trace_of(request).stage("index"):
        snapshots = await services.index.ask(ListSnapshots())
    shown = [
        rendering.snapshot(each, services.settings.cloud_sync_prefix or "") for each in snapshots
    ]
    return json_response(SnapshotsAnswer(snapshots=shown, count=len(shown)))


@router.post(
    "/sync/download",
    operation_id="downloadSnapshot",
    response_model=SyncDownloadAnswer,
    responses=problems(404, 502, 507),
)
@needs(ADMIN_ALL)
async def sync_download(
    request: Request, backup_name: Name = None, confirm: Confirm = False
) -> Response:
    """Download a snapshot beside the local backups; the memories stay as they are."""
    services = _services(request)
    _confirmed(confirm, "This downloads a snapshot")
    with trace_of(request).stage("index"):
        got = await services.index.ask(DownloadSnapshot(backup_name))
    return json_response(rendering.download(got))


@router.post(
    "/sync/restore/{backup_name}",
    operation_id="restoreSnapshot",
    response_model=SyncRestoreAnswer,
    responses=problems(404, 409, 502, 507),
)
@needs(ADMIN_ALL)
async def sync_restore(
    request: Request, backup_name: str, write_id: WriteId, confirm: Confirm = False
) -> Response:
    """Download a snapshot and go back to it; the state before is kept as pre_restore_<time>."""
    services = _services(request)
    _confirmed(confirm, "This replaces every memory by those of the snapshot")
    try:
        with trace_of(request).stage("index"):
            operation = RestoreSnapshot(backup_name, request_id=write_id)
            got, total = await services.index.ask(operation)
    except BackupError as exc:
        return detail_response(409, str(exc))
    return json_response(
        SyncRestoreAnswer(
            success=True,
            downloaded=rendering.download(got),
            restored={"restored_from": got.backup.name, "total_memories": total},
            message="Downloaded and restored successfully",
        )
    )


@needs(ADMIN_ALL)
async def _refuse_rest(request: Request) -> Response:
    # Whatever else is under /sync; a known path called with the wrong method is still that.
    path = request.scope["path"]
    method = "POST" if path.startswith("/sync/restore/") else _METHODS.get(path)
    if method is not None and method != request.method:
        raise HTTPException(405, headers={"Allow": method})
    _services(request)
    raise HTTPException(404)


_METHODS = {
    "/sync/status": "GET",
    "/sync/upload": "POST",
    "/sync/download": "POST",
    "/sync/snapshots": "GET",
}

router.add_api_route(
    "/sync/{rest:path}",
    _refuse_rest,
    methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
    include_in_schema=False,
)
