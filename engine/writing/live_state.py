"""The store and the indexes of its namespaces, as reads and writes share them.

Each namespace has an index of its own, so that no word count, score or time of one tells what
another holds. The large ones are loaded at start, the others when they are first asked for.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.namespaces import DEFAULT
from engine.search.bm25 import BM25Index
from engine.search.postings_cache import cache_path, caches_in, load_index
from engine.search.search_index import SearchIndex
from engine.search.vectors.later_windows import LaterWindows
from engine.search.vectors.vector_index import VectorIndex
from engine.store.database import Store
from engine.store.layout.namespaces import NO_NAMESPACE, NamespaceFacts, Namespaces
from engine.writing.loaded_indexes import LoadedIndexes
from engine.writing.rw_lock import ReadWriteLock

_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """How indexes are loaded and held."""

    data_dir: Path
    """That holds the caches."""
    exact_below: int
    """Memories from which searches use RaBitQ codes."""
    large_from: int
    """Memories from which a namespace is loaded at start and has a cache."""
    max_bytes: int | None
    """That all indexes in memory should take; None is no bound."""


@dataclass(frozen=True, slots=True)
class View:
    """A namespace as of one moment."""

    store: Store
    namespace_id: int
    index: SearchIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyStore:
    """A store with the indexes that are loaded at start, ready to take the live one's place."""

    namespaces: Namespaces
    indexes: list[tuple[int, SearchIndex, int]] = field(default_factory=list)
    """Namespace id, index, memories that the cache does not know."""


class LiveState:
    """What a restore replaces together. Any thread may call."""

    def __init__(self, store: Store, settings: IndexSettings) -> None:
        """Load the indexes of `default` and of what is large."""
        self.store = store
        self.settings = settings
        self.lock = ReadWriteLock()
        """Shared by searches, exclusive for changes of the indexes and for the swap."""
        self.store_lock = ReadWriteLock()
        """Shared by all that read the store, exclusive for the swap alone: writers need not wait
        for reads of SQLite, which has snapshots. Whoever takes more takes this one first."""
        self.changing = threading.Lock()
        """Held from the beginning of a commit until the indexes show it. Before `lock`."""
        self.broken: Exception | None = None
        """Why the indexes no longer show what the store holds; only a restart mends that."""
        self.indexes = LoadedIndexes(settings.max_bytes)
        self._nothing = _empty_index(store.identity.dim)
        self._loading: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)
        self.adopt(self.ready(store, with_caches=True))
        self._sweep_caches()

    def ready(self, store: Store, *, with_caches: bool) -> ReadyStore:
        """Read the namespaces of a store, and load the indexes that are to be ready at once."""
        known = store.namespaces()
        indexes: list[tuple[int, SearchIndex, int]] = []
        n_bytes, bound = 0, self.settings.max_bytes
        for facts in sorted(known, key=lambda facts: (facts.name != DEFAULT, -facts.n_memories)):
            if self.is_kept_ready(facts) and (not indexes or bound is None or n_bytes < bound):
                index, n_uncached = self._load(store, facts.id, with_cache=with_caches)
                indexes.append((facts.id, index, n_uncached))
                n_bytes += index.n_bytes
        return ReadyStore(namespaces=Namespaces(known), indexes=indexes)

    def adopt(self, ready: ReadyStore) -> None:
        """Show a store's namespaces and indexes from now on."""
        self.namespaces = ready.namespaces
        self.indexes.clear()
        for loaded in reversed(ready.indexes):
            self.indexes.put(*loaded)

    def is_kept_ready(self, facts: NamespaceFacts) -> bool:
        """Whether a namespace is loaded at start, and has a cache for that."""
        return facts.name == DEFAULT or facts.n_memories >= self.settings.large_from

    def _sweep_caches(self) -> None:
        """Remove what a killed process left of namespaces that it had deleted."""
        known = self.namespaces.ids()
        kept = {cache_path(self.settings.data_dir, namespace_id) for namespace_id in known}
        for path in caches_in(self.settings.data_dir):
            if path not in kept:
                path.unlink(missing_ok=True)

    def id_of(self, name: str) -> int:
        """The id of a namespace; `NO_NAMESPACE` for none."""
        facts = self.namespaces.get(name)
        return NO_NAMESPACE if facts is None else facts.id

    def count(self, name: str) -> int:
        """Memories in a namespace. In memory, takes no lock."""
        facts = self.namespaces.get(name)
        return 0 if facts is None else facts.n_memories

    @contextmanager
    def reading(self, name: str) -> Iterator[View]:
        """A namespace's part of store and indexes, as they are and stay meanwhile."""
        while True:
            namespace_id = self.id_of(name)
            with self.indexes.in_use(namespace_id):
                if namespace_id != NO_NAMESPACE and self.indexes.get(namespace_id) is None:
                    self._load_beside_writes(namespace_id)
                with self.store_lock.shared(), self.lock.shared():
                    if self.id_of(name) != namespace_id:
                        continue  # restored, renamed or deleted meanwhile
                    index = self._nothing
                    if namespace_id != NO_NAMESPACE:
                        held = self.indexes.get(namespace_id)
                        if held is None:
                            continue
                        index = held
                    yield View(self.store, namespace_id, index)
                    return

    def index_for_write(self, namespace_id: int) -> SearchIndex:
        """The index of a namespace as of the last commit, for the thread that holds `changing`."""
        if namespace_id == NO_NAMESPACE:
            return self._nothing
        index = self.indexes.get(namespace_id)
        if index is None:
            index, n_uncached = self._load(self.store, namespace_id, with_cache=True)
            self.indexes.put(namespace_id, index, n_uncached)
        return index

    def _load_beside_writes(self, namespace_id: int) -> None:
        """Load an index; writes go on, and if they change it in the end, it is loaded again."""
        with self._loading[namespace_id]:
            for _ in range(_TRIES):
                with self.store_lock.shared():
                    before = self.namespaces.with_id(namespace_id)
                    if before is None or self.indexes.get(namespace_id) is not None:
                        return
                    index, n_uncached = self._load(self.store, namespace_id, with_cache=True)
                    with self.changing:
                        if self.indexes.get(namespace_id) is not None:
                            return
                        if self.namespaces.with_id(namespace_id) is before:
                            self.indexes.put(namespace_id, index, n_uncached)
                            return
            with self.store_lock.shared(), self.changing:
                if self.namespaces.with_id(namespace_id) is not None:
                    self.index_for_write(namespace_id)

    def _load(
        self, store: Store, namespace_id: int, *, with_cache: bool
    ) -> tuple[SearchIndex, int]:
        cache = cache_path(self.settings.data_dir, namespace_id) if with_cache else None
        return load_index(store, namespace_id, cache, exact_below=self.settings.exact_below)


def _empty_index(dim: int) -> SearchIndex:
    nothing = np.empty(0, dtype=np.int64)
    return SearchIndex(
        VectorIndex(dim), BM25Index(), nothing, nothing, LaterWindows(VectorIndex(dim), nothing)
    )
