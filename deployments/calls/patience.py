"""Long work that waits out an overload or a restart instead of failing for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from engine.errors import NotReadyError, OverloadedError, UnknownOutcomeError

T = TypeVar("T")

_PATIENCE_S = 300.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Call again while the called one is full or restarting; each call happens once there.

    Raises:
        OverloadedError, NotReadyError, UnknownOutcomeError: still, after some minutes.
    """
    deadline_s = time.monotonic() + _PATIENCE_S
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return await call()
        except (OverloadedError, NotReadyError, UnknownOutcomeError):
            if time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
