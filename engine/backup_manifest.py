"""What says that a backup is whole: `manifest.json`, with the hashes of its files and its own."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from engine.backup_files import BackupFile, StoreFacts
from engine.durable_files import replacing
from engine.memory_rows import iso_time
from engine.row_checksum import row_checksum

MANIFEST_NAME = "manifest.json"
_VERIFIED_NAME = "verified"

BackupKind = Literal["automatic", "requested", "scheduled", "safety"]
"""After writes; by someone's wish; by the clock; before a restore, a build or the like."""

_FORMAT = 2
"""2 brought the manifest's own checksum."""
_FILE_NAME = re.compile(r"\w+\.db", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,50}_\d{8}_\d{6}(_\d+)?")

_log = logging.getLogger(__name__)


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


def manifest_fields(manifest: Manifest) -> dict[str, Any]:
    """A manifest as JSON values, sealed by a checksum of its own."""
    fields = asdict(manifest)
    return {"format": _FORMAT, "checksum": _checksum(fields), **fields}


def manifest_of(fields: Mapping[str, Any]) -> Manifest:
    """The manifest that JSON values describe; ValueError and the like when they do not."""
    known = dict(fields)
    version = known.pop("format")
    if version not in (1, _FORMAT):
        raise ValueError(f"a manifest of format {version!r}")
    if version != 1 and known.pop("checksum") != _checksum(known):
        raise ValueError("not as it was written")
    facts = StoreFacts(**known.pop("facts"))
    files = tuple(BackupFile(**file) for file in known.pop("files"))
    if not files or not all(_FILE_NAME.fullmatch(file.name) for file in files):
        raise ValueError("it names no files of its own")
    return Manifest(**known, facts=facts, files=files)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write a directory's manifest. Durable when this returns."""
    with replacing(directory / MANIFEST_NAME) as file:
        file.write(json.dumps(manifest_fields(manifest), indent=1).encode())


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a backup's directory; None for what is no whole backup."""
    try:
        return manifest_of(json.loads((directory / MANIFEST_NAME).read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        _log.warning("%s has no readable manifest (%s); it is not listed", directory, exc)
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
        when, checksum = (directory / _VERIFIED_NAME).read_text("ascii").split()
    except (OSError, ValueError):
        return None
    return when if str(row_checksum([directory.name, when])) == checksum else None
