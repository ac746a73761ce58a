"""Operations whose answers are the service's own: its processes, and the lines of an export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployments import rendering
from deployments.calls.part_reports import PartReport, own_report
from engine.operations.operation import Directory, DirectoryOperation, Lane, MemoryOperation

if TYPE_CHECKING:
    from engine.namespace import Namespace


@dataclass(frozen=True, slots=True)
class Report(DirectoryOperation[PartReport]):
    """What the index's process says of itself, for the metrics."""

    lane = Lane.LOOP

    def run(self, directory: Directory) -> PartReport:
        """Memory and processor time; answers while the index is not open yet, too."""
        return own_report()


@dataclass(frozen=True, slots=True)
class ReadExport(MemoryOperation[bytes]):
    """The next memories of an export as NDJSON, about so many bytes; empty at its end."""

    lane = Lane.SLOW
    is_sent_again = False

    export_id: str
    max_bytes: int

    def run(self, index: Namespace) -> bytes:
        return b"".join(map(rendering.exported, index.read_export(self.export_id, self.max_bytes)))
