"""What a caller is told of its write: 503 only when nothing was applied, 504 when nobody knows."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import pytest
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from deployments.calls.handles import ServeIndexClient
from deployments.calls.operations import ReadExport
from deployments.calls.replica_calls import ReplicaCalls
from engine.errors import (
    DeadlinePassedError,
    LeaseLostError,
    NotReadyError,
    OverloadedError,
    ShuttingDownError,
    TooLargeError,
    UnknownOutcomeError,
)
from engine.operations.offsite import RestoreSnapshot, UploadBackup
from engine.operations.operation import Operation, Within
from engine.operations.whole import CreateBackup, RestoreBackup
from engine.operations.writes import AddMemories, DeleteMemories, IngestLines
from engine.records import NewMemory
from tests.support.index_under_test import embeddings_of, open_index
from tests.support.service import Service, running_service

PATIENCE_S = 2.0
HERE = Within("default")


def test_a_write_past_its_deadline_is_not_applied(tmp_path: Path) -> None:
    memory = NewMemory(text="Too late.", source="test")
    index = open_index(tmp_path)
    late = index.add(
        [memory],
        embeddings_of([memory.text]),
        request_id="one",
        deadline_s=time.time() - 1,
    )
    with pytest.raises(DeadlinePassedError):
        late.result()
    assert index.count() == index.stats().n_stored == 0
    index.close()


def test_the_outcome_of_an_applied_write_is_told_also_past_the_deadline(tmp_path: Path) -> None:
    memory = NewMemory(text="In time.", source="test")
    index = open_index(tmp_path)
    outcomes = [
        index.add(
            [memory],
            embeddings_of([memory.text]),
            request_id="one",
            deadline_s=time.time() + left_s,
        ).result()
        for left_s in (60, -1)
    ]
    assert outcomes[0] == outcomes[1]
    assert index.count() == 1
    index.close()


class Replica:
    """Answers each sending with the next of its outcomes, and the last one for ever."""

    def __init__(self, *outcomes: object) -> None:
        self._outcomes = list(outcomes)

    async def send(self, deadline_s: float) -> object:
        assert deadline_s > 0
        outcome = self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]
        if outcome == "silence":
            await asyncio.sleep(600)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


GONE = DeploymentUnavailableError("Index")


@pytest.mark.parametrize(
    ("outcomes", "told"),
    [
        ([7], 7),
        ([GONE, 7], 7),
        ([ShuttingDownError("shutting down"), 7], 7),
        ([GONE, OverloadedError("full"), 7], 7),
        ([OverloadedError("full")], OverloadedError),
        ([ShuttingDownError("shutting down")], ShuttingDownError),
        ([NotReadyError("waiting for the cloud"), 7], NotReadyError),
        ([DeadlinePassedError("late")], DeadlinePassedError),
        ([GONE, DeadlinePassedError("late")], DeadlinePassedError),
        ([GONE, LeaseLostError("build again")], LeaseLostError),
        ([TooLargeError("too large"), 7], TooLargeError),
        (["silence"], UnknownOutcomeError),
        ([GONE], UnknownOutcomeError),
        ([GONE, OverloadedError("full")], UnknownOutcomeError),
    ],
)
def test_only_a_refusal_that_is_certain_is_told_as_one(
    outcomes: list[object], told: object
) -> None:
    calls = ReplicaCalls(timeout_s=0.3)
    if isinstance(told, type):
        with pytest.raises(told) as raised:
            asyncio.run(calls.write(Replica(*outcomes).send))
        assert type(raised.value) is told
    else:
        assert asyncio.run(calls.write(Replica(*outcomes).send)) == told


class DyingHandle:
    """A deployment whose only replica dies with each call."""

    n_calls = 0

    def __getattr__(self, name: str) -> DyingHandle:
        return self

    async def remote(self, *_: object, **__: object) -> None:
        self.n_calls += 1
        raise GONE


def test_what_died_with_a_replica_is_not_asked_for_again() -> None:
    handle = DyingHandle()
    index = ServeIndexClient(
        cast(DeploymentHandle[Any], handle), timeout_s=PATIENCE_S, long_timeout_s=PATIENCE_S
    )
    with pytest.raises(NotReadyError, match="has died"):
        asyncio.run(index.ask(ReadExport("one", 1, within=HERE)))
    assert handle.n_calls == 1


class SilentHandle:
    """A deployment that answers nothing."""

    def __getattr__(self, name: str) -> SilentHandle:
        return self

    async def remote(self, *_: object, **__: object) -> None:
        await asyncio.sleep(600)


@pytest.mark.parametrize(
    ("operation", "advice"),
    [
        (DeleteMemories([], request_id="one", within=HERE), "Idempotency-Key"),
        (CreateBackup("manual"), "GET /backups"),
        (RestoreBackup("manual_1", request_id="one"), "Idempotency-Key"),
        (UploadBackup("sync", overwrite=False), "GET /sync/snapshots"),
        (RestoreSnapshot("manual_1", request_id="one"), "Idempotency-Key"),
    ],
)
def test_of_a_write_without_an_answer_the_caller_is_told_how_to_learn_more(
    operation: Operation[object], advice: str
) -> None:
    handle = cast(DeploymentHandle[Any], SilentHandle())
    index = ServeIndexClient(handle, timeout_s=0.05, long_timeout_s=0.05)
    with pytest.raises(UnknownOutcomeError, match=advice):
        asyncio.run(index.ask(operation))


class NotingHandle:
    """A deployment that notes how long each write may take."""

    def __init__(self) -> None:
        self.allowed_s: list[float] = []

    def __getattr__(self, name: str) -> NotingHandle:
        return self

    async def remote(self, _method: str, request: bytes) -> bytes:
        (write,), _ = pickle.loads(request)
        self.allowed_s.append(write.deadline_s - time.time())
        return pickle.dumps([])


def test_a_batch_of_long_texts_may_take_longer() -> None:
    handle = NotingHandle()
    index = ServeIndexClient(
        cast(DeploymentHandle[Any], handle), timeout_s=PATIENCE_S, long_timeout_s=PATIENCE_S
    )

    async def write(memories: list[NewMemory]) -> None:
        embeddings = np.zeros((len(memories), 8), np.float32)
        await index.ask(AddMemories(memories, embeddings, request_id="one", within=HERE))
        await index.ask(IngestLines(memories, embeddings, request_id="two", within=HERE))

    asyncio.run(write([NewMemory(text="x", source="test")]))
    asyncio.run(write([NewMemory(text="x" * 50_000, source="test")] * 20))
    assert max(handle.allowed_s[:2]) <= PATIENCE_S + 1
    assert min(handle.allowed_s[2:]) > PATIENCE_S + 2


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    env = {"REQUEST_TIMEOUT_S": str(PATIENCE_S)}
    with running_service(tmp_path_factory.mktemp("outcomes"), env=env) as service:
        yield service


@pytest.mark.service
@pytest.mark.parametrize("frozen_s", [1.25 * PATIENCE_S, None])
def test_a_write_that_an_index_never_came_to_happens_only_when_it_is_sent_again(
    service: Service, frozen_s: float | None
) -> None:
    body = {"text": f"Sent to a frozen index {frozen_s}.", "source": f"frozen/{frozen_s}"}
    key = {"Idempotency-Key": f"frozen-{frozen_s}"}
    [pid] = service.replica_pids("Index")
    with (
        httpx.Client(base_url=service.base_url, timeout=60, trust_env=False) as client,
        ThreadPoolExecutor(1) as threads,
    ):
        assert client.get("/health/ready").status_code == 200
        os.kill(pid, signal.SIGSTOP)
        try:
            sending = threads.submit(client.post, "/memory/add", json=body, headers=key)
            if frozen_s is None:
                sending.result()
            else:
                time.sleep(frozen_s)
        finally:
            os.kill(pid, signal.SIGCONT)
        answer = sending.result()
        assert answer.status_code in ({504} if frozen_s is None else {503, 504})
        assert int(answer.headers["retry-after"]) > 0

        def stored() -> int:
            query = {"source_prefix": body["source"]}
            total: int = client.get("/memories", params=query).json()["total"]
            return total

        # A write that comes after it has come to the index: what was sent before would be there.
        client.post("/memory/add", json={"text": "A later one.", "source": "later"})
        assert stored() == 0
        again = [client.post("/memory/add", json=body, headers=key) for _ in range(2)]
        assert [answer.status_code for answer in again] == [200, 200]
        assert again[0].json() == again[1].json()
        assert stored() == 1
