"""Bulk embedding for imports: slow replicas are waited for, silent ones are not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from typing import Any, cast

import numpy as np
import pytest

from deployments.handles import ServeEmbedderClient
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
        self.embed = self

    def remote(self, texts: Sequence[str]) -> Response:
        self.answers.append(asyncio.get_running_loop().create_future())
        self.responses.append(Response(self.answers[-1]))
        return self.responses[-1]


async def until(holds: Callable[[], bool]) -> None:
    """Let other tasks go on until something holds."""

    async def wait() -> None:
        while not holds():
            await asyncio.sleep(0)

    await asyncio.wait_for(wait(), PATIENCE_S)


@pytest.mark.parametrize("answering", [0, 1], ids=["the slow one", "the other one"])
def test_after_a_silence_another_replica_is_asked_and_the_first_answer_counts(
    answering: int,
) -> None:
    async def embed() -> FloatMatrix:
        handle = Handle()
        client = ServeEmbedderClient(cast(Any, handle), timeout_s=0.01, long_timeout_s=PATIENCE_S)
        embedding = asyncio.create_task(client.embed_long(["a"]))
        await until(lambda: len(handle.answers) == 2)
        handle.answers[answering].set_result(np.full((1, 3), answering, np.float32))
        embeddings = await asyncio.wait_for(embedding, PATIENCE_S)
        await until(lambda: handle.responses[1 - answering].is_cancelled)
        assert not handle.responses[answering].is_cancelled
        return embeddings

    assert (asyncio.run(embed()) == answering).all()


def test_a_replica_that_answers_in_time_is_asked_alone() -> None:
    async def embed() -> int:
        handle = Handle()
        client = ServeEmbedderClient(
            cast(Any, handle), timeout_s=PATIENCE_S, long_timeout_s=PATIENCE_S
        )
        embedding = asyncio.create_task(client.embed_long(["a"]))
        await until(lambda: len(handle.answers) == 1)
        handle.answers[0].set_result(np.zeros((1, 3), np.float32))
        await embedding
        return len(handle.responses)

    assert asyncio.run(embed()) == 1
