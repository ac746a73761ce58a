"""Which memory each line of one write is too similar to; what the write itself adds is included."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.records import FloatMatrix, FloatVector, MemoryId
from engine.write_session import WriteSession


class NearestInWrite:
    """Asks the index once for all lines; what the write itself adds is compared one by one."""

    def __init__(
        self,
        session: WriteSession,
        embeddings: FloatMatrix,
        asked: Sequence[int],
        *,
        at_least: float,
    ) -> None:
        """Ask for the lines `asked` of `embeddings`, shape (lines, dim).

        Memories below a cosine of `at_least` are of no interest.
        """
        self._session = session
        self._at_least = at_least
        self._embeddings = embeddings
        self._stored: dict[int, tuple[int, float]] = {}
        if asked:
            ids, similarities = session.nearest(embeddings[asked], at_least)
            self._stored = dict(zip(asked, zip(ids, similarities, strict=True), strict=True))
        self._own_ids: list[MemoryId] = []
        self._own_vectors = np.empty_like(embeddings)
        self._row_of: dict[MemoryId, int] = {}

    def note(self, memory_id: MemoryId, vector: FloatVector) -> None:
        """A memory was added, or has another vector now. At most once for each line."""
        row = self._row_of.setdefault(memory_id, len(self._own_ids))
        if row == len(self._own_ids):
            self._own_ids.append(memory_id)
        self._own_vectors[row] = vector

    def to(self, at: int) -> tuple[MemoryId, float]:
        """Id and cosine of the memory nearest to a line that was asked for, if it is near enough.

        Otherwise those of another one, or -1 and -inf.
        """
        vector = self._embeddings[at]
        nearest_id, similarity = self._stored[at]
        if nearest_id in self._row_of:  # it has changed since the index was asked
            [nearest_id], [similarity] = self._session.nearest(vector[None], self._at_least)
        if self._own_ids:
            cosines = self._own_vectors[: len(self._own_ids)] @ vector
            best = int(cosines.argmax())
            if cosines[best] > similarity:
                nearest_id, similarity = self._own_ids[best], float(cosines[best])
        return MemoryId(nearest_id), similarity
