"""What each line of one write repeats or is much like; what the write itself adds is included."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import numpy as np

from engine.records import FloatMatrix, FloatVector, Memory, MemoryId, Neighbour, SimilarMemory
from engine.store.layout.rows import UPKEEP_FIRST_PASS
from engine.writing.duplicates.repeats import QUOTED_CHARS, first_repeated
from engine.writing.write_session import Near, WriteSession


class NearestInWrite:
    """Asks the index once for all lines; what the write itself adds is compared one by one."""

    def __init__(
        self,
        session: WriteSession,
        embeddings: FloatMatrix,
        asked: Sequence[int],
        *,
        at_least: float,
        n_similar: int,
    ) -> None:
        """Ask for the lines `asked` of `embeddings`, shape (lines, dim).

        Args:
            session: the open group.
            embeddings: of all lines.
            asked: positions of the lines that will be compared.
            at_least: cosine of near duplicates; memories below are of no interest.
            n_similar: memories of interest for each line, >= 1.
        """
        self._session = session
        self._at_least = at_least
        self._n_similar = n_similar
        self._embeddings = embeddings
        self._stored: dict[int, Near] = {}
        if asked:
            found = session.nearest(embeddings[asked], n_similar, at_least)
            self._stored = dict(zip(asked, found, strict=True))
        self._own_ids: list[MemoryId] = []
        self._own_vectors = np.empty_like(embeddings)
        self._row_of: dict[MemoryId, int] = {}

    def note(self, memory_id: MemoryId, vector: FloatVector) -> None:
        """A memory was added, or has another vector now. At most once for each line."""
        row = self._row_of.setdefault(memory_id, len(self._own_ids))
        if row == len(self._own_ids):
            self._own_ids.append(memory_id)
        self._own_vectors[row] = vector

    def repeated(self, at: int, text: str) -> Neighbour | None:
        """The memory that says the same as a line that was asked for.

        It is found by its gist; one that was written by a release that had none, until upkeep has
        gone through the store, by its vector if that is among the nearest.
        """
        transaction = self._session.transaction
        repeated = self._first_repeated(at, text, transaction.alike(text))
        nearest = [memory_id for memory_id, _ in self._stored[at]]
        if repeated is not None or not nearest or self._all_have_gists:
            return repeated
        return self._first_repeated(at, text, transaction.get_many(nearest).values())

    @functools.cached_property
    def _all_have_gists(self) -> bool:
        return self._session.transaction.get_meta(UPKEEP_FIRST_PASS) is not None

    def _first_repeated(self, at: int, text: str, candidates: Iterable[Memory]) -> Neighbour | None:
        return first_repeated(
            text,
            self._embeddings[at],
            candidates,
            self._session.vector_of,
            dedup_threshold=self._at_least,
        )

    def similar(self, at: int) -> list[SimilarMemory]:
        """The memories that a line that was asked for is much like, most similar first."""
        near = self._near(at)
        found = self._session.transaction.get_many([i for i, _ in near])
        return [
            SimilarMemory(id=i, similarity=cosine, text=found[i].text[:QUOTED_CHARS])
            for i, cosine in near
        ]

    def _near(self, at: int) -> Near:
        vector = self._embeddings[at]
        near = self._stored[at]
        if any(memory_id in self._row_of for memory_id, _ in near):
            # One has changed since the index was asked.
            [near] = self._session.nearest(vector[None], self._n_similar, self._at_least)
        if self._own_ids:
            cosines = self._own_vectors[: len(self._own_ids)] @ vector
            own = np.flatnonzero(cosines >= self._at_least).tolist()
            merged = dict(near) | {self._own_ids[row]: float(cosines[row]) for row in own}
            near = sorted(merged.items(), key=lambda found: (-found[1], found[0]))
        return near[: self._n_similar]
