"""What a data directory knows about its copy in the bucket, kept beside the store."""

from __future__ import annotations

import json
import logging
import threading
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.backups.manifest import LATEST_S
from engine.disk.durable_files import replacing
from engine.store.foreign_json import read_json, record_of

STATE_NAME = "cloud_sync.json"
_MAX_BYTES = 1 << 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncState:
    """Which remote snapshot the store descends from."""

    machine: str
    """Names this data directory in the bucket."""
    head: str | None = None
    """Id of the newest remote snapshot that is part of this store's history."""
    intent: str | None = None
    """Id of a snapshot whose manifest was being written; it may be there or not."""
    uploaded_at_s: float | None = None


class SyncStateFile:
    """Reads and changes the state; each change is durable when it returns.

    Any thread may change it: the uploader does, and whoever restores a snapshot meanwhile.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / STATE_NAME
        self._lock = threading.Lock()
        self.now = self._read()

    def change(self, **fields: Any) -> None:  # noqa: ANN401 - the fields of SyncState
        """Change fields; `now` shows them only once they are on disk."""
        with self._lock:
            self._write(replace(self.now, **fields))

    def note_restored(self, snapshot_id: str, *, since: SyncState) -> None:
        """The store is now what was the newest snapshot, and uploads may follow it.

        What an upload has noted meanwhile stays: its snapshot came after that one.

        Args:
            snapshot_id: of what was restored.
            since: the state before the bucket was asked which is the newest.
        """
        with self._lock:
            now = self.now
            head, intent = now.head, now.intent
            if head in (since.head, since.intent):
                head = snapshot_id
            if intent == since.intent:
                intent = None
            self._write(replace(now, head=head, intent=intent))

    def _write(self, state: SyncState) -> None:
        with replacing(self._path) as file:
            file.write(json.dumps(asdict(state)).encode())
        self.now = state

    def _read(self) -> SyncState:
        try:
            state = record_of(SyncState, read_json(self._path, max_bytes=_MAX_BYTES))
            if not 0 <= (state.uploaded_at_s or 0) <= LATEST_S:
                raise ValueError(f"'uploaded_at_s' is {state.uploaded_at_s}")
            return state
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as exc:
            # Without it the next upload asks whether to overwrite; nothing is lost.
            _log.warning("%s cannot be read (%s); it is begun anew", self._path, exc)
        return SyncState(machine=uuid.uuid4().hex)
