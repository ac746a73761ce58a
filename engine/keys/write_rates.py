"""How often each key has written within the last minute."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from engine.errors import RateLimitedError
from engine.keys.records import Key

_MINUTE_S = 60.0


class WriteRates:
    """Counts the writes of limited keys; no minute, wherever it begins, ever has too many.

    Holds a time for each write of the last minute, which the service itself bounds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Have counted nothing.

        Args:
            clock: seconds, never going back.
        """
        self._clock = clock
        self._times_s: dict[str, deque[float]] = {}

    def admit(self, key: Key) -> None:
        """Count a write that is about to happen.

        Raises:
            RateLimitedError: one too many; it is not counted.
        """
        if key.writes_per_minute is None:
            return
        now_s = self._clock()
        times_s = self._times_s.setdefault(key.id, deque())
        while times_s and now_s - times_s[0] >= _MINUTE_S:
            times_s.popleft()
        if len(times_s) >= key.writes_per_minute:
            # The oldest of those that may be in a minute, also after the limit was lowered.
            since_s = now_s - times_s[-key.writes_per_minute]
            raise RateLimitedError(key.writes_per_minute, _MINUTE_S - since_s)
        times_s.append(now_s)

    def forget(self, key_id: str) -> None:
        """A key is revoked."""
        self._times_s.pop(key_id, None)
