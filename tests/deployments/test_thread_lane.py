"""Threads for one kind of work: they tell when all of them are stuck, and only then."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

from deployments.index.thread_lane import ThreadLane


def test_a_lane_whose_threads_all_stay_away_says_so_until_one_is_back() -> None:
    async def scenario() -> None:
        lane = ThreadLane("reader", 2, patience_s=0.0)
        may_end = [threading.Event(), threading.Event()]
        has_begun = threading.Barrier(3)

        def work(event: threading.Event) -> None:
            has_begun.wait()
            event.wait()

        assert lane.problem() is None
        running = [asyncio.ensure_future(lane.run(partial(work, event))) for event in may_end]
        await asyncio.to_thread(has_begun.wait)
        problem = lane.problem()
        assert problem is not None
        assert "reader" in problem

        may_end[0].set()
        await running[0]
        assert lane.problem() is None
        may_end[1].set()
        await running[1]

    asyncio.run(scenario())


def test_a_busy_lane_is_not_a_stuck_one() -> None:
    async def scenario() -> None:
        lane = ThreadLane("slow", 1, patience_s=3600)
        problem = await lane.run(lane.problem)
        assert problem is None

    asyncio.run(scenario())
