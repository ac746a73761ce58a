"""Exports that are being read: each a snapshot that lives as long as it is asked for more."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from engine.disk.leases import Leases
from engine.errors import LeaseLostError
from engine.store.read_snapshot import ExportedMemory, Snapshot

_MAX_OPEN = 8
_LONGEST_PAUSE_S = 60.0
_LONGEST_S = 1_800.0
"""A snapshot keeps the WAL from being emptied: see `engine.store.read_snapshot`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFacts:
    """What an export will hold."""

    export_id: str
    lsn: int
    """The last write it shows."""
    total: int
    """Memories in it."""


class Exports:
    """The open exports of one index. Any thread may call."""

    def __init__(
        self,
        *,
        max_open: int = _MAX_OPEN,
        longest_pause_s: float = _LONGEST_PAUSE_S,
        longest_s: float = _LONGEST_S,
    ) -> None:
        self._open = Leases[Snapshot](
            "export",
            max_weight=max_open,
            longest_pause_s=longest_pause_s,
            longest_s=longest_s,
            close=Snapshot.close,
        )

    def begin(self, make: Callable[[], Snapshot]) -> ExportFacts:
        """Open an export of what `make` returns.

        Raises:
            OverloadedError: as many as may be are open.
        """
        export_id = self._open.begin(make)
        with self._open.using(export_id) as snapshot:
            return ExportFacts(export_id=export_id, lsn=snapshot.lsn, total=snapshot.total)

    def read(self, export_id: str, max_bytes: int, namespace_id: int) -> list[ExportedMemory]:
        """The next memories of an export; none at its end, which also closes it.

        Args:
            export_id: of `begin`.
            max_bytes: of text, metadata and embeddings; the last one may go beyond.
            namespace_id: of its reader, who sees none of another namespace.

        Raises:
            NotReadyError: it was closed: by the end of this process, by a restore, or because
                its reader paused or took too long.
        """
        with self._open.using(export_id) as snapshot:
            if snapshot.namespace_id != namespace_id:
                raise self._open.lost()
            memories = snapshot.read(max_bytes)
        if not memories:
            self._open.end(export_id)
        return memories

    def end(self, export_id: str, namespace_id: int) -> None:
        """Close an export; one that is closed already is left alone."""
        with suppress(LeaseLostError), self._open.using(export_id) as snapshot:
            if snapshot.namespace_id != namespace_id:
                return
        self._open.end(export_id)

    def close(self) -> None:
        """Close them all."""
        self._open.close()
