"""Adding, reading, changing and deleting memories."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from fastapi import Path, Query
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from deployments import rendering
from deployments.http.callers import among, within
from deployments.http.filters import where_of
from deployments.http.json_route import json_response, json_router
from deployments.http.needs import ADMIN, READ, READ_SEVERAL, WRITE, needs
from deployments.http.openapi import problems
from deployments.http.redaction import redacted, redacted_items
from deployments.http.request_trace import WriteId, trace_of
from deployments.http.services import services_of
from engine.errors import MemoryNotFoundError
from engine.operations.operation import Operation
from engine.operations.reads import GetMemory, ListAmong, ListMemories
from engine.operations.writes import (
    AddMemories,
    Deduplicate,
    DeleteBySource,
    DeleteMemories,
    UpdateMemory,
    UpsertMemory,
)
from engine.records import MemoryId, MemoryPage, MemoryPatch, NewMemory
from engine.workspace.passages import text_in_context
from wire.answers import (
    AddAnswer,
    AddBatchAnswer,
    ChangedOut,
    DeduplicateAnswer,
    DeleteAnswer,
    DeleteBatchAnswer,
    DeleteBySourceAnswer,
    ListAnswer,
    MemoryOut,
    UpsertAnswer,
)
from wire.limits import MAX_ID
from wire.requests import (
    AddBatchRequest,
    AddRequest,
    DeduplicateRequest,
    DeleteBatchRequest,
    DeleteBySourceRequest,
    ListQuery,
    PatchRequest,
    UpsertRequest,
)

router = json_router(tag="memories")

# The bounds are documented, not enforced: a number that no memory can have is simply not found.
PathId = Annotated[int, Path(json_schema_extra={"minimum": 0, "maximum": MAX_ID})]


class _IdConvertor(Convertor[str]):
    """Anything but the names of the routes beside it, so that those answer 405 for themselves."""

    regex = (
        r"(?!(?:add|add-batch|upsert|is-novel|delete-by-source|delete-batch|deduplicate|move)$)"
        r"[^/]+"
    )

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("memory_id", _IdConvertor())


def _memory_id(number: int) -> MemoryId:
    if not 0 <= number <= MAX_ID:
        raise MemoryNotFoundError(number)
    return MemoryId(number)


@router.post(
    "/memory/add", operation_id="addMemory", response_model=AddAnswer, responses=problems(507)
)
@needs(WRITE)
async def add_memory(body: AddRequest, request: Request, write_id: WriteId) -> Response:
    """Store a memory, unless one that says the same is stored already."""
    body, redactions = redacted(body, body.redact)
    services, trace = services_of(request), trace_of(request)
    embedded = await services.embed_one(text_in_context(body), trace)
    memory = NewMemory(
        text=body.text,
        source=body.source,
        metadata=body.metadata or {},
        deduplicate=body.deduplicate,
        later_vectors=embedded.later.get(0),
    )
    with trace.stage("index"):
        [outcome] = await services.index.ask(
            AddMemories([memory], embedded.firsts, request_id=write_id, within=within(request))
        )
    message = "Duplicate skipped" if outcome.id is None else "Memory added successfully"
    answer = AddAnswer(success=True, id=outcome.id, message=message)
    if outcome.duplicate_of is not None:
        answer["duplicate_of"] = outcome.duplicate_of
    return json_response({**answer, **rendering.added(outcome), **redactions})


@router.post(
    "/memory/add-batch",
    operation_id="addMemories",
    response_model=AddBatchAnswer,
    responses=problems(507),
)
@needs(WRITE)
async def add_memories(body: AddBatchRequest, request: Request, write_id: WriteId) -> Response:
    """Store up to 500 memories, all or none; duplicates are skipped."""
    services, trace = services_of(request), trace_of(request)
    items, redactions = await redacted_items(body)
    embedded = await services.embed([text_in_context(item) for item in items], trace)
    memories = [
        NewMemory(
            text=item.text,
            source=item.source,
            metadata=item.metadata or {},
            deduplicate=body.deduplicate if item.deduplicate is None else item.deduplicate,
            later_vectors=embedded.later.get(at),
        )
        for at, item in enumerate(items)
    ]
    with trace.stage("index"):
        outcomes = await services.index.ask(
            AddMemories(memories, embedded.firsts, request_id=write_id, within=within(request))
        )
    ids: list[int] = [outcome.id for outcome in outcomes if outcome.id is not None]
    return json_response(
        AddBatchAnswer(
            success=True,
            ids=ids,
            count=len(ids),
            message=f"Added {len(ids)} memories",
            results=[
                {"id": o.id, "duplicate_of": o.duplicate_of, **rendering.added(o), **redaction}
                for o, redaction in zip(outcomes, redactions, strict=True)
            ],
        )
    )


@router.post(
    "/memory/upsert",
    operation_id="upsertMemory",
    response_model=UpsertAnswer,
    responses=problems(507),
)
@needs(WRITE)
async def upsert_memory(body: UpsertRequest, request: Request, write_id: WriteId) -> Response:
    """Store a memory, in the place of the one with the same source and key if there is one."""
    body, redactions = redacted(body, body.redact)
    services, trace = services_of(request), trace_of(request)
    embedded = await services.embed_one(text_in_context(body), trace)
    memory = NewMemory(
        text=body.text,
        source=body.source,
        metadata=body.metadata or {},
        key=body.key,
        deduplicate=False,
        later_vectors=embedded.later.get(0),
    )
    with trace.stage("index"):
        outcome = await services.index.ask(
            UpsertMemory(memory, embedded.firsts[0], request_id=write_id, within=within(request))
        )
    return json_response(
        UpsertAnswer(success=True, id=outcome.id, created=outcome.created, **redactions)
    )


@router.get(
    "/memory/{memory_id:memory_id}",
    operation_id="getMemory",
    response_model=MemoryOut,
    responses=problems(404),
)
@needs(READ)
async def get_memory(memory_id: PathId, request: Request) -> Response:
    """Read one memory."""
    with trace_of(request).stage("index"):
        memory = await services_of(request).index.ask(
            GetMemory(_memory_id(memory_id), within=within(request))
        )
    return json_response(rendering.memory(memory))


@router.patch(
    "/memory/{memory_id:memory_id}",
    operation_id="updateMemory",
    response_model=ChangedOut,
    responses=problems(404, 507),
)
@needs(WRITE)
async def update_memory(
    memory_id: PathId, body: PatchRequest, request: Request, write_id: WriteId
) -> Response:
    """Change fields of a memory; a new text is embedded anew."""
    body, redactions = redacted(body, body.redact)
    services, trace = services_of(request), trace_of(request)
    target = _memory_id(memory_id)
    patch = MemoryPatch(text=body.text, source=body.source, metadata=body.metadata)
    if patch == MemoryPatch():
        return await get_memory(memory_id, request)
    vectors = None
    if body.text is not None:
        stored = await services.index.ask(GetMemory(target, within=within(request)))
        source = body.source or stored.source
        says = text_in_context(dataclasses.replace(stored, text=body.text, source=source))
        vectors = (await services.embed_one(says, trace)).of(0)
    with trace.stage("index"):
        memory = await services.index.ask(
            UpdateMemory(target, patch, vectors, request_id=write_id, within=within(request))
        )
    return json_response(ChangedOut(**rendering.memory(memory), **redactions))


@router.delete(
    "/memory/{memory_id:memory_id}",
    operation_id="deleteMemory",
    response_model=DeleteAnswer,
    responses=problems(404, 507),
)
@needs(WRITE)
async def delete_memory(memory_id: PathId, request: Request, write_id: WriteId) -> Response:
    """Delete one memory."""
    target = _memory_id(memory_id)
    with trace_of(request).stage("index"):
        outcome = await services_of(request).index.ask(
            DeleteMemories([target], request_id=write_id, within=within(request))
        )
    if not outcome.deleted:
        raise MemoryNotFoundError(memory_id)
    [deleted] = outcome.deleted
    return json_response(
        DeleteAnswer(success=True, deleted_id=deleted.id, deleted_text=deleted.text)
    )


@router.post(
    "/memory/delete-by-source",
    operation_id="deleteMemoriesBySource",
    response_model=DeleteBySourceAnswer,
    responses=problems(507),
)
@needs(WRITE)
async def delete_by_source(
    body: DeleteBySourceRequest, request: Request, write_id: WriteId
) -> Response:
    """Delete every memory whose source contains a string."""
    with trace_of(request).stage("index"):
        n_deleted = await services_of(request).index.ask(
            DeleteBySource(where_of(body), request_id=write_id, within=within(request))
        )
    return json_response(DeleteBySourceAnswer(success=True, deleted_count=n_deleted))


@router.post(
    "/memory/delete-batch",
    operation_id="deleteMemories",
    response_model=DeleteBatchAnswer,
    responses=problems(507),
)
@needs(WRITE)
async def delete_batch(body: DeleteBatchRequest, request: Request, write_id: WriteId) -> Response:
    """Delete up to 1000 memories by id."""
    ids = [MemoryId(number) for number in dict.fromkeys(body.ids)]
    with trace_of(request).stage("index"):
        outcome = await services_of(request).index.ask(
            DeleteMemories(ids, request_id=write_id, within=within(request))
        )
    return json_response(
        DeleteBatchAnswer(
            success=True, deleted_count=len(outcome.deleted), missing=list(outcome.missing)
        )
    )


@router.get(
    "/memories", operation_id="listMemories", response_model=ListAnswer, responses=problems()
)
@needs(READ_SEVERAL)
async def list_memories(query: Annotated[ListQuery, Query()], request: Request) -> Response:
    """Browse memories in the order they were stored."""
    where, newest_first = where_of(query), query.order == "desc"
    operation: Operation[MemoryPage]
    if query.namespaces is None:
        here = within(request)
        operation = ListMemories(
            where, query.offset, query.limit, newest_first, query.cursor, within=here
        )
    else:
        there = among(request, query.namespaces)
        operation = ListAmong(where, there, query.offset, query.limit, newest_first, query.cursor)
    with trace_of(request).stage("index"):
        page = await services_of(request).index.ask(operation)
    named = page.namespaces if query.namespaces is not None else None
    return json_response(
        ListAnswer(
            memories=rendering.listed(page.memories, named),
            total=page.total,
            offset=query.offset,
            limit=query.limit,
            next_cursor=page.next_cursor,
        )
    )


@router.post(
    "/memory/deduplicate",
    operation_id="deduplicateMemories",
    response_model=DeduplicateAnswer,
    responses=problems(507),
)
@needs(ADMIN)
async def deduplicate(
    request: Request,
    write_id: WriteId,
    body: DeduplicateRequest = DeduplicateRequest(),  # noqa: B008 - immutable in use
) -> Response:
    """Find duplicates; unless dry_run, keep only the earliest of each group."""
    with trace_of(request).stage("index"):
        report = await services_of(request).index.ask(
            Deduplicate(
                body.threshold, body.by, body.dry_run, request_id=write_id, within=within(request)
            )
        )
    return json_response(rendering.deduplication(report))
