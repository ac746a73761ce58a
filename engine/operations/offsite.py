"""The copy in the cloud. Each raises `InvalidInputError` when it is off."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

from engine.offsite.cloud_sync import SyncStatus
from engine.offsite.download import Download
from engine.offsite.snapshots import RemoteSnapshot
from engine.offsite.upload import UploadReport
from engine.operations.operation import Directory, DirectoryOperation, Lane, Remedy


@dataclass(frozen=True, slots=True)
class OffsiteStatus(DirectoryOperation[SyncStatus]):
    """How the copy in the cloud stands; asks the bucket, but not for long."""

    lane = Lane.LOOP

    def run(self, directory: Directory) -> Future[SyncStatus]:
        return directory.offsite_status()


@dataclass(frozen=True, slots=True)
class ListSnapshots(DirectoryOperation[list[RemoteSnapshot]]):
    """The snapshots in the cloud, newest first. Raises `RemoteError`."""

    lane = Lane.CLOUD
    is_long = True

    def run(self, directory: Directory) -> list[RemoteSnapshot]:
        return directory.offsite.snapshots()


@dataclass(frozen=True, slots=True)
class UploadBackup(DirectoryOperation[UploadReport]):
    """Back up and upload; answered once it can be restored from the bucket.

    Raises `RemoteError`; `RemoteConflictError` when another machine wrote since, unless
    `overwrite`.
    """

    lane = Lane.SLOW
    is_long = True
    if_unknown = Remedy.LIST_SNAPSHOTS

    prefix: str
    overwrite: bool

    def run(self, directory: Directory) -> Future[UploadReport]:
        """Back up here; the upload has a thread of its own."""
        offsite = directory.offsite
        backup = directory.index.backup(self.prefix)
        return offsite.upload(backup.name, overwrite=self.overwrite)


@dataclass(frozen=True, slots=True)
class DownloadSnapshot(DirectoryOperation[Download]):
    """Make a snapshot, the newest without a name, a local backup."""

    lane = Lane.CLOUD
    is_long = True

    name: str | None

    def run(self, directory: Directory) -> Download:
        return directory.offsite.download(self.name)


@dataclass(frozen=True, slots=True)
class RestoreSnapshot(DirectoryOperation[tuple[Download, int]]):
    """Download a snapshot and restore it; and how many memories there are now."""

    lane = Lane.CLOUD
    is_long = True
    if_unknown = Remedy.SEND_AGAIN

    name: str
    request_id: str = field(kw_only=True)

    def run(self, directory: Directory) -> tuple[Download, int]:
        """In one piece: once restored it is noted, also when the caller has gone."""
        index = directory.index

        def put_in_place(backup: str) -> int:
            return index.restore(backup, request_id=self.request_id).result()

        return directory.offsite.restore(self.name, put_in_place)
