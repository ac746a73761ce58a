"""Builds between plan and execution: chunks wait here, texts go out and embeddings come in pages.

So a build of any size passes the ingress a page at a time, and only what fits into one message.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from engine.disk.leases import Leases
from engine.records import BuildPlan, FloatMatrix
from engine.workspace.passages import text_in_context

PAGE_CHARS = 1 << 18
"""Texts of a page: some seconds of the model, and at most a MiB."""
_MAX_PLANNED = 4
_LONGEST_PAUSE_S = 900.0
"""A page waits for its place at the pool behind whatever else is being embedded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedBuild:
    """What is to be embedded before a build can be applied."""

    build_id: str
    n_texts: int


@dataclass(frozen=True, slots=True)
class _Planned:
    plan: BuildPlan
    pages: dict[int, FloatMatrix] = field(default_factory=dict)
    """Embeddings by the number of their first text."""


class PlannedBuilds:
    """The builds of one index that wait for embeddings. Any thread may call."""

    def __init__(self) -> None:
        self._planned = Leases[_Planned](
            "build", max_weight=_MAX_PLANNED, longest_pause_s=_LONGEST_PAUSE_S
        )

    def begin(self, plan: BuildPlan) -> PlannedBuild:
        """Keep a plan. Raises `OverloadedError`."""
        build_id = self._planned.begin(lambda: _Planned(plan))
        return PlannedBuild(build_id=build_id, n_texts=len(plan.to_embed))

    def texts(self, build_id: str, start: int) -> list[str]:
        """A page of the texts to embed, from number `start` on. Raises `LeaseLostError`."""
        with self._planned.using(build_id) as planned:
            chunks = planned.plan.chunks
            texts: list[str] = []
            n_chars = 0
            for position in planned.plan.to_embed[start:]:
                if n_chars >= PAGE_CHARS:
                    break
                texts.append(text_in_context(chunks[position]))
                n_chars += len(texts[-1])
            return texts

    def put(self, build_id: str, start: int, embeddings: FloatMatrix) -> None:
        """Take the embeddings of a page that began at `start`. Raises `LeaseLostError`."""
        with self._planned.using(build_id) as planned:
            planned.pages[start] = embeddings

    def drop(self, build_id: str) -> None:
        """Forget a plan that will not be applied. Idempotent."""
        self._planned.end(build_id)

    def take(self, build_id: str) -> tuple[BuildPlan, FloatMatrix]:
        """A plan and a row for each text to embed, kept no longer. Raises `LeaseLostError`."""
        planned = self._planned.take(build_id)
        pages = [planned.pages[start] for start in sorted(planned.pages)]
        return planned.plan, np.concatenate(pages) if pages else np.empty((0, 0), np.float32)
