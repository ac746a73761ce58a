"""Threads for one kind of work, that can tell when none of them comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class ThreadLane:
    """A few threads, and since when each has been at what it does."""

    def __init__(self, name: str, n_threads: int, *, patience_s: float) -> None:
        """Start no thread yet.

        Args:
            name: what operators know the work by.
            n_threads: how much of it is done at a time.
            patience_s: when all threads have been at the same work for longer, they are stuck.
        """
        self._name = name
        self._n_threads = n_threads
        self._patience_s = patience_s
        self._threads = ThreadPoolExecutor(n_threads, name)
        self._began_s: dict[object, float] = {}

    async def run(self, function: Callable[[], T]) -> T:
        """Run it in one of the threads, when one is free."""

        def run() -> T:
            work = object()
            self._began_s[work] = time.monotonic()
            try:
                return function()
            finally:
                del self._began_s[work]

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    def problem(self) -> str | None:
        """What to tell an operator when no thread has come back for too long."""
        began_s = list(self._began_s.values())
        if len(began_s) < self._n_threads:
            return None
        stuck_s = time.monotonic() - max(began_s)
        if stuck_s < self._patience_s:
            return None
        return f"no {self._name} thread has come back for {stuck_s:.0f} s; what needs one waits"
