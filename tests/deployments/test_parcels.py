"""Calls between replicas in pieces, whatever their size."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Coroutine
from typing import Any, cast

import grpc
import pytest
from ray.serve.handle import DeploymentHandle

from deployments.calls.parcels import ParcelHandle, ParcelReplica
from deployments.calls.replica_calls import ReplicaCalls
from engine.errors import (
    MemoryNotFoundError,
    NotReadyError,
    OverloadedError,
    TooLargeError,
    UnknownOutcomeError,
)

PIECE_BYTES = 1_000
OVERHEAD_BYTES = 200
PATIENCE_S = 5.0


class Echo(ParcelReplica):
    """Answers what it is asked, and counts how often."""

    def __init__(self, **bounds: int) -> None:
        super().__init__(piece_bytes=PIECE_BYTES, **bounds)
        self.n_calls = 0

    async def echo(self, text: str, *, times: int = 1) -> str:
        self.n_calls += 1
        return text * times

    async def refuse(self) -> None:
        raise MemoryNotFoundError(7)


class Wire:
    """A Serve handle that measures its messages; `replica` may be replaced at any time."""

    def __init__(self, replica: ParcelReplica) -> None:
        self.replica = replica
        self.largest_bytes = 0
        self.n_messages = 0
        self.on_message: Callable[[], None] = lambda: None

    def __getattr__(self, method: str) -> Wire:
        self._method = method
        return self

    async def remote(self, *args: Any) -> Any:
        method = self._method
        self.on_message()
        answer = await getattr(self.replica, method)(*args)
        sizes = [len(pickle.dumps(value)) for value in (args, answer)]
        self.largest_bytes = max(self.largest_bytes, *sizes)
        self.n_messages += 1
        return answer


def handle_over(wire: Wire) -> ParcelHandle:
    return ParcelHandle(cast(DeploymentHandle[Any], wire), piece_bytes=PIECE_BYTES)


@pytest.mark.parametrize("n_sent", [1, PIECE_BYTES, 10 * PIECE_BYTES + 7])
@pytest.mark.parametrize("times", [0, 1, 30])
def test_what_is_sent_and_answered_arrives_whole_in_small_messages(n_sent: int, times: int) -> None:
    wire = Wire(Echo())
    answer = asyncio.run(handle_over(wire).echo.remote("ä" * n_sent, times=times))
    assert answer == "ä" * n_sent * times
    assert wire.largest_bytes <= PIECE_BYTES + OVERHEAD_BYTES


def test_a_small_call_is_one_message() -> None:
    wire = Wire(Echo())
    asyncio.run(handle_over(wire).echo.remote("short"))
    assert wire.n_messages == 1


def test_an_error_arrives_as_it_was_raised() -> None:
    with pytest.raises(MemoryNotFoundError):
        asyncio.run(handle_over(Wire(Echo())).refuse.remote())


def test_a_caller_of_another_release_is_told_to_come_again() -> None:
    replica = Echo()
    large, unknown = "x" * 2 * PIECE_BYTES, b"cengine.operations.reads\nUnknown\n."
    with pytest.raises(NotReadyError, match="being updated"):
        asyncio.run(handle_over(Wire(replica)).what_there_was_before.remote(large))
    with pytest.raises(NotReadyError, match="being updated"):
        asyncio.run(replica.call("echo", unknown))
    assert replica.n_calls == 0


@pytest.mark.parametrize("dies_at", [2, 12, 20])
def test_a_call_whose_pieces_died_with_the_replica_goes_anew(dies_at: int) -> None:
    first, second = Echo(), Echo()
    wire = Wire(first)
    text = "x" * (10 * PIECE_BYTES)

    def die() -> None:
        if wire.n_messages == dies_at:
            wire.replica = second

    wire.on_message = die
    calls = ReplicaCalls(timeout_s=PATIENCE_S)
    answer = asyncio.run(calls.write(lambda _: handle_over(wire).echo.remote(text)))
    assert answer == text
    assert second.n_calls == 1


def test_a_large_request_is_refused_while_too_much_is_held() -> None:
    replica = Echo(max_held_bytes=3 * PIECE_BYTES)
    asyncio.run(replica.begin_parcel(2 * PIECE_BYTES))
    with pytest.raises(OverloadedError):
        asyncio.run(handle_over(Wire(replica)).echo.remote("x" * 2 * PIECE_BYTES))
    assert replica.n_calls == 0


def test_an_answer_that_cannot_be_held_is_not_told_as_a_refusal() -> None:
    replica = Echo(max_held_bytes=3 * PIECE_BYTES)
    asyncio.run(replica.begin_parcel(2 * PIECE_BYTES))
    with pytest.raises(UnknownOutcomeError, match="too many large ones"):
        asyncio.run(handle_over(Wire(replica)).echo.remote("x", times=2 * PIECE_BYTES))
    assert replica.n_calls == 1


def test_what_has_arrived_is_held_no_longer() -> None:
    replica = Echo(max_held_bytes=1)

    async def ask() -> None:
        handle = handle_over(Wire(replica))
        for _ in range(3):
            await handle.echo.remote("x" * 5 * PIECE_BYTES)

    asyncio.run(ask())
    assert replica.n_calls == 3


@pytest.mark.parametrize("call", [ReplicaCalls.answer, ReplicaCalls.once, ReplicaCalls.write])
def test_a_message_that_grpc_refuses_is_told_as_too_large(
    call: Callable[..., Coroutine[Any, Any, object]],
) -> None:
    async def send(*_: object) -> None:
        nothing = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, nothing, nothing)

    with pytest.raises(TooLargeError, match="may or may not have been applied"):
        asyncio.run(call(ReplicaCalls(timeout_s=PATIENCE_S), send))
