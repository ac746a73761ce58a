"""Many readers or one writer, in one process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ReadWriteLock:
    """Shared for reads of the in-memory state, exclusive for its short changes.

    A waiting writer goes before readers that come after it, so that writes never starve.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._n_readers = 0
        self._writing = False
        self._n_waiting_writers = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold off writers. Not reentrant."""
        with self._changed:
            while self._writing or self._n_waiting_writers:
                self._changed.wait()
            self._n_readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._n_readers -= 1
                if not self._n_readers:
                    self._changed.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold off everyone else. Not reentrant."""
        with self._changed:
            self._n_waiting_writers += 1
            while self._writing or self._n_readers:
                self._changed.wait()
            self._n_waiting_writers -= 1
            self._writing = True
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
