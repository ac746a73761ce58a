"""Several namespaces searched and listed as if they were one."""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import InvalidInputError
from engine.namespace_reads import NamespaceReads, Workings
from engine.records import (
    FloatMatrix,
    MemoryFilter,
    MemoryPage,
    SearchHits,
    SearchQuery,
)
from engine.search.fusion import best_of
from engine.store.layout.namespaces import checked_name

MAX_NAMESPACES = 20


class SeveralNamespaces:
    """Each is asked by itself, and the answers become one: nothing of one weighs in another."""

    def __init__(self, names: Sequence[str], workings: Workings) -> None:
        """Name them. Raises `InvalidInputError`."""
        self._names = [checked_name(name) for name in dict.fromkeys(names)]
        if len(self._names) > MAX_NAMESPACES:
            raise InvalidInputError(f"{len(self._names)} namespaces: {MAX_NAMESPACES} at most")
        self._shared = workings

    def search(self, embeddings: FloatMatrix, queries: Sequence[SearchQuery]) -> list[SearchHits]:
        """Answer several searches, the best hits of all namespaces first."""
        found = [NamespaceReads(n, self._shared).search(embeddings, queries) for n in self._names]
        return [best_of([of_one[at] for of_one in found], q) for at, q in enumerate(queries)]

    def list_memories(
        self,
        where: MemoryFilter,
        *,
        offset: int,
        limit: int,
        newest_first: bool = False,
        cursor: str | None = None,
    ) -> MemoryPage:
        """A page in order of time; `cursor` (of the page before) wins over `offset`."""
        state = self._shared.state
        with state.store_lock.shared():
            return state.store.page(
                where,
                {state.id_of(name): name for name in self._names},
                offset=offset,
                limit=limit,
                newest_first=newest_first,
                cursor=cursor,
            )
