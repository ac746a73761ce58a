"""Builds of workspace files: planned, embedded a page at a time by whoever asks, then applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.errors import LeaseLostError
from engine.operations.operation import Lane, MemoryOperation, Remedy
from engine.records import BuildReport, FloatMatrix
from engine.workspace.planned_builds import PlannedBuild

if TYPE_CHECKING:
    from engine.namespace import Namespace


@dataclass(frozen=True, slots=True)
class PlanBuild(MemoryOperation[PlannedBuild]):
    """Read and chunk workspace files; the chunks stay with the index.

    Raises `PathNotAllowedError`, `InvalidInputError`, `OverloadedError`.
    """

    lane = Lane.SLOW
    is_long = True

    sources: Sequence[str] | None
    """Paths; None: all files."""
    replace_all: bool

    def run(self, index: Namespace) -> PlannedBuild:
        return index.builds.begin(index.plan_build(self.sources, replace_all=self.replace_all))


@dataclass(frozen=True, slots=True)
class TextsOfBuild(MemoryOperation[list[str]]):
    """A page of the texts that a planned build needs embedded. Raises `LeaseLostError`."""

    lane = Lane.LOOP

    build_id: str
    start: int
    """Number of the first text."""

    def run(self, index: Namespace) -> list[str]:
        return index.builds.texts(self.build_id, self.start)


@dataclass(frozen=True, slots=True)
class PutEmbeddings(MemoryOperation[None]):
    """Hand on the embeddings of the page that began at `start`. Raises `LeaseLostError`."""

    lane = Lane.LOOP

    build_id: str
    start: int
    embeddings: FloatMatrix

    def run(self, index: Namespace) -> None:
        index.builds.put(self.build_id, self.start, self.embeddings)


@dataclass(frozen=True, slots=True)
class DropBuild(MemoryOperation[None]):
    """Forget a planned build that will not be applied. Idempotent."""

    lane = Lane.LOOP

    build_id: str

    def run(self, index: Namespace) -> None:
        index.builds.drop(self.build_id)


@dataclass(frozen=True, slots=True)
class ApplyBuild(MemoryOperation[BuildReport]):
    """Apply a planned build whose texts are all embedded. Raises `LeaseLostError`."""

    lane = Lane.SLOW
    is_long = True
    if_unknown = Remedy.SEND_AGAIN

    build_id: str
    request_id: str = field(kw_only=True)

    def run(self, index: Namespace) -> BuildReport:
        try:
            plan, embeddings = index.builds.take(self.build_id)
        except LeaseLostError:
            return index.built_before(self.request_id)
        return index.apply_build(plan, embeddings, request_id=self.request_id)
