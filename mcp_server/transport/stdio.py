"""Serves MCP over stdin and stdout."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, cast

from mcp_server.transport import handshake, jsonrpc_line
from mcp_server.transport.jsonrpc_line import Json

if TYPE_CHECKING:
    from mcp.shared._stream_protocols import WriteStream
    from mcp.shared.message import SessionMessage
    from typing_extensions import Self

STDIN = 0
STDOUT = 1


def serve_stdio() -> None:
    """Serve one client until it closes stdin."""
    # Loading the SDK creates a million objects that live for good: collecting meanwhile is waste.
    gc.disable()
    first = handshake.read_line(STDIN)
    if not first:
        return
    opening = [first]
    answer = handshake.early_answer(first)
    if answer is not None:
        handshake.write_line(STDOUT, answer)
        # Loads while the client takes in the answers.
        threading.Thread(target=_load_sdk, daemon=True).start()
        opening += _answer_early()

    import anyio

    anyio.run(_serve, opening, None if answer is None else answer["id"])


def _answer_early() -> list[bytes]:
    """Answer what can be answered without the SDK; returns the lines that are left to it."""
    left = []
    while True:
        line = handshake.read_line(STDIN)
        answer = handshake.early_tools(line)
        if answer is not None:
            handshake.write_line(STDOUT, answer)
            continue
        if line:
            left.append(line)
        if not handshake.is_initialized(line):
            return left


def _load_sdk() -> None:
    import mcp.server.stdio  # noqa: F401

    import mcp_server.server  # noqa: F401


async def _serve(opening: list[bytes], answered_id: int | str | None) -> None:
    import anyio
    import mcp_types as types
    from mcp.server.stdio import stdio_server
    from mcp.shared.message import SessionMessage

    from mcp_server.server import create_server

    server = create_server()
    gc.freeze()
    gc.enable()

    def is_withheld(item: SessionMessage) -> bool:
        message = item.message
        return isinstance(message, types.JSONRPCResponse) and message.id == answered_id

    def refusals(line: bytes) -> list[Json]:
        found = jsonrpc_line.refusals(line)
        if not found and line.strip():
            try:
                types.jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValueError:
                return [jsonrpc_line.shape_refusal(line)]
        return found

    answering = anyio.Event()

    async def messages() -> AsyncIterator[str]:
        await answering.wait()
        async for line in _lines(opening):
            errors = refusals(line)
            for each in errors:
                error = types.JSONRPCError.model_validate(each)
                await write_stream.send(SessionMessage(error))
            if not errors:
                yield line.decode()

    # The SDK drops lines that it cannot parse, so it gets none of them.
    stdin = cast("anyio.AsyncFile[str]", messages())
    async with stdio_server(stdin=stdin) as (read_stream, write_stream):
        answering.set()
        await server.run(
            read_stream,
            write_stream if answered_id is None else WithholdingStream(is_withheld, write_stream),
            server.create_initialization_options(),
        )


async def _lines(opening: Iterable[bytes]) -> AsyncIterator[bytes]:
    """The lines read before, then those of stdin."""
    import anyio

    for line in opening:
        yield line
    with os.fdopen(STDIN, "rb", closefd=False) as stdin:
        async for line in anyio.wrap_file(stdin):
            yield line


class WithholdingStream:
    """A write stream that drops the first message for which a test holds."""

    def __init__(
        self, is_withheld: Callable[[SessionMessage], bool], rest: WriteStream[SessionMessage]
    ) -> None:
        self._is_withheld: Callable[[SessionMessage], bool] | None = is_withheld
        self._rest = rest

    async def send(self, item: SessionMessage, /) -> None:
        """Send a message, or drop it."""
        if self._is_withheld is not None and self._is_withheld(item):
            self._is_withheld = None
            return
        await self._rest.send(item)

    async def aclose(self) -> None:
        """Close the stream beneath."""
        await self._rest.aclose()

    async def __aenter__(self) -> Self:
        await self._rest.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._rest.__aexit__(exc_type, exc, traceback)
