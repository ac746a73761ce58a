"""Downloading a snapshot: it becomes a local backup like any other, once it is whole."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine.backups.catalogue import Backups
from engine.backups.files import BackupFile
from engine.errors import (
    BackupError,
    BackupNotFoundError,
    NotFoundError,
    RemoteDamagedError,
)
from engine.offsite.snapshots import RemoteManifest, RemoteSnapshot, RemoteSnapshots
from engine.records import BackupSummary

_ATTEMPTS = 2
"""A download that was cut short is begun again once; an object that is damaged stays so."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A snapshot that is here now."""

    snapshot: RemoteSnapshot
    backup: BackupSummary
    """The local backup that it became."""
    n_fetched: int
    """Files that travelled; the others were here already."""
    is_newest: bool
    """Whether it was the newest in the bucket when it was looked up."""


def find(snapshots: Sequence[RemoteSnapshot], name: str | None) -> RemoteSnapshot:
    """Of snapshots, newest first, the newest of a name; the newest of all without a name.

    Two machines may have called theirs the same: what its `s3_prefix` ends with names just one.

    Raises:
        BackupNotFoundError, NotFoundError: there is none.
    """
    if name is None:
        if not snapshots:
            raise NotFoundError("There is no snapshot in the cloud yet")
        return snapshots[0]
    found = next((s for s in snapshots if name in (s.name, s.label)), None)
    if found is None:
        raise BackupNotFoundError(name)
    return found


def download(
    remote: RemoteSnapshots, backups: Backups, snapshot: RemoteSnapshot, *, is_newest: bool
) -> Download:
    """Make a snapshot a local backup, every file checked by its hash.

    Raises:
        RemoteDamagedError: a part of it is missing or not what was uploaded.
        RemoteError: the bucket does not answer or refuses. Calling again goes on from there.
    """
    manifest = remote.read(snapshot)
    fetched: set[str] = set()
    # The limit of automatic backups must not push out what was asked for.
    backup = replace(manifest.backup, kind="requested")
    fetch = functools.partial(_fetch, remote, manifest, fetched)
    for attempt in range(_ATTEMPTS):
        try:
            summary = backups.take_over(snapshot.name or snapshot.id, backup, fetch)
            return Download(
                snapshot=snapshot, backup=summary, n_fetched=len(fetched), is_newest=is_newest
            )
        except BackupError as exc:
            _log.warning("%s in the cloud: %s", snapshot.name, exc)
            if attempt + 1 == _ATTEMPTS:
                raise RemoteDamagedError(
                    f"snapshot '{snapshot.name}' in the cloud is damaged: {exc}"
                ) from exc
    raise AssertionError("unreachable")


def _fetch(
    remote: RemoteSnapshots,
    manifest: RemoteManifest,
    fetched: set[str],
    file: BackupFile,
    path: Path,
) -> None:
    remote.fetch(manifest, file, path)
    fetched.add(file.name)
