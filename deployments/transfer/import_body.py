"""The body of an import, cut into chunks that are worth embedding together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Message, Receive

from deployments.transfer.import_lines import GoodLine, LineParser, ParsedLine
from deployments.transfer.line_reader import BodyError, LineReader
from engine.records import FloatMatrix

_CHUNK_LINES = 1_024
"""Enough that texts of equal length meet in full runs of the model."""
_CHUNK_EMBED_CHARS = 1 << 17
"""About two seconds of the model on two cores."""
_EMBEDDED_CHARS = 1_200
"""The model sees about so many characters of a text, however long it is."""
_CHUNK_BYTES = 1 << 19
_PARSED_AT_ONCE = 16
"""Lines validated before other requests get their turn on the event loop."""
_FLUSH_S = 0.05
"""A chunk is not kept waiting longer for a client that pauses."""
_IDLE_S = 600.0


@dataclass(slots=True)
class Chunk:
    """Consecutive lines, and the task that embeds them."""

    lines: list[ParsedLine] = field(default_factory=list)
    last_number: int = 0
    body_bytes: int = 0
    """Of the body up to its end."""
    n_bytes: int = 0
    n_embed_chars: int = 0
    embeddings: asyncio.Task[FloatMatrix] | None = None

    @property
    def good(self) -> list[GoodLine]:
        """Those that can be stored."""
        return [line for line in self.lines if isinstance(line, GoodLine)]

    def is_full(self) -> bool:
        """Whether it is large enough."""
        return (
            len(self.lines) >= _CHUNK_LINES
            or self.n_bytes >= _CHUNK_BYTES
            or self.n_embed_chars >= _CHUNK_EMBED_CHARS
        )


@dataclass(frozen=True, slots=True)
class End:
    """The body has ended; with a reason, before its end."""

    problem: str | None


class ClientGoneError(Exception):
    """The client closed its connection; nobody is left to answer."""


class ImportBody:
    """Reads a request's body as fast as its chunks are taken."""

    def __init__(
        self, parser: LineParser, content_encoding: str, submit: Callable[[Chunk], Awaitable[None]]
    ) -> None:
        """Read nothing yet.

        Args:
            parser: of single lines.
            content_encoding: of the body.
            submit: takes each chunk; nothing more is read until it returns.
        """
        self._parser = parser
        self._lines = LineReader(content_encoding)
        self._submit = submit
        self._chunk = Chunk()
        self._number = 0
        self._n_read = 0

    async def read(self, first: Message, receive: Receive) -> End:
        """Hand on the body, whose first message was received already, in chunks.

        Raises:
            ClientGoneError: the connection was closed.
        """
        message, problem = first, None
        try:
            while await self._feed(message):
                message = await self._next(receive)
        except BodyError as exc:
            problem = str(exc)
        await self._flush()
        return End(problem)

    async def _feed(self, message: Message) -> bool:
        """Take what a message brings; whether there is more to come."""
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        body = message.get("body", b"")
        self._n_read += len(body)
        for piece in self._lines.feed(body):
            await self._take(piece)
            await asyncio.sleep(0)
        if message.get("more_body", False):
            return True
        await self._take(self._lines.end())
        return False

    async def _next(self, receive: Receive) -> Message:
        """The next message; while it lets wait for itself, what is there goes on."""
        receiving = asyncio.ensure_future(receive())
        try:
            if not await done_within(receiving, _FLUSH_S):
                await self._flush()
                if not await done_within(receiving, _IDLE_S):
                    raise BodyError(f"nothing came for {_IDLE_S:.0f} s")
            return receiving.result()
        finally:
            receiving.cancel()

    async def _take(self, lines: Iterator[bytes | None]) -> None:
        for line in lines:
            self._number += 1
            if self._parser.redacts or self._number % _PARSED_AT_ONCE == 0:
                await asyncio.sleep(0)
            self._add(line)
            if self._chunk.is_full():
                await self._flush()

    async def _flush(self) -> None:
        if self._chunk.last_number:
            chunk, self._chunk = self._chunk, Chunk()
            await self._submit(chunk)

    def _add(self, line: bytes | None) -> None:
        chunk = self._chunk
        chunk.last_number, chunk.body_bytes = self._number, self._n_read
        parsed = self._parser.parse(self._number, line)
        if parsed is None:
            return
        chunk.lines.append(parsed)
        chunk.n_bytes += len(line or b"")
        if isinstance(parsed, GoodLine) and parsed.vector is None:
            chunk.n_embed_chars += min(len(parsed.memory.text), _EMBEDDED_CHARS)


async def done_within(task: asyncio.Future[Any], seconds: float) -> bool:
    """Wait for a task, but not longer; whether it is done."""
    done, _ = await asyncio.wait({task}, timeout=seconds)
    return bool(done)
