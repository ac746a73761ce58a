"""Embedding by a pool: slow replicas are waited for, silent ones are not waited for alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, cast

import numpy as np
import pytest

from deployments.calls.handles import ServeEmbedderClient
from engine.errors import OverloadedError
from engine.records import FloatMatrix

PATIENCE_S = 60


class Response:
    """What a handle gives back: awaited for the answer, cancelled when nobody wants it."""

    def __init__(self, answer: asyncio.Future[FloatMatrix]) -> None:
        self.is_cancelled = False
        self._answer = answer

    def __await__(self) -> Generator[Any, None, FloatMatrix]:
        return self._answer.__await__()

    def cancel(self) -> None:
        self.is_cancelled = True


class Handle:
    """Replicas that answer when the test says so."""

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[FloatMatrix]] = []
        self.responses: list[Response] = []
        self.embed = self.embed_query = self

    def remote(self, *_: object) -> Response:
        self.answers.append(asyncio.get_running_loop().create_future())
        self.responses.append(Response(self.answers[-1]))
        return self.responses[-1]


async def until(holds: Callable[[], bool]) -> None:
    """Let other tasks go on until something holds."""

    async def wait() -> None:
        while not holds():
            await asyncio.sleep(0)

    await asyncio.wait_for(wait(), PATIENCE_S)


def client_of(handle: Handle) -> ServeEmbedderClient:
    return ServeEmbedderClient(cast(Any, handle), timeout_s=1, long_timeout_s=PATIENCE_S)


@pytest.mark.parametrize("answering", [0, 1], ids=["the slow one", "the other one"])
@pytest.mark.parametrize("method", ["embed_query", "embed_long"])
def test_after_a_silence_another_replica_is_asked_and_the_first_answer_counts(
    method: str, answering: int
) -> None:
    async def embed() -> FloatMatrix:
        handle = Handle()
        embedding = asyncio.create_task(getattr(client_of(handle), method)("a"))
        await until(lambda: len(handle.answers) == 2)
        handle.answers[answering].set_result(np.full((1, 3), answering, np.float32))
        embeddings: FloatMatrix = await asyncio.wait_for(embedding, PATIENCE_S)
        await until(lambda: handle.responses[1 - answering].is_cancelled)
        assert not handle.responses[answering].is_cancelled
        return embeddings

    assert (asyncio.run(embed()) == answering).all()


def test_a_replica_that_is_full_does_not_answer_for_the_slow_one() -> None:
    async def embed() -> FloatMatrix:
        handle = Handle()
        embedding = asyncio.create_task(client_of(handle).embed_long(["a"]))
        await until(lambda: len(handle.answers) == 2)
        handle.answers[1].set_exception(OverloadedError("full"))
        await asyncio.sleep(0.01)
        handle.answers[0].set_result(np.ones((1, 3), np.float32))
        embeddings: Any = await asyncio.wait_for(embedding, PATIENCE_S)
        return cast(FloatMatrix, embeddings)  # whatever a replica answers is handed on

    assert (asyncio.run(embed()) == 1).all()


def test_a_refusal_is_told_and_nobody_else_is_asked() -> None:
    async def embed() -> int:
        handle = Handle()
        embedding = asyncio.create_task(client_of(handle).embed_long(["a"]))
        await until(lambda: len(handle.answers) == 1)
        handle.answers[0].set_exception(OverloadedError("full"))
        with pytest.raises(OverloadedError):
            await embedding
        return len(handle.answers)

    assert asyncio.run(embed()) == 1
