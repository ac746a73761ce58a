"""Exports: opened as of one moment, then read in pieces; see `engine.store.exports`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.operations.operation import Lane, MemoryOperation
from engine.records import MemoryFilter
from engine.store.exports import ExportFacts

if TYPE_CHECKING:
    from engine.namespace import Namespace


@dataclass(frozen=True, slots=True)
class BeginExport(MemoryOperation[ExportFacts]):
    """Open an export as of now. Raises `OverloadedError`."""

    lane = Lane.SLOW

    where: MemoryFilter
    with_embeddings: bool

    def run(self, index: Namespace) -> ExportFacts:
        return index.begin_export(self.where, with_embeddings=self.with_embeddings)


@dataclass(frozen=True, slots=True)
class EndExport(MemoryOperation[None]):
    """Close an export before its end. Idempotent."""

    lane = Lane.SLOW
    is_sent_again = False

    export_id: str

    def run(self, index: Namespace) -> None:
        index.end_export(self.export_id)
