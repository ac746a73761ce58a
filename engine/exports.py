"""Exports that are being read: each a snapshot that lives as long as it is asked for more."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.errors import NotReadyError, OverloadedError
from engine.snapshot import ExportedMemory, Snapshot

_MAX_OPEN = 8
_LONGEST_PAUSE_S = 60.0
_LONGEST_S = 1_800.0
"""A snapshot keeps the WAL from being emptied: see `engine.snapshot`."""
_SWEEP_S = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFacts:
    """What an export will hold."""

    export_id: str
    lsn: int
    """The last write it shows."""
    total: int
    """Memories in it."""


@dataclass(slots=True)
class _Open:
    snapshot: Snapshot
    began_s: float = field(default_factory=time.monotonic)
    used_s: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Exports:
    """The open exports of one index. Any thread may call."""

    def __init__(
        self,
        *,
        max_open: int = _MAX_OPEN,
        longest_pause_s: float = _LONGEST_PAUSE_S,
        longest_s: float = _LONGEST_S,
    ) -> None:
        self._max_open = max_open
        self._longest_pause_s = longest_pause_s
        self._longest_s = longest_s
        self._open: dict[str, _Open] = {}
        self._lock = threading.Lock()
        self._sweeper: threading.Timer | None = None

    def begin(self, make: Callable[[], Snapshot]) -> ExportFacts:
        """Open an export of what `make` returns.

        Raises:
            OverloadedError: as many as may be are open.
        """
        self.sweep()
        with self._lock:
            if len(self._open) >= self._max_open:
                raise OverloadedError("too many exports are being read; try again later")
            snapshot = make()
            export_id = uuid.uuid4().hex
            self._open[export_id] = _Open(snapshot)
            self._schedule_sweep()
        return ExportFacts(export_id=export_id, lsn=snapshot.lsn, total=snapshot.total)

    def read(self, export_id: str, n: int) -> list[ExportedMemory]:
        """The next memories of an export, at most n; none at its end, which also closes it.

        Raises:
            NotReadyError: it was closed: by the end of this process, by a restore, or because
                its reader paused or took too long.
        """
        with self._lock:
            export = self._open.get(export_id)
        if export is None:
            raise NotReadyError(
                "the export was ended because it took too long or the service restarted; "
                "export again"
            )
        with export.lock:
            memories = export.snapshot.read(n)
            export.used_s = time.monotonic()
        if not memories:
            self.end(export_id)
        return memories

    def end(self, export_id: str) -> None:
        """Close an export; one that is closed already is left alone."""
        with self._lock:
            export = self._open.pop(export_id, None)
        if export is not None:
            with export.lock:
                export.snapshot.close()

    def sweep(self) -> None:
        """Close the exports whose readers paused or took too long."""
        now_s = time.monotonic()
        with self._lock:
            late = [
                export_id
                for export_id, export in self._open.items()
                if now_s - export.used_s > self._longest_pause_s
                or now_s - export.began_s > self._longest_s
            ]
        for export_id in late:
            _log.warning("an export was ended because it took too long")
            self.end(export_id)

    def close(self) -> None:
        """Close them all."""
        with self._lock:
            if self._sweeper is not None:
                self._sweeper.cancel()
            export_ids = list(self._open)
        for export_id in export_ids:
            self.end(export_id)

    def _schedule_sweep(self) -> None:
        """Look again later, while there is one open; the caller holds the lock."""
        if self._sweeper is None or not self._sweeper.is_alive():
            self._sweeper = threading.Timer(_SWEEP_S, self._sweep_again)
            self._sweeper.daemon = True
            self._sweeper.start()

    def _sweep_again(self) -> None:
        self.sweep()
        with self._lock:
            self._sweeper = None
            if self._open:
                self._schedule_sweep()
