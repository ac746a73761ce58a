"""The offsite copy of one running index: upload, download, restore, and how it stands."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from engine.backups.catalogue import Backups
from engine.offsite.download import Download, download, find
from engine.offsite.retention import RemoteRetention
from engine.offsite.snapshots import RemoteSnapshot, RemoteSnapshots
from engine.offsite.sync_state import SyncStateFile
from engine.offsite.upload import BackupUpload, UploadReport
from engine.offsite.uploader import Uploader
from engine.store.layout.rows import iso_time

T = TypeVar("T")

_CLOSE_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncStatus:
    """How the offsite copy stands."""

    location: str
    latest_remote: str | None
    """Newest snapshot as of the last listing that succeeded."""
    latest_local: str | None
    remote_count: int | None
    """None while no listing has succeeded."""
    local_count: int
    last_upload_at: str | None
    """UTC ISO-8601."""
    last_error: str | None
    """Why the last upload failed, in words; None after one that succeeded."""
    pending: str | None
    """The backup that waits for its upload or is on its way."""


class CloudSync:
    """The offsite copy. Only `notice` and `status` never wait for the bucket."""

    def __init__(
        self,
        backups: Backups,
        remote: RemoteSnapshots,
        data_dir: Path,
        *,
        host: str,
        retention: RemoteRetention,
        interval_s: float,
        retry_s: float = 5.0,
    ) -> None:
        """Start uploading in the background.

        Args:
            backups: of the running index.
            remote: the bucket.
            data_dir: where the state is kept.
            host: this machine's name, for people.
            retention: what stays in the bucket.
            interval_s: between two automatic uploads at least.
            retry_s: after the first failure of one.
        """
        self._backups = backups
        self._remote = remote
        self._state = SyncStateFile(data_dir)
        self._known: list[RemoteSnapshot] | None = None
        self._downloading = threading.Lock()
        """Two downloads of one snapshot would write the same files."""
        upload = BackupUpload(
            backups, remote, self._state, host=host, retention=retention, scratch_dir=data_dir
        )
        self._uploader = Uploader(
            lambda name, is_wanted, overwrite: upload.upload(
                name, is_wanted=is_wanted, overwrite=overwrite
            ),
            upload.clean_up,
            interval_s=interval_s,
            retry_s=retry_s,
        )

    def close(self) -> None:
        """Stop; what was not uploaded is at the next start."""
        self._uploader.close(patience_s=_CLOSE_PATIENCE_S)

    def notice(self, name: str) -> None:
        """There is a new backup. Returns at once."""
        self._uploader.notice(name)

    def upload(self, name: str, *, overwrite: bool) -> Future[UploadReport]:
        """Upload a backup; it can be restored from the bucket when the future is done."""
        return self._uploader.upload(name, overwrite=overwrite)

    def snapshots(self) -> list[RemoteSnapshot]:
        """Every snapshot that the passphrase opens, newest first."""
        self._known = [s for s in self._remote.newest_first() if s.name is not None]
        return self._known

    def download(self, name: str | None) -> Download:
        """Make a snapshot, the newest without a name, a local backup."""
        with self._downloading:
            snapshots = self._remote.newest_first()
            snapshot = find(snapshots, name)
            is_newest = snapshot is snapshots[0]
            return download(self._remote, self._backups, snapshot, is_newest=is_newest)

    def restore(self, name: str, put_in_place: Callable[[str], T]) -> tuple[Download, T]:
        """Download a snapshot and make it the store; if it was the newest, uploads may follow it.

        That is noted without asking the bucket: the restore has happened by then.

        Args:
            name: of the snapshot.
            put_in_place: restores the local backup of a name.
        """
        before = self._state.now
        got = self.download(name)
        outcome = put_in_place(got.backup.name)
        if got.is_newest:
            self._state.note_restored(got.snapshot.id, since=before)
        return got, outcome

    def status(self) -> SyncStatus:
        """How it stands, as far as is known here. Asks nobody."""
        local = self._backups.summaries()
        known = self._known
        uploaded_at_s = self._state.now.uploaded_at_s
        return SyncStatus(
            location=self._remote.store.location,
            latest_remote=known[0].name if known else None,
            latest_local=local[0].name if local else None,
            remote_count=None if known is None else len(known),
            local_count=len(local),
            last_upload_at=None if uploaded_at_s is None else iso_time(int(uploaded_at_s * 1e6)),
            last_error=self._uploader.last_error,
            pending=self._uploader.pending,
        )
