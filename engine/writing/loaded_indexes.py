"""The indexes that are in memory: as many as fit, the least recently used given back first."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from engine.search.search_index import SearchIndex


@dataclass(slots=True)
class _Loaded:
    index: SearchIndex
    n_uncached: int
    n_bytes: int


class LoadedIndexes:
    """Indexes by the id of their namespace. Any thread may call."""

    def __init__(self, max_bytes: int | None) -> None:
        """Hold none yet; when those held take more than `max_bytes`, some are given back."""
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._held: OrderedDict[int, _Loaded] = OrderedDict()
        self._n_users: Counter[int] = Counter()
        self._n_bytes = 0

    @property
    def n_bytes(self) -> int:
        """Memory of all that are held."""
        return self._n_bytes

    @property
    def is_full(self) -> bool:
        """Whether one more would be one too many."""
        return self._max_bytes is not None and self._n_bytes >= self._max_bytes

    def ids(self) -> list[int]:
        """Whose are held, the least recently used first."""
        with self._lock:
            return list(self._held)

    def all(self) -> dict[int, SearchIndex]:
        """Those that are held."""
        with self._lock:
            return {namespace_id: held.index for namespace_id, held in self._held.items()}

    def get(self, namespace_id: int) -> SearchIndex | None:
        """One that is held, which is used now; None for another."""
        with self._lock:
            held = self._held.get(namespace_id)
            if held is None:
                return None
            self._held.move_to_end(namespace_id)
            return held.index

    def put(self, namespace_id: int, index: SearchIndex, n_uncached: int) -> None:
        """Hold one, also in the place of another."""
        with self._lock:
            self._remove(namespace_id)
            self._held[namespace_id] = _Loaded(index, n_uncached, index.n_bytes)
            self._n_bytes += index.n_bytes
            self._give_back()

    def note_change(self, namespace_id: int, n_changes: int) -> None:
        """One was changed: so many memories came or went."""
        with self._lock:
            held = self._held.get(namespace_id)
            if held is None:
                return  # given back already
            held.n_uncached += n_changes
            n_bytes = held.index.n_bytes
            self._n_bytes += n_bytes - held.n_bytes
            held.n_bytes = n_bytes
            self._give_back()

    def n_uncached(self, namespace_id: int) -> int:
        """Memories of one that is held that the cache on disk does not know."""
        with self._lock:
            held = self._held.get(namespace_id)
            return 0 if held is None else held.n_uncached

    def note_cached(self, namespace_id: int) -> None:
        """The cache on disk knows all of one."""
        with self._lock:
            if namespace_id in self._held:
                self._held[namespace_id].n_uncached = 0

    def drop(self, namespace_id: int) -> None:
        """Give one back that has no more use."""
        with self._lock:
            self._remove(namespace_id)

    def clear(self) -> None:
        """Give all back: they show what has been replaced."""
        with self._lock:
            self._held.clear()
            self._n_bytes = 0

    @contextmanager
    def in_use(self, namespace_id: int) -> Iterator[None]:
        """While this lasts, the index of a namespace is not given back."""
        with self._lock:
            self._n_users[namespace_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_users[namespace_id] -= 1
                if not self._n_users[namespace_id]:
                    del self._n_users[namespace_id]
                self._give_back()

    def _remove(self, namespace_id: int) -> None:
        held = self._held.pop(namespace_id, None)
        if held is not None:
            self._n_bytes -= held.n_bytes

    def _give_back(self) -> None:
        """The one used last stays, however large it is."""
        if self._max_bytes is None or self._n_bytes <= self._max_bytes:
            return
        for namespace_id in list(self._held)[:-1]:
            if not self._n_users.get(namespace_id):
                self._remove(namespace_id)
            if self._n_bytes <= self._max_bytes:
                return
