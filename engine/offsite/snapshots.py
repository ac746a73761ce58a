"""The snapshots in a bucket: which there are, what they hold, reading and writing them.

```
objects/<hash>                                  a base or a delta, stored once under its hash
backups/<generation>-<id>-<name>/manifest.json  a snapshot; written last, so it is whole or absent
```

Whoever may write to the bucket can put anything there. What is no manifest of ours is passed over
with a warning: with a passphrase, all that was not encrypted with it.

Nothing is ever written over: a snapshot's id is random, and its generation is one more than that
of the snapshot it was made after. The newest is the one of the highest generation, whatever the
clocks of the machines say.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.backups.files import BackupFile
from engine.backups.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    NewerFormatError,
    check_format,
    is_backup_name,
    manifest_fields,
    manifest_of,
)
from engine.errors import (
    RemoteConflictError,
    RemoteDamagedError,
    RemoteError,
    RemoteSealedError,
)
from engine.offsite.object_store import ObjectListing, ObjectStore, StoredObject
from engine.offsite.seal import PLAIN_MANIFEST, SEALED_MANIFEST, Seal
from engine.store.foreign_json import object_of, parse_json, record_of
from engine.writing.once import warn_once

_FORMAT = 1
_BACKUPS = "backups/"
_KEY = re.compile(
    rf"backups/(\d{{10,}})-([0-9a-f]{{16}})-([\w-]+)/({PLAIN_MANIFEST}|{SEALED_MANIFEST})", re.ASCII
)
_OBJECT_KEY = re.compile(r"objects/[0-9a-f]{64}")
_MAX_BYTES = 2 * MAX_MANIFEST_BYTES
"""Of a manifest: that of the backup, and where its files are."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSnapshot:
    """One snapshot, as a listing shows it."""

    generation: int
    id: str
    name: str | None
    """The backup's name; None when it is encrypted and the passphrase does not open it."""
    key: str
    """Of its manifest."""
    modified_s: float
    """When it was written, by the store's clock."""

    @property
    def directory(self) -> str:
        """What the keys of the snapshot start with."""
        return self.key.rpartition("/")[0] + "/"

    @property
    def label(self) -> str:
        """A name that no other snapshot has."""
        return self.key.split("/")[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Who wrote a snapshot."""

    id: str
    host: str

    def __str__(self) -> str:
        return f"{self.host} ({self.id[:8]})"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteManifest:
    """What a snapshot holds and who wrote it."""

    machine: Machine
    backup: Manifest
    objects: Mapping[str, str]
    """Where each file of the backup is, by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteListing:
    """Everything in the bucket at one moment."""

    snapshots: Sequence[RemoteSnapshot]
    """Newest first."""
    passed_over: Sequence[RemoteSnapshot]
    """What looks like one and is none of ours, newest first."""
    objects: Mapping[str, StoredObject]
    now_s: float
    """By the store's clock."""

    @property
    def newest(self) -> RemoteSnapshot | None:
        """The snapshot that a new machine would restore."""
        return self.snapshots[0] if self.snapshots else None


class RemoteSnapshots:
    """The snapshots of one bucket and prefix. Safe for several threads."""

    def __init__(self, store: ObjectStore, seal: Seal) -> None:
        self.store = store
        self.seal = seal
        self._manifests: dict[str, RemoteManifest] = {}
        """Of those in the latest listing, by key: a snapshot never changes."""

    def newest_first(self) -> list[RemoteSnapshot]:
        """Every snapshot, newest first. Reads the manifests that it has not read before."""
        return list(self._listed(self.store.list(_BACKUPS)).snapshots)

    def survey(self) -> RemoteListing:
        """Every snapshot and every object."""
        return self._listed(self.store.list(""))

    def _listed(self, listing: ObjectListing) -> RemoteListing:
        # The oldest first: what was planted lately must not use up the patience of the seal.
        oldest_first = sorted(listing.objects, key=lambda stored: stored.modified_s)
        found = [s for stored in oldest_first if (s := self._snapshot_of(stored)) is not None]
        found.sort(key=lambda s: (s.generation, s.modified_s, s.id), reverse=True)
        known = self._manifests
        self._manifests = {s.key: known[s.key] for s in found if s.key in known}
        ours, passed_over = self._sorted_out(found)
        return RemoteListing(
            snapshots=ours,
            passed_over=passed_over,
            objects={stored.key: stored for stored in listing.objects},
            now_s=listing.now_s,
        )

    def _snapshot_of(self, stored: StoredObject) -> RemoteSnapshot | None:
        match = _KEY.fullmatch(stored.key)
        if match is None:
            return None
        return RemoteSnapshot(
            generation=int(match[1]),
            id=match[2],
            name=self._name_of(match[3], match[4]),
            key=stored.key,
            modified_s=stored.modified_s,
        )

    def _name_of(self, token: str, manifest_name: str) -> str | None:
        if manifest_name == PLAIN_MANIFEST:
            return token
        if self.seal.manifest_name != SEALED_MANIFEST:
            return None
        try:
            return self.seal.name_of(token)
        except RemoteSealedError:
            return None

    def _sorted_out(
        self, found: Sequence[RemoteSnapshot]
    ) -> tuple[list[RemoteSnapshot], list[RemoteSnapshot]]:
        """Of what looks like snapshots, newest first: those of ours, and those passed over.

        Once the newest of ours is known, others that cannot be read for now count as ours.
        """
        opens_some = any(s.name is not None and s.key.endswith(SEALED_MANIFEST) for s in found)
        ours: list[RemoteSnapshot] = []
        passed_over: list[RemoteSnapshot] = []
        is_answering = True
        for snapshot in found:
            problem = self._mark_of_others(snapshot, opens_some=opens_some)
            if problem is None and snapshot.name is not None and is_answering:
                try:
                    problem = self._damage_of(snapshot)
                except RemoteError:
                    if not ours:
                        raise
                    is_answering = False
            if problem is not None:
                warn_once(_log, f"{self.store.location}{snapshot.key} is passed over: {problem}")
            (ours if problem is None else passed_over).append(snapshot)
        return ours, passed_over

    def _mark_of_others(self, snapshot: RemoteSnapshot, *, opens_some: bool) -> str | None:
        """Why a key says that a snapshot is not ours.

        One that another passphrase opens counts as ours as long as ours opens none: then it is
        ours that is wrong, and whoever needs the snapshot is told so.
        """
        if self.seal.manifest_name == SEALED_MANIFEST and snapshot.key.endswith(PLAIN_MANIFEST):
            return "it is not encrypted, though there is a passphrase"
        if snapshot.name is None and opens_some:
            return "it was encrypted with another passphrase"
        return None

    def _damage_of(self, snapshot: RemoteSnapshot) -> str | None:
        """Why the content of a snapshot is no manifest of ours; its name alone proves nothing."""
        try:
            self.read(snapshot)
        except RemoteConflictError:
            return None  # of a newer release
        except (RemoteDamagedError, RemoteSealedError) as exc:
            return str(exc)
        return None

    def read(self, snapshot: RemoteSnapshot) -> RemoteManifest:
        """What a snapshot holds.

        Raises:
            RemoteSealedError: there is no passphrase, or it opens nothing here.
            RemoteDamagedError: it is gone or no manifest.
            RemoteConflictError: a newer release wrote it.
        """
        known = self._manifests.get(snapshot.key)
        if known is None:
            if snapshot.name is None and self.seal.manifest_name == SEALED_MANIFEST:
                raise RemoteSealedError(
                    f"the snapshots in {self.store.location} were encrypted with another "
                    "passphrase: set CLOUD_SYNC_PASSPHRASE to that one"
                )
            content = self.store.get(snapshot.key, max_bytes=_MAX_BYTES)
            content = self.seal.open(content, snapshot.key)
            known = self._manifests[snapshot.key] = _parsed(content, snapshot)
        return known

    def may_be_needed(self, passed_over: RemoteSnapshot) -> set[str] | None:
        """Keys of the objects that something passed over names; None when nobody can tell."""
        if passed_over.key.endswith(SEALED_MANIFEST):
            return None
        try:
            content = self.store.get(passed_over.key, max_bytes=_MAX_BYTES)
        except RemoteDamagedError:
            return set()  # gone, or larger than any manifest
        return set(_OBJECT_KEY.findall(content.decode("utf-8", "replace")))

    def fetch(self, remote: RemoteManifest, file: BackupFile, path: Path) -> None:
        """Download one file of a snapshot. Its hash is for the caller to check."""
        key = remote.objects[file.name]
        self.store.get_file(key, path, max_bytes=self.seal.object_bytes(file.n_bytes))
        self.seal.open_file(path, key)

    def key_of(self, *, generation: int, snapshot_id: str, name: str) -> str:
        """Where the manifest of a new snapshot goes."""
        token = self.seal.token(name)
        return f"{_BACKUPS}{generation:010d}-{snapshot_id}-{token}/{self.seal.manifest_name}"

    def write(self, key: str, remote: RemoteManifest) -> None:
        """Write a manifest; the snapshot is there when this returns."""
        fields = {
            "format": _FORMAT,
            "machine": asdict(remote.machine),
            "backup": manifest_fields(remote.backup),
            "objects": dict(remote.objects),
        }
        self.store.put(key, self.seal.seal(json.dumps(fields, indent=1).encode(), key))
        self._manifests[key] = remote


def _parsed(content: bytes, snapshot: RemoteSnapshot) -> RemoteManifest:
    try:
        if snapshot.name is None or not is_backup_name(snapshot.name):
            raise ValueError("it has no name of a backup")
        fields = object_of(parse_json(content))
        check_format(fields.get("format"), newest=_FORMAT)
        backup = manifest_of(fields.get("backup"))
        return RemoteManifest(
            machine=record_of(Machine, fields.get("machine")),
            backup=backup,
            objects=_objects_of(fields.get("objects"), backup),
        )
    except NewerFormatError as exc:
        raise RemoteConflictError(
            f"{snapshot.key} was written by a newer release ({exc}): install that one"
        ) from exc
    except ValueError as exc:
        raise RemoteDamagedError(f"{snapshot.key} is no manifest of ours ({exc})") from exc


def _objects_of(value: object, backup: Manifest) -> dict[str, str]:
    keys = object_of(value)
    objects = {file.name: keys.get(file.name) for file in backup.files}
    for name, key in objects.items():
        if not (isinstance(key, str) and _OBJECT_KEY.fullmatch(key)):
            raise ValueError(f"it does not say where {name} is")
    return {name: str(key) for name, key in objects.items()}
