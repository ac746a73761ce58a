"""Cloud sync as the settings want it. boto3 and the ciphers are imported only when it is on."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from deployments.settings import Settings, SettingsError
from engine.offsite.cloud_sync import CloudSync
from engine.offsite.retention import RemoteRetention
from engine.offsite.seal import Seal, Unsealed
from engine.offsite.snapshots import RemoteSnapshots

if TYPE_CHECKING:
    from pathlib import Path

    from engine.memory_index import MemoryIndex


def remote_snapshots(settings: Settings) -> RemoteSnapshots:
    """The bucket of the settings. Connects to nothing yet.

    Raises:
        SettingsError: a file that holds a secret cannot be read, or boto3 is not installed.
    """
    try:
        from deployments.index.s3_store import S3Options, S3Store
    except ModuleNotFoundError as exc:
        raise SettingsError(
            f"CLOUD_SYNC_ENABLED=true needs the package {exc.name}, which is not installed here"
        ) from exc
    store = S3Store(
        S3Options(
            bucket=settings.cloud_sync_bucket,
            prefix=settings.cloud_sync_prefix,
            region=settings.cloud_sync_region,
            endpoint=settings.cloud_sync_endpoint or None,
            access_key=settings.cloud_sync_access_key.get_secret_value() or None,
            secret_key=_secret_key(settings) or None,
            timeout_s=settings.cloud_sync_timeout_s,
        )
    )
    return RemoteSnapshots(store, _seal(settings))


def cloud_sync(settings: Settings, index: MemoryIndex, remote: RemoteSnapshots) -> CloudSync:
    """The running copy of an open index; it hears of every automatic backup."""
    sync = CloudSync(
        index.backup_files,
        remote,
        settings.data_dir,
        host=socket.gethostname(),
        retention=RemoteRetention(
            keep=settings.cloud_sync_keep, keep_days=settings.cloud_sync_keep_days
        ),
        interval_s=settings.cloud_sync_interval_s,
    )
    index.on_automatic_backup(sync.notice)
    return sync


def _seal(settings: Settings) -> Seal:
    passphrase = settings.cloud_sync_passphrase.get_secret_value().encode()
    if settings.cloud_sync_passphrase_file is not None:
        passphrase = _content_of("CLOUD_SYNC_PASSPHRASE_FILE", settings.cloud_sync_passphrase_file)
    if not passphrase:
        return Unsealed()
    from engine.offsite.encryption import Encrypted

    return Encrypted(passphrase)


def _secret_key(settings: Settings) -> str:
    if settings.cloud_sync_secret_key_file is None:
        return settings.cloud_sync_secret_key.get_secret_value()
    return _content_of("CLOUD_SYNC_SECRET_KEY_FILE", settings.cloud_sync_secret_key_file).decode()


def _content_of(variable: str, path: Path) -> bytes:
    try:
        content = path.read_bytes().rstrip(b"\r\n")
    except OSError as exc:
        raise SettingsError(f"{variable}={path}: {exc.strerror}") from exc
    if not content:
        raise SettingsError(f"{variable}={path}: the file is empty")
    return content
