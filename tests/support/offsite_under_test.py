"""Machines that share a bucket: a real index each, and its copy in the cloud."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.index_options import BACKUPS_NAME
from engine.offsite.cloud_sync import CloudSync, SyncStatus
from engine.offsite.first_start import restore_newest
from engine.offsite.object_store import ObjectStore
from engine.offsite.retention import RemoteRetention
from engine.offsite.seal import Seal, Unsealed
from engine.offsite.snapshots import RemoteSnapshots
from engine.offsite.upload import UploadReport
from engine.records import MemoryFilter
from tests.support.index_under_test import IDENTITY, add, open_index

PATIENCE_S = 60.0
KEEP_ALL = RemoteRetention(keep=10_000)


class Machine:
    """A data directory whose backups go to a bucket; a context that is open from the start."""

    def __init__(
        self,
        directory: Path,
        store: ObjectStore,
        *,
        seal: Seal | None = None,
        retention: RemoteRetention = KEEP_ALL,
        **options: Any,
    ) -> None:
        self.directory = directory
        self.remote = RemoteSnapshots(store, seal or Unsealed())
        known = {"backup_pause_s": 0.001, "deltas_share": 100.0, "merge_below_bytes": 0}
        self.index = open_index(directory, **{**known, **options})
        self.sync = CloudSync(
            self.index.backup_files,
            self.remote,
            directory / "data",
            host=directory.name,
            retention=retention,
            interval_s=0.0,
            retry_s=0.05,
        )
        self.index.on_automatic_backup(self.sync.notice)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.index.close()
        self.sync.close()

    def add(self, *texts: str) -> None:
        add(self.index, *texts)

    def texts(self) -> list[str]:
        page = self.index.list_memories(MemoryFilter(), offset=0, limit=10_000)
        return [memory.text for memory in page.memories]

    def upload(self, *, overwrite: bool = False) -> UploadReport:
        """Back up and upload; waits for it."""
        name = self.index.backup(self.directory.name).name
        return self.sync.upload(name, overwrite=overwrite).result(timeout=PATIENCE_S)

    def restore(self, name: str) -> None:
        self.sync.restore(
            name, lambda backup: self.index.restore(backup).result(timeout=PATIENCE_S)
        )

    def wait_until(self, holds: Callable[[SyncStatus], bool]) -> SyncStatus:
        """Poll the status."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds(status := self.sync.status()):
            assert time.monotonic() < deadline, status
            time.sleep(0.05)
        return status

    def wait_until_uploaded(self) -> SyncStatus:
        """Until the store as it is now is in the bucket."""

        def is_there(status: SyncStatus) -> bool:
            newest = self.remote.newest_first()[:1]
            if not newest or status.pending:
                return False
            current = self.index.backup_files.current(self.directory / "data" / "memories.db")
            if current is None:
                return False
            with self.index.backup_files.pinned(current) as (_, manifest):
                return self.remote.read(newest[0]).backup.facts == manifest.facts

        return self.wait_until(is_there)


def start_new(directory: Path, store: ObjectStore, *, seal: Seal | None = None) -> str | None:
    """What a service does first with an empty data directory; the name of what it restored."""
    return restore_newest(
        directory / "data",
        directory / "data" / BACKUPS_NAME,
        RemoteSnapshots(store, seal or Unsealed()),
        IDENTITY,
        lock_timeout_s=1.0,
    )


def texts_in_bucket(directory: Path, store: ObjectStore, *, seal: Seal | None = None) -> list[str]:
    """What a new machine finds there."""
    directory.mkdir(parents=True)
    (directory / "data").mkdir()
    assert start_new(directory, store, seal=seal)
    index = open_index(directory, max_backups=0)
    try:
        page = index.list_memories(MemoryFilter(), offset=0, limit=10_000)
        return [memory.text for memory in page.memories]
    finally:
        index.close()
