"""What says that a backup is whole: `manifest.json`, with the hashes of its files and its own."""

from __future__ import annotations

import json
import logging
import re
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from engine.backups.facts import StoreFacts
from engine.backups.files import BackupFile
from engine.disk.durable_files import read_whole, replacing
from engine.store.foreign_json import object_of, parse_json, record_of
from engine.store.layout.row_checksum import row_checksum
from engine.store.layout.rows import iso_time
from engine.writing.once import warn_once

MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 16 << 20
"""Of a backup of 60,000 files."""
LATEST_S = 1e11
"""No backup was created later, since the epoch: in the year 5138."""
_VERIFIED_NAME = "verified"
_VERIFIED_BYTES = 200

BackupKind = Literal["automatic", "requested", "scheduled", "safety"]
"""After writes; by someone's wish; by the clock; before a restore, a build or the like."""

_FORMAT = 2
"""2 brought the manifest's own checksum."""
_FILE_NAME = re.compile(r"\w{1,100}\.db", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"(?P<stem>[A-Za-z0-9_-]{1,50}_\d{8}_\d{6})(_\d+)?", re.ASCII)

_log = logging.getLogger(__name__)


class NewerFormatError(ValueError):
    """A manifest that a newer release wrote; never leaves the engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a backup holds, and what proves it whole."""

    kind: BackupKind
    created_s: float
    facts: StoreFacts
    files: tuple[BackupFile, ...]
    """The base, then its deltas in order."""


def is_backup_name(name: str) -> bool:
    """Whether a backup may be called so."""
    return _NAME.fullmatch(name) is not None


def name_after(name: str, n: int) -> str:
    """The name of a backup that is the n-th of those that would be called `name`."""
    match = _NAME.fullmatch(name)
    return f"{match['stem'] if match else name}_{n}"


def manifest_fields(manifest: Manifest) -> dict[str, Any]:
    """A manifest as JSON values, sealed by a checksum of its own."""
    fields = asdict(manifest)
    return {"format": _FORMAT, "checksum": _checksum(fields), **fields}


def manifest_of(value: object) -> Manifest:
    """The manifest that a JSON value describes. Raises `ValueError` when it is none."""
    known = dict(object_of(value))
    version, checksum = known.pop("format", None), known.pop("checksum", None)
    check_format(version, newest=_FORMAT)
    kind, created_s, files = (known.pop(name, None) for name in ("kind", "created_s", "files"))
    if kind not in get_args(BackupKind):
        raise ValueError(f"'kind' is {kind!r:.80}")
    if type(created_s) not in (int, float) or not 0 <= created_s <= LATEST_S:
        raise ValueError(f"'created_s' is {created_s!r:.80}")
    manifest = Manifest(
        kind=kind,
        created_s=created_s,
        facts=record_of(StoreFacts, known.pop("facts", None)),
        files=_files_of(files),
    )
    if known:
        raise ValueError(f"{list(known)!r:.80} is not known")
    if version != 1 and checksum != _checksum(asdict(manifest)):
        raise ValueError("not as it was written")
    return manifest


def check_format(version: object, *, newest: int) -> None:
    """Raise `ValueError`, or `NewerFormatError`, unless a manifest's format is one that we read."""
    if type(version) is not int or version < 1:
        raise ValueError(f"'format' is {version!r:.80}")
    if version > newest:
        raise NewerFormatError(f"format {version} is that of a newer release")


def _files_of(value: object) -> tuple[BackupFile, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("it names no files")
    files = tuple(record_of(BackupFile, file) for file in value)
    if [file.from_lsn for file in files] != [None, *(file.to_lsn for file in files[:-1])]:
        raise ValueError("its files do not follow each other")
    if len({file.name for file in files}) < len(files):
        raise ValueError("it names a file twice")
    if not all(_FILE_NAME.fullmatch(f.name) and _SHA256.fullmatch(f.sha256) for f in files):
        raise ValueError("it names files that are not its own")
    return files


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write a directory's manifest. Durable when this returns."""
    with replacing(directory / MANIFEST_NAME) as file:
        file.write(json.dumps(manifest_fields(manifest), indent=1).encode())


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a backup's directory; None for what is no whole backup."""
    try:
        content = read_whole(directory / MANIFEST_NAME, max_bytes=MAX_MANIFEST_BYTES)
        return manifest_of(parse_json(content))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as exc:
        warn_once(_log, f"{directory} has no readable manifest ({exc}); it is not listed")
        return None


def _checksum(fields: dict[str, Any]) -> int:
    return row_checksum([json.dumps(fields, sort_keys=True)])


def note_verified(directory: Path) -> None:
    """Record that a backup was put together and searched just now."""
    now = iso_time(time.time_ns() // 1_000)
    with replacing(directory / _VERIFIED_NAME) as file:
        file.write(f"{now} {row_checksum([directory.name, now])}".encode())


def verified_at(directory: Path) -> str | None:
    """When `note_verified` was called last; None for never."""
    try:
        content = read_whole(directory / _VERIFIED_NAME, max_bytes=_VERIFIED_BYTES)
        when, checksum = content.decode("ascii").split()
        datetime.fromisoformat(when)
    except (OSError, ValueError):
        return None
    return when if str(row_checksum([directory.name, when])) == checksum else None
