"""What holds up what in the index actor, and what does not."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import pytest

from deployments.index import lanes as lanes_module
from deployments.index.lanes import Lanes
from engine.errors import OverloadedError
from engine.operations.operation import Lane

PATIENCE_S = 60.0


class Gate:
    """Work that ends when it is told to, and says that it is under way."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        self._begun = threading.Semaphore(0)

    def pass_through(self) -> str:
        self._begun.release()
        assert self._opened.wait(PATIENCE_S)
        return "through"

    async def wait_until_begun(self, n: int) -> None:
        for _ in range(n):
            assert await asyncio.to_thread(self._begun.acquire, timeout=PATIENCE_S)

    def open(self) -> None:
        self._opened.set()


@pytest.mark.parametrize("busy", [Lane.READ, Lane.SLOW, Lane.CLOUD])
def test_no_lane_holds_up_another(busy: Lane) -> None:
    async def ask() -> None:
        lanes, gate = Lanes(), Gate()
        held = [asyncio.create_task(lanes.run(busy, gate.pass_through)) for _ in range(8)]
        await gate.wait_until_begun(2)
        for lane in set(Lane) - {busy}:
            assert await asyncio.wait_for(lanes.run(lane, lambda: 7), PATIENCE_S) == 7
        assert not any(task.done() for task in held)
        gate.open()
        assert await asyncio.gather(*held) == ["through"] * 8

    asyncio.run(ask())


def test_reads_are_refused_while_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "_MAX_WAITING_READS", 3)

    async def ask() -> None:
        lanes, gate = Lanes(), Gate()
        held = [asyncio.create_task(lanes.run(Lane.READ, gate.pass_through)) for _ in range(3)]
        await gate.wait_until_begun(2)
        with pytest.raises(OverloadedError, match="too many reads"):
            await lanes.run(Lane.READ, lambda: 7)
        assert await lanes.run(Lane.LOOP, lambda: 7) == 7
        gate.open()
        await asyncio.gather(*held)
        assert await lanes.run(Lane.READ, lambda: 7) == 7

    asyncio.run(ask())


@pytest.mark.parametrize("lane", list(Lane))
def test_an_answer_that_is_still_being_made_is_waited_for(lane: Lane) -> None:
    async def ask() -> int:
        answer: Future[int] = Future()

        def making() -> int | Future[int]:
            return answer

        asking = asyncio.create_task(Lanes().run(lane, making))
        await asyncio.sleep(0)
        assert not asking.done()
        answer.set_result(7)
        return await asking

    assert asyncio.run(ask()) == 7


def test_threads_that_do_not_come_back_are_told_of_but_not_those_at_a_bucket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lanes_module, "_READ_PATIENCE_S", 0.0)

    async def ask() -> None:
        lanes, gate = Lanes(), Gate()
        held = [asyncio.create_task(lanes.run(Lane.CLOUD, gate.pass_through)) for _ in range(2)]
        await gate.wait_until_begun(2)
        assert lanes.problem() is None
        held += [asyncio.create_task(lanes.run(Lane.READ, gate.pass_through)) for _ in range(2)]
        await gate.wait_until_begun(2)
        assert "no reader thread has come back" in (lanes.problem() or "")
        gate.open()
        await asyncio.gather(*held)
        assert lanes.problem() is None

    asyncio.run(ask())
