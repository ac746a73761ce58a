"""What a data directory knows about its copy in the bucket, kept beside the store."""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engine.durable_files import replacing

STATE_NAME = "cloud_sync.json"

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
    """Reads and changes the state; each change is durable when it returns."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / STATE_NAME
        self.now = self._read()

    def change(self, **fields: Any) -> None:  # noqa: ANN401 - the fields of SyncState
        """Change fields; `now` shows them only once they are on disk."""
        changed = replace(self.now, **fields)
        with replacing(self._path) as file:
            file.write(json.dumps(asdict(changed)).encode())
        self.now = changed

    def _read(self) -> SyncState:
        try:
            return SyncState(**json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError) as exc:
            # Without it the next upload asks whether to overwrite; nothing is lost.
            _log.warning("%s cannot be read (%s); it is begun anew", self._path, exc)
        return SyncState(machine=uuid.uuid4().hex)
