"""The backups of the store that is in use: made after bursts and on request, put in its place."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from engine.backups.after_writes import AutoBackup
from engine.backups.catalogue import Backups
from engine.backups.manifest import BackupKind
from engine.backups.restore import restore_into, restored_before
from engine.backups.verification import problems_of
from engine.errors import BackupNotFoundError, EngineError, UnavailableError
from engine.records import BackupCheck, BackupSummary
from engine.search.postings_cache import remove_caches
from engine.store.database import DATABASE_NAME
from engine.writing.live_state import LiveState
from engine.writing.writer import Writer

_RETRY_S = 30.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """When a burst of writes is backed up."""

    pause_s: float
    """After so long without a write,"""
    longest_s: float
    """or in its midst, when it goes on for so long."""


class LiveBackups:
    """Safe for any number of threads."""

    def __init__(
        self,
        state: LiveState,
        writer: Writer,
        files: Backups,
        *,
        data_dir: Path,
        exact_below: int,
        bursts: Bursts | None,
    ) -> None:
        """Begin to follow the writes.

        Args:
            state: of the store.
            writer: through which it is changed.
            files: the backup directories.
            data_dir: that holds the store.
            exact_below: as for the indexes of the store.
            bursts: after which to back up; None: only on request.
        """
        self.files = files
        """The backup directories."""
        self._state = state
        self._writer = writer
        self._database = data_dir / DATABASE_NAME
        self._exact_below = exact_below
        self._listener: Callable[[str], None] | None = None
        self._lock = threading.Lock()
        """No copy is being made while a restore swaps the database."""
        self._automatic = None if bursts is None else self._start_automatic(bursts)
        if self._automatic is None:
            _log.warning("MAX_BACKUPS is 0: no automatic backups are made")
        self._prune_tombstones()

    def _start_automatic(self, bursts: Bursts) -> AutoBackup:
        return AutoBackup(
            self._create_automatically,
            pause_s=bursts.pause_s,
            longest_burst_s=bursts.longest_s,
            retry_s=_RETRY_S,
        )

    def close(self) -> None:
        """Back up what has no backup yet. After the writer is closed, before the store is."""
        if self._automatic is not None:
            self._automatic.close()

    def count(self) -> int:
        """How many there are; none in a directory that cannot be read, of which `error` tells."""
        try:
            return self.files.count()
        except UnavailableError:
            return 0

    @property
    def error(self) -> str | None:
        """Why the last automatic backup failed; None when it did not."""
        return self._automatic.error if self._automatic else None

    def notice_write(self) -> None:
        """A write has been committed."""
        if self._automatic is not None:
            self._automatic.notice_write()

    def on_automatic(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with the name of each automatic backup, in the thread that made it.

        It hears at once of a backup that holds the store as it is; without one, one is made.
        """
        self._listener = listener
        current = self.files.current(self._database)
        if current is not None:
            listener(current)
        elif self._state.store.lsn:
            self.notice_write()

    def _create_automatically(self) -> None:
        backup = self.create("auto", "automatic")
        if self._listener is not None:
            self._listener(backup.name)

    def create(self, prefix: str, kind: BackupKind) -> BackupSummary:
        """Back up the store as it is now; writes go on meanwhile."""
        with self._lock:
            summary = self.files.create(self._database, prefix, kind=kind)
        self._prune_tombstones()
        return summary

    def _prune_tombstones(self) -> None:
        """Forget deletions that no backup needs, when the writer has a moment."""

        def prune() -> None:
            store = self._state.store
            base_lsn = self.files.base_lsn(store.epoch)
            if base_lsn is None and self.files.count():
                return  # just restored: the next backup goes on from one of the history before
            store.prune_tombstones(store.lsn if base_lsn is None else base_lsn)

        with contextlib.suppress(EngineError):  # closing, or busy: after the next backup
            self._writer.submit_alone(prune)

    def verify(self, name: str) -> BackupCheck:
        """Check that a backup can be restored. Raises `BackupNotFoundError`."""
        check = functools.partial(problems_of, exact_below=self._exact_below)
        return self.files.verify(name, check)

    def restore(self, name: str, *, request_id: str | None = None) -> Future[int]:
        """See `MemoryIndex.restore`."""
        with contextlib.ExitStack() as stack:
            # What is made before the restore must not push out the backup it is about. When it is
            # asked for again, that may be gone.
            with contextlib.suppress(BackupNotFoundError):
                stack.enter_context(self.files.pinned(name))
            restored = self._writer.submit_alone(functools.partial(self._restore, name, request_id))
            unpin = stack.pop_all().close
        restored.add_done_callback(lambda _: unpin())
        return restored

    def _restore(self, name: str, request_id: str | None) -> int:
        n_left = restored_before(self._state.store, request_id)
        if n_left is not None:
            return n_left
        self.files.get(name)  # nothing is done when there is none
        self.create("pre_restore", "safety")
        with self._lock:
            restore_into(
                self._state,
                self.files,
                name,
                request_id=request_id,
            )
        remove_caches(self._database.parent)
        self.notice_write()
        return self._state.store.count()
