"""Where the operations of one index run, so that none holds up what it should not."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from deployments.index.thread_lane import ThreadLane
from engine.errors import OverloadedError
from engine.operations.operation import Lane

T = TypeVar("T")

_READER_THREADS = 2
_SLOW_THREADS = 2
_CLOUD_THREADS = 2
_MAX_WAITING_READS = 512
_READ_PATIENCE_S = 60.0
_SLOW_PATIENCE_S = 1800.0
"""Builds take minutes; when all threads are away for half an hour, no backup is made either."""


class Lanes:
    """Threads for each kind of work; writes go to the engine's own."""

    def __init__(self) -> None:
        """Start no thread yet."""
        self._threads = {
            Lane.READ: ThreadLane("reader", _READER_THREADS, patience_s=_READ_PATIENCE_S),
            Lane.SLOW: ThreadLane("slow", _SLOW_THREADS, patience_s=_SLOW_PATIENCE_S),
            # A bucket that does not answer is no reason to start the index again.
            Lane.CLOUD: ThreadLane("cloud", _CLOUD_THREADS, patience_s=math.inf),
        }
        self._n_reads = 0

    async def run(self, lane: Lane, work: Callable[[], T | Future[T]]) -> T:
        """Run it where it belongs; an answer that is still being made is waited for.

        Raises:
            OverloadedError: it is a read, and too many of them wait.
        """
        if lane is Lane.READ:
            answer = await self._read(work)
        elif lane in self._threads:
            answer = await self._threads[lane].run(work)
        else:
            answer = work()
        return await asyncio.wrap_future(answer) if isinstance(answer, Future) else answer

    async def _read(self, work: Callable[[], T]) -> T:
        if self._n_reads >= _MAX_WAITING_READS:
            raise OverloadedError("too many reads are waiting; try again shortly")
        self._n_reads += 1
        try:
            return await self._threads[Lane.READ].run(work)
        finally:
            self._n_reads -= 1

    def problem(self) -> str | None:
        """What to tell an operator of threads that do not come back."""
        return next(filter(None, (lane.problem() for lane in self._threads.values())), None)
