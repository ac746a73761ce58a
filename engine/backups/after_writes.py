"""A backup after every burst of writes, off the write path."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from engine.errors import EngineError

_log = logging.getLogger(__name__)


class AutoBackup:
    """A thread that backs up once writes have paused, and during long bursts now and then."""

    def __init__(
        self,
        back_up: Callable[[], object],
        *,
        pause_s: float,
        longest_burst_s: float,
        retry_s: float,
    ) -> None:
        """Start the thread.

        Args:
            back_up: makes one backup; an error is logged and it is tried again.
            pause_s: a burst is over after this long without a write.
            longest_burst_s: a burst that goes on is backed up after this long.
            retry_s: after a failure.
        """
        self._back_up = back_up
        self._pause_s = pause_s
        self._longest_burst_s = longest_burst_s
        self._retry_s = retry_s
        self._changed = threading.Condition()
        self._first_s: float | None = None
        """When the oldest write without a backup was noticed, on the monotonic clock."""
        self._last_s = 0.0
        self._closing = False
        self.error: str | None = None
        """Why the last backup failed; None when it did not."""
        self._thread = threading.Thread(target=self._work, name="auto-backup", daemon=True)
        self._thread.start()

    def notice_write(self) -> None:
        """A write has been committed."""
        with self._changed:
            self._last_s = time.monotonic()
            if self._first_s is None:
                self._first_s = self._last_s
                self._changed.notify()

    def close(self) -> None:
        """Back up what has no backup yet, then stop. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while self._wait_for_pause():
            try:
                self._back_up()
                self.error = None
            except Exception as exc:  # noqa: BLE001 - the next attempt may go better
                known = isinstance(exc, EngineError)
                self.error = str(exc) if known else f"{type(exc).__name__}: {exc}"
                _log.warning("no automatic backup: %s", self.error, exc_info=not known)
                self._postpone()

    def _wait_for_pause(self) -> bool:
        """Whether a backup is due; False when closing with nothing left to do."""
        with self._changed:
            while True:
                if self._first_s is None:
                    if self._closing:
                        return False
                    self._changed.wait()
                    continue
                due_s = min(self._last_s + self._pause_s, self._first_s + self._longest_burst_s)
                left_s = due_s - time.monotonic()
                if left_s <= 0 or self._closing:
                    self._first_s = None
                    return True
                self._changed.wait(left_s)

    def _postpone(self) -> None:
        with self._changed:
            if self._closing:
                return
            self._first_s = self._last_s = time.monotonic() + self._retry_s
