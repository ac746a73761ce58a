"""Memories in and out in bulk: streams of NDJSON, a memory a line, of any length."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import Header, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from deployments.http.callers import caller_of, within
from deployments.http.errors import detail_response
from deployments.http.filters import where_of
from deployments.http.json_route import json_router
from deployments.http.needs import READ, WRITE, needs
from deployments.http.openapi import problems
from deployments.http.services import Services, services_of
from deployments.transfer.export_stream import export_lines, gzipped
from deployments.transfer.import_body import ClientGoneError
from deployments.transfer.import_stream import ImportOptions, ImportStream
from deployments.transfer.line_reader import is_supported
from engine.operations.exports import BeginExport
from engine.operations.whole import Stats
from engine.records import ModelIdentity
from wire import limits
from wire.requests import ExportQuery, ImportQuery

NDJSON = "application/x-ndjson"

# Bytes first: generated clients know no NDJSON, and would leave the operation out or fail in it.
_LINES: dict[str, Any] = {
    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    NDJSON: {"schema": {"type": "string"}},
}

router = json_router(tag="import and export")


@router.post(
    "/import",
    operation_id="importMemories",
    response_class=Response,
    responses={
        **problems(415),
        200: {
            "description": "A line for each line read, progress, and a summary as the last line.",
            "content": _LINES,
        },
    },
    openapi_extra={
        "requestBody": {
            "description": (
                "A JSON object a line: text and source, and if you like metadata, key, timestamp, "
                "updated_at, embedding, deduplicate, redact. An export is one."
            ),
            "content": _LINES,
        }
    },
)
@needs(WRITE)
async def import_memories(
    query: Annotated[ImportQuery, Query()],
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=limits.IDEMPOTENCY_KEY,
            description="Names the import: sent again with it, no line is applied twice.",
        ),
    ] = None,
) -> Response:
    """Store memories from a stream, answering each line as soon as it is on disk."""
    services = services_of(request)
    encoding = request.headers.get("content-encoding", "")
    if not is_supported(encoding):
        return detail_response(415, "Content-Encoding must be gzip, zstd or none")
    options = ImportOptions(
        stop_on_error=query.on_error == "stop",
        deduplicate=query.deduplicate,
        redact=query.redact,
        key=idempotency_key,
        within=within(request),
        check_caller=partial(caller_of(request).check_still, "write"),
        content_encoding=encoding,
        reports_all=query.report == "all",
    )
    return _ImportResponse(services, options, (await services.index.ask(Stats())).model)


class _ImportResponse(Response):
    """An answer that is written while the request is still being read."""

    def __init__(self, services: Services, options: ImportOptions, identity: ModelIdentity) -> None:
        super().__init__(media_type=NDJSON, headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._services = services
        self._options = options
        self._identity = identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the import over this connection. Raises `OverloadedError` before it answers."""
        # Received before anything is sent: a client that asked to (`Expect`) now begins to send.
        first = await receive()

        async def send_bytes(content: bytes) -> None:
            await send({"type": "http.response.body", "body": content, "more_body": True})

        stream = ImportStream(self._services, self._options, self._identity, send_bytes)
        with self._services.imports.running():
            await send(
                {"type": "http.response.start", "status": 200, "headers": self.raw_headers},
            )
            try:
                await stream.run(first, receive)
            except ClientGoneError:
                return
        await send({"type": "http.response.body", "body": b""})


@router.get(
    "/export",
    operation_id="exportMemories",
    response_class=Response,
    responses={
        **problems(),
        200: {
            "description": "A header line, a memory a line, and a footer line with their count.",
            "content": _LINES,
        },
    },
)
@needs(READ)
async def export_memories(query: Annotated[ExportQuery, Query()], request: Request) -> Response:
    """Read every memory that passes a filter, as of now, by id; `/import` takes it."""
    index, here = services_of(request).index, within(request)
    identity = (await index.ask(Stats())).model
    facts = await index.ask(
        BeginExport(where_of(query), with_embeddings=query.embeddings, within=here)
    )
    caller = caller_of(request)
    lines = export_lines(
        index,
        facts,
        identity,
        here,
        check_caller=partial(caller.check_still, "read"),
        tells_lsn=caller.key.is_of_all,
    )
    headers = {"Cache-Control": "no-store", "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        lines = gzipped(lines)
    return StreamingResponse(lines, headers=headers, media_type=NDJSON)
