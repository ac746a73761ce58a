"""Things held for a caller between two of its calls, under an id, while it goes on calling."""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from engine.errors import LeaseLostError, OverloadedError

T = TypeVar("T")

_SWEEP_S = 10.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Lease(Generic[T]):
    thing: T
    weight: int
    began_s: float = field(default_factory=time.monotonic)
    used_s: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Leases(Generic[T]):
    """Things of one kind, each used by one caller at a time. Any thread may call."""

    def __init__(
        self,
        what: str,
        *,
        max_weight: int,
        longest_pause_s: float,
        longest_s: float = math.inf,
        close: Callable[[T], None] | None = None,
    ) -> None:
        """Hold nothing yet.

        Args:
            what: the caller's word for one, also as a verb: `export`.
            max_weight: of all that are held; one that is heavier may still be held alone.
            longest_pause_s: one not used for so long is ended.
            longest_s: one begun so long ago is ended.
            close: called with each that ends.
        """
        self._what = what
        self._max_weight = max_weight
        self._longest_pause_s = longest_pause_s
        self._longest_s = longest_s
        self._close = close
        self._held: dict[str, _Lease[T]] = {}
        self._lock = threading.Lock()
        self._sweeper: threading.Timer | None = None

    def begin(self, make: Callable[[], T], *, weight: int = 1) -> str:
        """Hold what `make` returns; its id.

        Raises:
            OverloadedError: too much is held.
        """
        self.sweep()
        lease_id = uuid.uuid4().hex
        with self._lock:
            held = sum(lease.weight for lease in self._held.values())
            if held and held + weight > self._max_weight:
                raise OverloadedError(f"too much is held for each {self._what}; try again later")
            self._held[lease_id] = _Lease(make(), weight)
            self._schedule_sweep()
        return lease_id

    @contextmanager
    def using(self, lease_id: str) -> Iterator[T]:
        """What is held under an id, for this caller alone.

        Raises:
            LeaseLostError: nothing is: it was ended, or held by a process that has died.
        """
        with self._lock:
            lease = self._held.get(lease_id)
        if lease is None:
            raise self.lost()
        with lease.lock:
            try:
                yield lease.thing
            finally:
                lease.used_s = time.monotonic()

    def lost(self) -> LeaseLostError:
        """What to tell whoever asks for one that is not held for them."""
        return LeaseLostError(
            f"the {self._what} was ended because it took too long or the service restarted; "
            f"{self._what} again"
        )

    def take(self, lease_id: str) -> T:
        """What is held under an id, from now on the caller's own. Raises `LeaseLostError`."""
        with self.using(lease_id) as thing, self._lock:
            self._held.pop(lease_id, None)
        return thing

    def end(self, lease_id: str) -> None:
        """Let go of one; nothing happens when it is gone already."""
        with self._lock:
            lease = self._held.pop(lease_id, None)
        if lease is not None and self._close is not None:
            with lease.lock:
                self._close(lease.thing)

    def sweep(self) -> None:
        """End those whose callers paused or took too long."""
        now_s = time.monotonic()
        with self._lock:
            late = [
                lease_id
                for lease_id, lease in self._held.items()
                if not lease.lock.locked()
                and (
                    now_s - lease.used_s > self._longest_pause_s
                    or now_s - lease.began_s > self._longest_s
                )
            ]
        for lease_id in late:
            _log.warning("a %s was ended because it took too long", self._what)
            self.end(lease_id)

    def close(self) -> None:
        """End them all."""
        with self._lock:
            if self._sweeper is not None:
                self._sweeper.cancel()
            lease_ids = list(self._held)
        for lease_id in lease_ids:
            self.end(lease_id)

    def _schedule_sweep(self) -> None:
        """Look again later, while one is held; the caller holds the lock."""
        if self._sweeper is None or not self._sweeper.is_alive():
            self._sweeper = threading.Timer(_SWEEP_S, self._sweep_again)
            self._sweeper.daemon = True
            self._sweeper.start()

    def _sweep_again(self) -> None:
        self.sweep()
        with self._lock:
            self._sweeper = None
            if self._held:
                self._schedule_sweep()
