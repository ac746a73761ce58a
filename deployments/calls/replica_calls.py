"""Calling the replicas of another deployment: errors unwrapped, deaths bridged, deadlines kept."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

import grpc
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)

from deployments.calls.parcels import ParcelLostError
from engine.errors import (
    DeadlinePassedError,
    EngineError,
    LeaseLostError,
    NotReadyError,
    OverloadedError,
    ShuttingDownError,
    TooLargeError,
    UnknownOutcomeError,
)

T = TypeVar("T")

_REPLICA_GONE = (
    RayActorError,
    ReplicaUnavailableError,
    DeploymentUnavailableError,
    ParcelLostError,
)
_RETRY_PAUSE_S = 0.1
_LONGEST_GRACE_S = 10.0
"""How much longer than its deadline a write is waited for: its commit may just be under way."""


class ReplicaCalls:
    """Calls of one deployment: its errors unwrapped, those that met a dying replica sent again.

    Sending again is safe: reads change nothing, and writes of memories and restores carry a request
    id. A backup or an upload may then be made twice.
    """

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    async def answer(self, send: Callable[[], Awaitable[T]], *, timeout_s: float = 0.0) -> T:
        """Await the answer to a read; `timeout_s` is for long work, restarts included.

        Raises:
            EngineError: what the replica raised.
            OverloadedError: its queue is full.
            NotReadyError: no replica answered in time.
        """
        patience_s = timeout_s or self._timeout_s
        try:
            return await _until_answered(lambda _: send(), patience_s=patience_s, grace_s=0.0)
        except asyncio.TimeoutError:
            raise NotReadyError(
                f"no answer within {patience_s:g} s; the service may be starting"
            ) from None

    async def once(self, send: Callable[[], Awaitable[T]]) -> T:
        """Await the answer of the replica that holds what is asked for; no other one has it.

        Raises:
            EngineError: what the replica raised.
            NotReadyError: it has died, and that with it; or it did not answer in time.
        """
        try:
            return await _unwrapped(send, until_s=time.monotonic() + self._timeout_s)
        except _REPLICA_GONE:
            raise NotReadyError("the part of the service that was asked has died") from None
        except asyncio.TimeoutError:
            raise NotReadyError(f"no answer within {self._timeout_s:g} s") from None

    async def write(
        self,
        send: Callable[[float], Awaitable[T]],
        *,
        timeout_s: float = 0.0,
        if_unknown: str = "send it again with the same Idempotency-Key",
    ) -> T:
        """Await the answer to a write.

        The index applies nothing past the deadline and says so itself, so it is waited for a
        little longer. Only when it still says nothing is the outcome unknown.

        Args:
            send: is given the deadline, in seconds since the epoch.
            timeout_s: for long work, restarts included.
            if_unknown: what the caller can do then.

        Raises:
            EngineError: what the replica raised.
            OverloadedError, NotReadyError: nothing was applied.
            UnknownOutcomeError: no replica answered.
        """
        patience_s = timeout_s or self._timeout_s
        try:
            return await _until_answered(
                send, patience_s=patience_s, grace_s=min(patience_s, _LONGEST_GRACE_S)
            )
        except asyncio.TimeoutError:
            raise UnknownOutcomeError(
                f"no answer within {patience_s:g} s: the request may or may not have been applied; "
                f"{if_unknown}"
            ) from None


async def _until_answered(
    send: Callable[[float], Awaitable[T]], *, patience_s: float, grace_s: float
) -> T:
    """Send until a replica answers. Raises `asyncio.TimeoutError`."""
    deadline_s = time.monotonic() + patience_s
    # The index may be on another machine, which has another monotonic clock.
    send_until_s = time.time() + patience_s
    lost = False
    while True:
        try:
            return await _unwrapped(
                functools.partial(send, send_until_s), until_s=deadline_s + grace_s
            )
        except _REPLICA_GONE:
            lost = True
        except (DeadlinePassedError, LeaseLostError):
            raise
        except ShuttingDownError:
            if not lost and time.monotonic() > deadline_s:
                raise
        except (NotReadyError, OverloadedError):
            # Says nothing of an earlier sending that died with its replica.
            if not lost:
                raise
        await asyncio.sleep(_RETRY_PAUSE_S)


async def _unwrapped(send: Callable[[], Awaitable[T]], *, until_s: float) -> T:
    """Send once; errors as the replica raised them."""
    try:
        return await asyncio.wait_for(_sent(send), max(until_s - time.monotonic(), 0.0))
    except RayTaskError as exc:
        if isinstance(exc.cause, EngineError):
            raise exc.cause from None
        raise
    except grpc.aio.AioRpcError as exc:
        if exc.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        raise TooLargeError(
            "what was asked, or its answer, is too large to be handed on within the service: a "
            "write may or may not have been applied; ask for less at a time"
        ) from exc
    except BackPressureError as exc:
        raise OverloadedError("the service is busy; try again shortly") from exc


async def _sent(send: Callable[[], Awaitable[T]]) -> T:
    return await send()


async def first_answer(ask: Callable[[], Coroutine[None, None, T]], *, pause_s: float) -> T:
    """Ask; after a silence ask once more, likely another replica, and take the first answer.

    A replica that says nothing may be slow, or on a machine that has lost its power: nothing
    tells the two apart for half a minute.
    """
    asked = {asyncio.ensure_future(ask())}
    unanswered = set(asked)
    patience_s: float | None = pause_s
    try:
        while True:
            answered, unanswered = await asyncio.wait(
                unanswered, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED
            )
            for each in sorted(answered, key=lambda each: each.exception() is not None):
                if not unanswered or each.exception() is None:
                    return each.result()
            if not answered:
                patience_s = None
                asked.add(again := asyncio.ensure_future(ask()))
                unanswered.add(again)
    finally:
        for each in asked:
            each.cancel()
