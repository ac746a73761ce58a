"""Namespaces as wholes: listing, renaming, deleting them, and moving memories between two."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query
from starlette.requests import Request
from starlette.responses import Response

from deployments.http.callers import caller_of, within
from deployments.http.json_route import json_response, json_router
from deployments.http.needs import ADMIN_NAMED, READ_NAMED, WRITE, needs
from deployments.http.openapi import problems
from deployments.http.request_trace import WriteId, trace_of
from deployments.http.services import services_of
from engine.errors import InvalidInputError
from engine.operations.namespaces import (
    DeleteNamespace,
    ListNamespaces,
    MoveMemories,
    RenameNamespace,
)
from engine.records import MemoryId
from wire import limits
from wire.namespaces import (
    MovedAnswer,
    MoveRequest,
    NamespaceDeletedAnswer,
    NamespaceOut,
    NamespacesAnswer,
    RenamedAnswer,
    RenameRequest,
)

router = json_router(tag="namespaces")

Name = Annotated[str, Path(pattern=limits.NAMESPACE, description="Of a namespace.")]


@router.get(
    "/namespaces",
    operation_id="listNamespaces",
    response_model=NamespacesAnswer,
    responses=problems(),
)
@needs(READ_NAMED)
async def list_namespaces(request: Request) -> Response:
    """List the namespaces that hold something and that the key may use."""
    key = caller_of(request).key
    with trace_of(request).stage("index"):
        found = await services_of(request).index.ask(ListNamespaces())
    shown = [
        NamespaceOut(name=each.name, memories=each.memories, last_updated=each.last_updated)
        for each in found
        if key.may_use(each.name)
    ]
    return json_response(NamespacesAnswer(namespaces=shown, count=len(shown)))


@router.post(
    "/namespaces/{name}/rename",
    operation_id="renameNamespace",
    response_model=RenamedAnswer,
    responses=problems(507),
)
@needs(ADMIN_NAMED)
async def rename_namespace(
    name: Name, body: RenameRequest, request: Request, write_id: WriteId
) -> Response:
    """Call a namespace otherwise; keys that name it do not follow."""
    for each in (name, body.to):
        caller_of(request).check_namespace(each)
    with trace_of(request).stage("index"):
        await services_of(request).index.ask(RenameNamespace(name, body.to, request_id=write_id))
    return json_response(RenamedAnswer(success=True, renamed=name, to=body.to))


@router.delete(
    "/namespaces/{name}",
    operation_id="deleteNamespace",
    response_model=NamespaceDeletedAnswer,
    responses=problems(507),
)
@needs(ADMIN_NAMED)
async def delete_namespace(
    name: Name,
    request: Request,
    write_id: WriteId,
    confirm: Annotated[str, Query(max_length=100, description="Its name again.")] = "",
) -> Response:
    """Delete a namespace with all its memories; only a backup brings them back."""
    caller_of(request).check_namespace(name)
    if confirm != name:
        raise InvalidInputError(
            f"This deletes every memory of namespace '{name}'; add confirm={name} to do it"
        )
    with trace_of(request).stage("index"):
        n_deleted = await services_of(request).index.ask(DeleteNamespace(name, request_id=write_id))
    answer = NamespaceDeletedAnswer(success=True, deleted=name, deleted_count=n_deleted)
    return json_response(answer)


@router.post(
    "/memory/move",
    operation_id="moveMemories",
    response_model=MovedAnswer,
    responses=problems(507),
)
@needs(WRITE)
async def move_memories(body: MoveRequest, request: Request, write_id: WriteId) -> Response:
    """Put memories of the call's namespace into another, all or none; they keep their ids."""
    caller_of(request).check_namespace(body.to)
    operation = MoveMemories(
        within(request),
        body.to,
        None if body.ids is None else [MemoryId(number) for number in dict.fromkeys(body.ids)],
        body.source_prefix,
        request_id=write_id,
    )
    with trace_of(request).stage("index"):
        outcome = await services_of(request).index.ask(operation)
    return json_response(
        MovedAnswer(success=True, moved_count=len(outcome.moved), missing=list(outcome.missing))
    )
