"""The MCP server: tools, resources and prompts over one client of the service.

On the SDK's low-level server: its errors reach the model word for word, and nothing is built
before it is asked for, which start-up time depends on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from mcp_server import identity, prompts

if TYPE_CHECKING:
    from mcp_server.client import FaissClient

logger = logging.getLogger(__name__)

Context = ServerRequestContext["LazyClient", Any]

CALLERS_HEADERS = "faiss_memory.callers_headers"
"""In the scope of a request over HTTP: those with which its tools call the service."""

STATS_URI = "memory://stats"
MEMORY_URI = "memory://"


class LazyClient:
    """Opens the client of the service at its first use: loading it would delay the start."""

    def __init__(self, open_client: Callable[[], FaissClient]) -> None:
        self._open_client = open_client
        self._client: FaissClient | None = None

    def get(self) -> FaissClient:
        """The client. Raises `ValidationError` when the settings cannot be used."""
        if self._client is None:
            self._client = self._open_client()
        return self._client

    async def aclose(self) -> None:
        """Close what was opened."""
        if self._client is not None:
            await self._client.__aexit__(None, None, None)


def client_from_environment() -> FaissClient:
    """A client of the service that `FAISS_URL` names."""
    from mcp_server.client import FaissClient
    from mcp_server.settings import BridgeSettings

    return FaissClient(BridgeSettings())


def create_server(
    open_client: Callable[[], FaissClient] = client_from_environment,
) -> Server[LazyClient]:
    """Build the server.

    Args:
        open_client: makes the client of the service, called once, at the first tool call.
    """

    @asynccontextmanager
    async def lifespan(_: Server[LazyClient]) -> AsyncIterator[LazyClient]:
        client = LazyClient(open_client)
        try:
            yield client
        finally:
            await client.aclose()

    return Server(
        identity.NAME,
        version=identity.version(),
        title=identity.TITLE,
        instructions=identity.INSTRUCTIONS,
        lifespan=lifespan,
        on_list_tools=_list_tools,
        on_call_tool=_call_tool,
        on_list_resources=_list_resources,
        on_list_resource_templates=_list_resource_templates,
        on_read_resource=_read_resource,
        on_list_prompts=_list_prompts,
        on_get_prompt=_get_prompt,
    )


async def _list_tools(
    _: Context, params: types.PaginatedRequestParams | None
) -> types.ListToolsResult:
    from mcp_server.tools.described_tools import described_tools

    return types.ListToolsResult(tools=described_tools())


async def _call_tool(ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
    from mcp_server.client import ServiceError
    from mcp_server.tools.arguments import not_taken_note
    from mcp_server.tools.catalogue import TOOLS

    tool = TOOLS.get(params.name)
    if tool is None:
        known = ", ".join(TOOLS)
        raise MCPError(types.INVALID_PARAMS, f"Unknown tool {params.name!r}. There are: {known}")
    given = params.arguments or {}
    note = not_taken_note(tool.name, tool.arguments.not_taken(given))
    try:
        arguments = tool.arguments.model_validate(given)
    except ValidationError as exc:
        return _failed(f"Invalid arguments for {tool.name}: {_problems(exc)}\n{note}".rstrip())
    if note and tool.annotations.destructive_hint:
        return _failed(f"{note} Nothing was changed.")
    try:
        text, result = await tool.run(_client(ctx), arguments.with_room_for(note))
    except ServiceError as exc:
        return _failed(str(exc))
    except (ValidationError, KeyError) as exc:
        logger.error("%s: the answer is not the one expected: %s", tool.name, _mismatch(exc))
        return _failed(
            f"The service answered {tool.name} in a way this MCP server does not understand. "
            "Are both of the same release? Check FAISS_URL."
        )
    if note:
        text, result.note = f"{text}\n\n{note}", note
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)], structured_content=result.lean()
    )


async def _list_resources(
    _: Context, params: types.PaginatedRequestParams | None
) -> types.ListResourcesResult:
    return types.ListResourcesResult(
        resources=[
            types.Resource(
                uri=STATS_URI,
                name="stats",
                title="Memory statistics",
                description="How many memories there are, their model, size and last change.",
                mime_type="application/json",
            )
        ]
    )


async def _list_resource_templates(
    _: Context, params: types.PaginatedRequestParams | None
) -> types.ListResourceTemplatesResult:
    return types.ListResourceTemplatesResult(
        resource_templates=[
            types.ResourceTemplate(
                uri_template=f"{MEMORY_URI}{{id}}",
                name="memory",
                title="A memory",
                description="One memory in full, by its id.",
                mime_type="application/json",
            )
        ]
    )


async def _read_resource(
    ctx: Context, params: types.ReadResourceRequestParams
) -> types.ReadResourceResult:
    from mcp_server.client import ServiceError

    uri = str(params.uri)
    memory_id = uri.removeprefix(MEMORY_URI)
    if uri == STATS_URI:
        path = "/stats"
    elif uri.startswith(MEMORY_URI) and memory_id.isascii() and memory_id.isdigit():
        path = f"/memory/{memory_id}"
    else:
        raise MCPError(
            types.INVALID_PARAMS,
            f"There is no resource {uri}. There are {STATS_URI} and {MEMORY_URI}<id>.",
        )
    try:
        answer = await _client(ctx).get(path)
    except ServiceError as exc:
        raise MCPError(types.INTERNAL_ERROR, str(exc), data={"uri": uri}) from exc
    return types.ReadResourceResult(
        contents=[
            types.TextResourceContents(
                uri=params.uri,
                mime_type="application/json",
                text=json.dumps(answer, ensure_ascii=False),
            )
        ]
    )


async def _list_prompts(
    _: Context, params: types.PaginatedRequestParams | None
) -> types.ListPromptsResult:
    return types.ListPromptsResult(prompts=[prompt.described for prompt in prompts.PROMPTS])


async def _get_prompt(_: Context, params: types.GetPromptRequestParams) -> types.GetPromptResult:
    for prompt in prompts.PROMPTS:
        if prompt.described.name == params.name:
            return prompt.rendered(params.arguments or {})
    raise MCPError(types.INVALID_PARAMS, f"Unknown prompt {params.name!r}")


def _client(ctx: Context) -> FaissClient:
    from mcp_server.client import ServiceError

    try:
        client = ctx.lifespan_context.get()
    except ValidationError as exc:
        raise ServiceError(
            f"This MCP server is misconfigured: {_problems(exc)}. "
            "Correct its environment and restart it."
        ) from exc
    headers = None if ctx.request is None else ctx.request.scope.get(CALLERS_HEADERS)
    return client.on_behalf_of(headers) if headers else client


def _failed(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=True)


def _mismatch(exc: ValidationError | KeyError) -> str:
    """Where an answer is not as expected; what stands there may be a memory, not for a log."""
    if isinstance(exc, KeyError):
        return repr(exc)
    return "; ".join(f"{each['type']} at {each['loc']}" for each in exc.errors(include_input=False))


def _problems(exc: ValidationError) -> str:
    """What is wrong, without the values: they may be long, or secret."""
    return "; ".join(
        ": ".join(filter(None, (".".join(map(str, each["loc"])), each["msg"])))
        for each in exc.errors(include_url=False, include_input=False, include_context=False)
    )
