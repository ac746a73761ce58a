"""A new machine: an empty data directory becomes what the bucket holds, before anything serves."""

from __future__ import annotations

import logging
from pathlib import Path

from engine.backups.catalogue import Backups
from engine.disk.data_lock import DataLock
from engine.disk.durable_files import sweep_leftovers
from engine.errors import BackupError, ModelMismatchError, RemoteDamagedError
from engine.legacy.directory import find_legacy
from engine.offsite.download import download
from engine.offsite.snapshots import RemoteManifest, RemoteSnapshots
from engine.offsite.sync_state import SyncStateFile
from engine.records import ModelIdentity
from engine.recovery.offline import restore_offline
from engine.store.acknowledged_mark import HighWaterMark
from engine.store.database import DATABASE_NAME
from engine.store.layout.rows import identity_fields

_log = logging.getLogger(__name__)


def is_new(data_dir: Path) -> bool:
    """Whether a data directory never held memories of its own.

    One whose database went missing is not new: its local backups may be newer than the bucket. A
    killed first start leaves backups as well, but never a mark.
    """
    mark = HighWaterMark(data_dir).read()
    had_writes = mark is not None and mark.lsn > 0
    database = data_dir / DATABASE_NAME
    return not (had_writes or database.exists() or find_legacy(data_dir))


def restore_newest(
    data_dir: Path,
    backups_dir: Path,
    remote: RemoteSnapshots,
    identity: ModelIdentity,
    *,
    lock_timeout_s: float,
) -> str | None:
    """Restore the newest snapshot that is whole into a new data directory.

    May be killed and called again at any moment: the database comes last.

    Returns:
        The name of what was restored; None when the bucket holds no snapshot of ours.

    Raises:
        RemoteDamagedError: there are snapshots, but none can be restored.
        RemoteError: the bucket does not answer, or refuses, or needs another passphrase.
        ModelMismatchError: the vectors there come from another model.
    """
    with DataLock(data_dir, timeout_s=lock_timeout_s):
        sweep_leftovers(data_dir)
        listing = remote.survey()
        snapshots = listing.snapshots
        ours = remote.seal.manifest_name
        if not snapshots and not any(s.key.endswith(ours) for s in listing.passed_over):
            return None
        backups = Backups(backups_dir, keep={})
        state = SyncStateFile(data_dir)
        problems = []
        for snapshot in snapshots:
            try:
                manifest = remote.read(snapshot)
                _check_model(manifest, identity)
                is_newest = snapshot is snapshots[0]
                backup = download(remote, backups, snapshot, is_newest=is_newest).backup
                # Before the database is there: killed in between, all of this happens again.
                # A broken newest one counts as known: uploads go on after it.
                state.change(head=snapshots[0].id, intent=None)
                restore_offline(data_dir, backups, backup.name)
            except (RemoteDamagedError, BackupError) as exc:
                problems.append(str(exc))
                _log.warning(
                    "%s cannot be restored, the one before is tried: %s", snapshot.key, exc
                )
                continue
            _log.info("restored %s from %s", backup.name, remote.store.location)
            return backup.name
    n_found = len(snapshots) + len(listing.passed_over)
    raise RemoteDamagedError(
        f"none of the {n_found} snapshots in {remote.store.location} can be restored: "
        f"{(problems or ['their manifests cannot be read'])[0]}"
    )


def _check_model(manifest: RemoteManifest, identity: ModelIdentity) -> None:
    made_by = manifest.backup.facts.model
    if made_by != identity_fields(identity):
        raise ModelMismatchError(
            f"the snapshots hold vectors of {made_by.get('name')} ({made_by.get('precision')}), "
            f"but this machine embeds with {identity.name} ({identity.precision}): set "
            f"MODEL_NAME={made_by.get('name')} and MODEL_PRECISION={made_by.get('precision')} "
            "and start again"
        )
