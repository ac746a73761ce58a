"""Uploading a backup: objects that are not there yet, then its manifest, then what is too old."""

from __future__ import annotations

import logging
import random
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from engine.backups.catalogue import Backups
from engine.backups.files import BackupFile
from engine.backups.manifest import Manifest
from engine.disk.durable_files import sha256_of
from engine.errors import BackupError, RemoteConflictError, RemoteError, RemoteSealedError
from engine.offsite.retention import RemoteRetention, unreferenced
from engine.offsite.snapshots import (
    Machine,
    RemoteListing,
    RemoteManifest,
    RemoteSnapshot,
    RemoteSnapshots,
)
from engine.offsite.sync_state import SyncStateFile
from engine.writing.once import warn_once

_RACES = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadReport:
    """What an upload sent."""

    snapshot: RemoteSnapshot
    n_objects: int
    n_bytes: int


class _RaceLostError(RemoteConflictError):
    """Another machine wrote a snapshot at the same time; ours was withdrawn."""


class BackupUpload:
    """Puts backups of one data directory into the bucket. One thread at a time.

    A snapshot follows the one that its store descends from, the head. When another machine has
    written since, uploading is refused; when one writes at the same moment, whoever then sees
    the other's manifest beside his own takes his own back. So of two machines at most one is
    ever told that it succeeded, without any condition that only some servers know.
    """

    def __init__(
        self,
        backups: Backups,
        remote: RemoteSnapshots,
        state: SyncStateFile,
        *,
        host: str,
        retention: RemoteRetention,
        scratch_dir: Path,
    ) -> None:
        """Know all parts.

        Args:
            backups: of the data directory.
            remote: the bucket.
            state: which snapshot the store descends from.
            host: this machine's name, for people.
            retention: what stays in the bucket.
            scratch_dir: for encrypted files on their way.
        """
        self._backups = backups
        self._remote = remote
        self._state = state
        self._machine = Machine(id=state.now.machine, host=host)
        self._retention = retention
        self._scratch_dir = scratch_dir

    def upload(self, name: str, *, is_wanted: bool, overwrite: bool = False) -> UploadReport:
        """Upload a backup; it can be restored from the bucket when this returns.

        Args:
            name: the local backup.
            is_wanted: whether it must be there under its name even if the newest snapshot holds
                the same.
            overwrite: follow the newest snapshot also when another machine wrote it.

        Raises:
            RemoteConflictError: another machine has written a newer state.
            RemoteError: the bucket does not answer or refuses; what is there stays restorable.
            BackupError: the local backup is damaged; nothing of it was uploaded.
        """
        with self._backups.pinned(name) as (directory, manifest):
            for attempt in range(_RACES):
                try:
                    return self._upload(name, directory, manifest, is_wanted, overwrite)
                except _RaceLostError:
                    if attempt + 1 == _RACES:
                        raise
                    time.sleep(random.uniform(0, 2**attempt))  # the other may give way too
        raise AssertionError("unreachable")

    def _upload(
        self, name: str, directory: Path, manifest: Manifest, is_wanted: bool, overwrite: bool
    ) -> UploadReport:
        listing = self._remote.survey()
        newest = listing.newest
        if newest is not None:
            self._follow(newest, listing, overwrite)
            if newest.id == self._state.now.head and self._holds_same(
                newest, name, manifest, is_wanted
            ):
                return UploadReport(snapshot=newest, n_objects=0, n_bytes=0)
        keys = {file.name: self._remote.seal.object_key(file.sha256) for file in manifest.files}
        n_objects, n_bytes = self._put_missing(directory, manifest, keys, listing)
        snapshot = self._publish(name, manifest, keys, newest)
        return UploadReport(snapshot=snapshot, n_objects=n_objects, n_bytes=n_bytes)

    def _follow(self, newest: RemoteSnapshot, listing: RemoteListing, overwrite: bool) -> None:
        """See that the store descends from the newest snapshot, or refuse."""
        state = self._state.now
        mine = next((s for s in listing.snapshots if s.id == state.intent), None)
        if mine is not None:
            # The answer to writing it was lost, or this process died before it came.
            if competing := _competing(mine, listing.snapshots):
                self._withdraw(mine.key, competing)
            self._state.change(head=mine.id, intent=None, uploaded_at_s=mine.modified_s)
        if newest.name is None:
            self._remote.read(newest)  # says which passphrase is missing
            raise RemoteSealedError(f"{newest.key} cannot be read")
        if not self._descends_from(newest, listing) and not overwrite:
            raise self._conflict(newest)

    def _descends_from(self, newest: RemoteSnapshot, listing: RemoteListing) -> bool:
        """Whether the store contains a snapshot; also when a later one of ours was damaged."""
        head = self._state.now.head
        ours = self._remote.seal.manifest_name
        damaged = (
            s.generation for s in listing.passed_over if s.id == head and s.key.endswith(ours)
        )
        return newest.id == head or newest.generation < max(damaged, default=0)

    def _conflict(self, newest: RemoteSnapshot) -> RemoteConflictError:
        written = datetime.fromtimestamp(newest.modified_s, timezone.utc).isoformat(" ", "seconds")
        try:
            author = str(self._remote.read(newest).machine)
        except RemoteError:
            author = "another machine"
        return RemoteConflictError(
            f"{self._remote.store.location} holds a newer state, '{newest.name}', written by "
            f"{author} at {written}, which this store does not contain; nothing was uploaded. "
            f"Take it over with POST /sync/restore/{newest.name}?confirm=true, or go on from this "
            "store with POST /sync/upload?overwrite=true, or set another CLOUD_SYNC_PREFIX"
        )

    def _holds_same(
        self, newest: RemoteSnapshot, name: str, manifest: Manifest, is_wanted: bool
    ) -> bool:
        if is_wanted and newest.name != name:
            return False
        try:
            return self._remote.read(newest).backup.facts == manifest.facts
        except RemoteError:
            return False  # damaged, or from before there was a passphrase

    def _put_missing(
        self,
        directory: Path,
        manifest: Manifest,
        keys: Mapping[str, str],
        listing: RemoteListing,
    ) -> tuple[int, int]:
        safe = self._safe_objects(listing)
        n_objects = n_bytes = 0
        for file in manifest.files:
            key = keys[file.name]
            size = self._remote.seal.object_bytes(file.n_bytes)
            stored = listing.objects.get(key)
            if stored is not None and stored.n_bytes == size and key in safe:
                continue
            self._put(directory / file.name, file, key)
            n_objects += 1
            n_bytes += size
        return n_objects, n_bytes

    def _safe_objects(self, listing: RemoteListing) -> set[str]:
        """Objects that nobody's clean-up removes before the new manifest names them.

        Those of the newest snapshot, which stays, and those too new to be removed. Others are
        written again, which makes them new.
        """
        young_s = listing.now_s - self._retention.grace_s / 2
        safe = {key for key, stored in listing.objects.items() if stored.modified_s > young_s}
        if listing.newest is not None and listing.newest.name is not None:
            try:
                safe |= set(self._remote.read(listing.newest).objects.values())
            except RemoteError as exc:
                _log.warning("the newest snapshot cannot be read: %s", exc)
        return safe

    def _put(self, path: Path, file: BackupFile, key: str) -> None:
        if sha256_of(path) != file.sha256:
            raise BackupError(f"{path} is not the file that was written; it was not uploaded")
        with tempfile.TemporaryDirectory(suffix=".partial", dir=self._scratch_dir) as scratch:
            sealed = self._remote.seal.seal_file(path, key, Path(scratch) / "object")
            self._remote.store.put_file(key, sealed)

    def _publish(
        self,
        name: str,
        manifest: Manifest,
        keys: Mapping[str, str],
        newest: RemoteSnapshot | None,
    ) -> RemoteSnapshot:
        """Write the manifest; then see that nobody else did."""
        generation = 1 + (newest.generation if newest is not None else 0)
        snapshot_id = uuid.uuid4().hex[:16]
        key = self._remote.key_of(generation=generation, snapshot_id=snapshot_id, name=name)
        self._state.change(intent=snapshot_id)
        self._remote.write(
            key, RemoteManifest(machine=self._machine, backup=manifest, objects=keys)
        )
        there = self._remote.newest_first()
        mine = next((s for s in there if s.id == snapshot_id), None)
        if mine is None:
            raise RemoteError(f"{self._remote.store.location} does not list what was written")
        if competing := _competing(mine, there):
            self._withdraw(key, competing)
        self._state.change(head=snapshot_id, intent=None, uploaded_at_s=time.time())
        return mine

    def _withdraw(self, key: str, competing: RemoteSnapshot) -> None:
        self._remote.store.delete([key])
        self._state.change(intent=None)
        raise _RaceLostError(str(self._conflict(competing)))

    # Clean-up

    def clean_up(self) -> None:
        """Remove snapshots beyond the retention, then objects that none needs any more.

        An object goes only when no manifest names it, also none that is passed over, and it is
        older than the grace; see `_safe_objects` for why no upload under way can need it.
        """
        listing = self._remote.survey()
        superfluous = self._retention.superfluous(listing.snapshots)
        self._remote.store.delete([snapshot.key for snapshot in superfluous])
        kept = [snapshot for snapshot in listing.snapshots if snapshot not in superfluous]
        old_s = listing.now_s - self._retention.grace_s
        needed = self._needed(kept, listing.passed_over)
        if needed is not None:
            self._remote.store.delete(unreferenced(listing.objects.values(), needed, old_s))
        self._remote.store.abort_uploads(old_s)

    def _needed(
        self, kept: Sequence[RemoteSnapshot], passed_over: Sequence[RemoteSnapshot]
    ) -> set[str] | None:
        """Keys of the objects that manifests name; None when one of them cannot be read."""
        needed = {key for s in kept for key in self._remote.read(s).objects.values()}
        for snapshot in passed_over:
            named = self._remote.may_be_needed(snapshot)
            if named is None:
                where = f"{self._remote.store.location}{snapshot.key}"
                warn_once(_log, f"no object is removed while {where} cannot be read; delete it")
                return None
            needed |= named
        return needed


def _competing(mine: RemoteSnapshot, snapshots: Sequence[RemoteSnapshot]) -> RemoteSnapshot | None:
    """A snapshot that another machine made after the same one as ours."""
    return next((s for s in snapshots if s.generation == mine.generation and s.id != mine.id), None)
