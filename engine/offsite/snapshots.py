"""The snapshots in a bucket: which there are, what they hold, reading and writing them.

```
objects/<hash>                                  a base or a delta, stored once under its hash
backups/<generation>-<id>-<name>/manifest.json  a snapshot; written last, so it is whole or absent
```

Nothing is ever written over: a snapshot's id is random, and its generation is one more than that
of the snapshot it was made after. The newest is the one of the highest generation, whatever the
clocks of the machines say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.backup_files import BackupFile
from engine.backup_manifest import Manifest, is_backup_name, manifest_fields, manifest_of
from engine.errors import RemoteDamagedError, RemoteSealedError
from engine.offsite.object_store import ObjectStore, StoredObject
from engine.offsite.seal import PLAIN_MANIFEST, SEALED_MANIFEST, Seal

_FORMAT = 1
_BACKUPS = "backups/"
_KEY = re.compile(
    rf"backups/(\d{{10}})-([0-9a-f]{{16}})-([\w-]+)/({PLAIN_MANIFEST}|{SEALED_MANIFEST})"
)


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
        """Every snapshot, newest first."""
        return self._snapshots(self.store.list(_BACKUPS).objects)

    def survey(self) -> RemoteListing:
        """Every snapshot and every object."""
        listing = self.store.list("")
        return RemoteListing(
            snapshots=self._snapshots(listing.objects),
            objects={found.key: found for found in listing.objects},
            now_s=listing.now_s,
        )

    def _snapshots(self, objects: Sequence[StoredObject]) -> list[RemoteSnapshot]:
        found = [
            RemoteSnapshot(
                generation=int(match[1]),
                id=match[2],
                name=self._name_of(match[3], match[4]),
                key=stored.key,
                modified_s=stored.modified_s,
            )
            for stored in objects
            if (match := _KEY.fullmatch(stored.key))
        ]
        known = self._manifests
        self._manifests = {s.key: known[s.key] for s in found if s.key in known}
        return sorted(found, key=lambda s: (s.generation, s.modified_s, s.id), reverse=True)

    def _name_of(self, token: str, manifest_name: str) -> str | None:
        if manifest_name == PLAIN_MANIFEST:
            return token
        if self.seal.manifest_name != SEALED_MANIFEST:
            return None
        try:
            return self.seal.name_of(token)
        except RemoteSealedError:
            return None

    def read(self, snapshot: RemoteSnapshot) -> RemoteManifest:
        """What a snapshot holds.

        Raises:
            RemoteSealedError: the passphrase does not open it, or it is not encrypted.
            RemoteDamagedError: it is gone or no manifest.
        """
        known = self._manifests.get(snapshot.key)
        if known is None:
            content = self.store.get(snapshot.key)
            if snapshot.name is None and self.seal.manifest_name == SEALED_MANIFEST:
                raise RemoteSealedError(
                    f"the snapshots in {self.store.location} were encrypted with another "
                    "passphrase: set CLOUD_SYNC_PASSPHRASE to that one"
                )
            content = self.seal.open(content, snapshot.key)
            known = self._manifests[snapshot.key] = _parsed(content, snapshot)
        return known

    def fetch(self, remote: RemoteManifest, file: BackupFile, path: Path) -> None:
        """Download one file of a snapshot. Its hash is for the caller to check."""
        key = remote.objects[file.name]
        self.store.get_file(key, path)
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
        fields: dict[str, Any] = json.loads(content)
        if fields["format"] != _FORMAT:
            raise ValueError("written by another release")
        backup = manifest_of(fields["backup"])
        objects = {file.name: str(fields["objects"][file.name]) for file in backup.files}
        if snapshot.name is None or not is_backup_name(snapshot.name):
            raise ValueError("it has no name of a backup")
        return RemoteManifest(machine=Machine(**fields["machine"]), backup=backup, objects=objects)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise RemoteDamagedError(f"{snapshot.key} is no manifest of ours ({exc})") from exc
