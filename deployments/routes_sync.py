"""Cloud sync: not configured, and every route says so."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from deployments.json_route import json_response, json_router
from deployments.openapi import problems
from deployments.response_schemas import SyncStatusAnswer
from engine.errors import InvalidInputError

NOT_CONFIGURED = "Cloud sync not configured"

router = json_router(tag="sync")


@router.get(
    "/sync/status",
    operation_id="getSyncStatus",
    response_model=SyncStatusAnswer,
    responses=problems(),
)
async def sync_status() -> Response:
    """Tell whether cloud sync is on."""
    return json_response({"enabled": False, "message": NOT_CONFIGURED})


async def _refuse_rest(request: Request) -> Response:
    # Whatever is under /sync; a known path called with the wrong method is still that.
    path = request.scope["path"]
    method = "POST" if path.startswith("/sync/restore/") else _METHODS.get(path)
    if method is not None and method != request.method:
        raise HTTPException(405, headers={"Allow": method})
    raise InvalidInputError(NOT_CONFIGURED)


_METHODS = {
    "/sync/status": "GET",
    "/sync/upload": "POST",
    "/sync/download": "POST",
    "/sync/snapshots": "GET",
}

# Left out of the OpenAPI document: nothing that only ever fails is worth offering to a client.
router.add_api_route(
    "/sync/{rest:path}",
    _refuse_rest,
    methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
    include_in_schema=False,
)
