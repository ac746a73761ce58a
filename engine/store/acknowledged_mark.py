"""How far writes have been acknowledged, noted outside the database.

SQLite takes a WAL whose middle is damaged for one that ends there: the writes behind it would be
missing without a word. This mark, compared at start, says that they were acknowledged.

It is written after each commit and never synced: it survives a kill, and after a power cut it is
at most behind, never ahead of what the disk holds. So it costs no durable write, and a mark that
is missing or unreadable says nothing.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from engine.disk.durable_files import read_whole
from engine.store.layout.row_checksum import row_checksum

MARK_NAME = "acknowledged"
_BYTES = 128
_BELOW = 1 << 53

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The newest acknowledged write of a history."""

    epoch: str
    lsn: int
    last_id: int
    """The highest memory id given out."""


class HighWaterMark:
    """The file `acknowledged` of a data directory. Its owner holds the `DataLock`."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._path = data_dir / MARK_NAME
        self._failed = False

    def read(self) -> Mark | None:
        """The mark; None when there is none, or none that can be trusted."""
        try:
            content = read_whole(self._path, max_bytes=_BYTES).decode("ascii")
            epoch, lsn, last_id, checksum = content.split()
            mark = Mark(epoch=epoch, lsn=int(lsn), last_id=int(last_id))
            is_whole = row_checksum((epoch, mark.lsn, mark.last_id)) == int(checksum)
            is_possible = 0 <= mark.lsn < _BELOW and 0 <= mark.last_id < _BELOW
            return mark if is_whole and is_possible else None
        except (OSError, ValueError):
            return None

    def note(self, mark: Mark) -> None:
        """Replace the mark. It is evidence and nothing more, so that a failure only warns."""
        checksum = row_checksum((mark.epoch, mark.lsn, mark.last_id))
        line = f"{mark.epoch} {mark.lsn} {mark.last_id} {checksum}\n".ljust(_BYTES)
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(fd, line.encode(), 0)
            finally:
                os.close(fd)
        except OSError as exc:
            if not self._failed:
                _log.warning("%s cannot be written: %s", self._path, exc.strerror)
            self._failed = True
