"""Typed clients of the other deployments over Serve handles.

The only module that calls `.remote()`; see `deployments.calls.protocols` for what each call does.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from ray.serve.handle import DeploymentHandle, DeploymentResponse

from deployments.calls.parcels import ParcelHandle
from deployments.calls.part_reports import PartReport
from deployments.calls.replica_calls import ReplicaCalls, first_answer
from engine.operations.operation import Operation, Remedy
from engine.records import EmbeddedQuery, Embeddings

T = TypeVar("T")
ALL_WINDOWS = sys.maxsize
_LEAST_CHARS_PER_S = 250_000
"""Of texts that the index takes in, a tenth of what it does on an idle machine."""
_REMEDIES = {
    Remedy.SEND_AGAIN: "send it again with the same Idempotency-Key",
    Remedy.LIST_BACKUPS: "GET /backups tells",
    Remedy.LIST_SNAPSHOTS: "GET /sync/snapshots tells",
}


class ServeEmbedderClient:
    """`EmbedderClient` over a Serve handle."""

    def __init__(
        self, handle: DeploymentHandle, *, timeout_s: float, long_timeout_s: float
    ) -> None:
        self._handle = handle
        self._calls = ReplicaCalls(timeout_s=timeout_s)
        self._timeout_s = timeout_s
        self._long_timeout_s = long_timeout_s

    async def embed_query(self, text: str) -> EmbeddedQuery:
        """Embed one query."""
        return await first_answer(
            lambda: self._asked(lambda: self._handle.embed_query.remote(text), self._timeout_s),
            pause_s=self._timeout_s / 10,
        )

    async def embed_queries(self, texts: Sequence[str]) -> list[EmbeddedQuery]:
        """Embed queries in bulk, in order."""
        return await self._calls.answer(lambda: self._handle.embed_queries.remote(texts))

    async def embed_one(self, text: str) -> Embeddings:
        """Embed one text ahead of bulk work."""
        return await first_answer(
            lambda: self._asked(lambda: self._handle.embed_one.remote(text), self._timeout_s),
            pause_s=self._timeout_s / 10,
        )

    async def embed(self, texts: Sequence[str], max_windows: int = 1) -> Embeddings:
        """Embed texts in bulk, in order."""
        return await self._calls.answer(lambda: self._handle.embed.remote(texts, max_windows))

    async def embed_long(self, texts: Sequence[str], max_windows: int = 1) -> Embeddings:
        """Embed texts in bulk, in order, however long that takes a busy pool."""
        return await first_answer(
            lambda: self._asked(
                lambda: self._handle.embed.remote(texts, max_windows), self._long_timeout_s
            ),
            pause_s=self._timeout_s,
        )

    async def _asked(self, send: Callable[[], DeploymentResponse[T]], timeout_s: float) -> T:
        """The answer of whichever replica; cancelled, the replica embeds no longer for nobody."""
        responses: list[DeploymentResponse[T]] = []

        def sent() -> DeploymentResponse[T]:
            responses.append(send())
            return responses[-1]

        try:
            return await self._calls.answer(sent, timeout_s=timeout_s)
        except asyncio.CancelledError:
            for response in responses[-1:]:
                response.cancel()
            raise

    async def reports(self) -> list[PartReport]:
        """What each replica of the pool says of itself; one that is dying says nothing."""
        answers = await self._calls.answer(
            lambda: self._handle.broadcast("report").results_async(return_exceptions=True)
        )
        return [answer for answer in answers if isinstance(answer, PartReport)]


def blocking_embed(
    handle: DeploymentHandle, *, timeout_s: float
) -> Callable[[Sequence[str]], Embeddings]:
    """What embeds all windows of texts for a thread beside the event loop that runs now.

    It raises what the pool raises, and `OverloadedError` when that does not answer in time.
    """
    loop = asyncio.get_running_loop()
    client = ServeEmbedderClient(handle, timeout_s=timeout_s, long_timeout_s=timeout_s)

    def embed(texts: Sequence[str]) -> Embeddings:
        answer = asyncio.run_coroutine_threadsafe(client.embed_long(texts, ALL_WINDOWS), loop)
        return answer.result()

    return embed


class ServeIndexClient:
    """`IndexClient` over a Serve handle."""

    def __init__(
        self, handle: DeploymentHandle, *, timeout_s: float, long_timeout_s: float
    ) -> None:
        self._handle = ParcelHandle(handle)
        self._calls = ReplicaCalls(timeout_s=timeout_s)
        self._timeout_s = timeout_s
        self._long_timeout_s = long_timeout_s

    async def ask(self, operation: Operation[T]) -> T:
        """Send an operation as it wants to be sent; see `ReplicaCalls` for what that raises."""

        def send(deadline_s: float = math.inf) -> Awaitable[T]:
            return self._handle.ask.remote(operation.until(deadline_s))

        timeout_s = self._long_timeout_s if operation.is_long else self._timeout_s
        timeout_s += operation.n_chars / _LEAST_CHARS_PER_S
        if operation.if_unknown is not None:
            if_unknown = _REMEDIES[operation.if_unknown]
            return await self._calls.write(send, timeout_s=timeout_s, if_unknown=if_unknown)
        if operation.is_sent_again:
            return await self._calls.answer(send, timeout_s=timeout_s)
        return await self._calls.once(send)
