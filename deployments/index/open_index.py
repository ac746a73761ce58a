"""Opening the index of a replica: at once, or after the bucket's newest state was restored."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from deployments.index.cloud import cloud_sync, remote_snapshots
from deployments.settings import Settings
from engine.errors import (
    EngineError,
    InvalidInputError,
    NotReadyError,
    RemoteConflictError,
    RemoteDamagedError,
    RemoteError,
    RemoteSealedError,
)
from engine.index_options import BACKUPS_NAME, IndexOptions
from engine.memory_index import MemoryIndex
from engine.offsite.cloud_sync import CloudSync
from engine.offsite.first_start import is_new, restore_newest
from engine.offsite.snapshots import RemoteSnapshots
from engine.writing.upkeep import VectorTools

_RETRY_S = 5.0

_log = logging.getLogger(__name__)


class OpenIndex:
    """The index of one data directory and its copy in the cloud, once they are open.

    Without cloud sync, or with memories already there, they are open when the constructor
    returns. An empty data directory first becomes what the bucket holds, in the background, so
    that the replica can say meanwhile what it waits for.
    """

    def __init__(
        self,
        settings: Settings,
        options: IndexOptions,
        count_pieces: Callable[[str], int],
        vector_tools: VectorTools | None = None,
    ) -> None:
        """Open, or begin to; arguments as `MemoryIndex` takes them.

        Raises:
            StorageError, EmbeddingError: see `MemoryIndex`.
        """
        self._settings = settings
        self._options = options
        self._count_pieces = count_pieces
        self._vector_tools = vector_tools
        self._index: MemoryIndex | None = None
        self._sync: CloudSync | None = None
        self._waits_for = "restoring the newest state from the cloud"
        self._failure: Exception | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        remote = remote_snapshots(settings) if settings.cloud_sync_enabled else None
        if remote is not None and is_new(options.data_dir):
            self._thread = threading.Thread(
                target=self._restore_and_open, args=(remote,), name="first-start", daemon=True
            )
            self._thread.start()
        else:
            self._open(remote)

    @property
    def index(self) -> MemoryIndex:
        """The index. Raises `NotReadyError`, with the reason, while it is not open yet."""
        if self._index is None:
            raise NotReadyError(self._waits_for)
        return self._index

    @property
    def sync(self) -> CloudSync:
        """The copy in the cloud. Raises as `index` does, or when it is off."""
        if not self._settings.cloud_sync_enabled:
            raise InvalidInputError("Cloud sync not configured")
        if self._sync is None:
            raise NotReadyError(self._waits_for)
        return self._sync

    def check(self) -> None:
        """Raise when only a restart can help."""
        if self._failure is not None:
            raise self._failure
        if self._index is not None:
            self._index.check()
            self._index.check_in_place()

    def close(self) -> None:
        """Close the index; leave an upload or a download that is under way."""
        self._closing.set()
        if self._index is not None:
            self._index.close()
        if self._sync is not None:
            self._sync.close()

    def _open(self, remote: RemoteSnapshots | None) -> None:
        index = MemoryIndex(
            self._options, count_pieces=self._count_pieces, vector_tools=self._vector_tools
        )
        if remote is not None:
            self._sync = cloud_sync(self._settings, index, remote)
        self._index = index

    def _restore_and_open(self, remote: RemoteSnapshots) -> None:
        try:
            while not self._closing.is_set() and not self._restored(remote):
                self._closing.wait(_RETRY_S)
            if not self._closing.is_set():
                self._open(remote)
        except Exception as exc:  # noqa: BLE001 - `check` hands it on, and the replica is replaced
            _log.exception("the index cannot be opened")
            self._failure = exc

    def _restored(self, remote: RemoteSnapshots) -> bool:
        """Whether the index may be opened now."""
        try:
            name = restore_newest(
                self._options.data_dir,
                self._options.data_dir / BACKUPS_NAME,
                remote,
                self._options.identity,
                lock_timeout_s=self._options.lock_timeout_s,
            )
        except EngineError as exc:
            self._say(exc)
            return self._may_start_empty(exc)
        if name is None:
            _log.info("%s holds no snapshot: a new store is begun", remote.store.location)
        return True

    def _say(self, exc: EngineError) -> None:
        """Keep the reason for whoever asks, and log it when it is a new one."""
        waits_for = f"waiting for the cloud's newest state: {exc}"
        if isinstance(exc, RemoteError) and not self._settings.cloud_sync_allow_empty_start:
            waits_for += "; CLOUD_SYNC_ALLOW_EMPTY_START=true would start without it"
        if waits_for != self._waits_for:
            _log.warning("%s", waits_for)
        self._waits_for = waits_for

    def _may_start_empty(self, exc: EngineError) -> bool:
        """Only a bucket that does not answer is passed over; never one that holds memories."""
        answers = isinstance(exc, RemoteDamagedError | RemoteSealedError | RemoteConflictError)
        if answers or not isinstance(exc, RemoteError):
            return False
        if self._settings.cloud_sync_allow_empty_start:
            _log.warning("an empty store is begun, as CLOUD_SYNC_ALLOW_EMPTY_START says")
        return self._settings.cloud_sync_allow_empty_start
