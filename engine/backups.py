"""Backups of the store: a directory each, self-contained, listed only when whole.

`backups/<prefix>_<UTC YYYYMMDD_HHMMSS>[_n]/` holds a copy of the database, taken while writes go
on (https://sqlite.org/backup.html), and `manifest.json` with its hash.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from engine.durable_files import (
    fsync_file,
    remove_directory,
    rename_directory,
    replacing,
    sha256_of,
    sweep_leftovers,
    translating_os_errors,
)
from engine.errors import BackupError, BackupNotFoundError
from engine.records import BackupCheck, BackupSummary
from engine.schema import check_format, connect, translating_sqlite_errors

MANIFEST_NAME = "manifest.json"
COPY_NAME = "memories.db"
AUTOMATIC_PREFIX = "auto"

_FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9_-]{1,50}_\d{8}_\d{6}(_\d+)?")
_NOT_IN_PREFIX = re.compile(r"[^A-Za-z0-9_-]")

_log = logging.getLogger(__name__)


class Backups:
    """The backup directories of one data directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with translating_os_errors(directory):
            directory.mkdir(exist_ok=True, mode=0o700)
            sweep_leftovers(directory)

    def create(self, database: Path, prefix: str) -> BackupSummary:
        """Copy the database as it is now. Durable when this returns.

        Args:
            database: the live file; writers are not held off.
            prefix: characters other than letters, digits, `_` and `-` become `_`.
        """
        name = self._free_name(_NOT_IN_PREFIX.sub("_", prefix))
        partial = self._directory / f"{name}.partial"
        try:
            with translating_os_errors(partial):
                partial.mkdir(mode=0o700)
            copy = partial / COPY_NAME
            _copy_database(database, copy)
            _write_manifest(partial, name)
            rename_directory(partial, self._directory / name)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return self.get(name)

    def list(self) -> list[BackupSummary]:
        """Every whole backup, newest first."""
        found = [self._summary(path) for path in self._directories()]
        return sorted(
            (s for s in found if s is not None), key=lambda s: (s.created_s, s.name), reverse=True
        )

    def get(self, name: str) -> BackupSummary:
        """One backup. Raises `BackupNotFoundError`, also for what is no plain backup name."""
        summary = self._summary(self._directory / name) if _NAME.fullmatch(name) else None
        if summary is None:
            raise BackupNotFoundError(name)
        return summary

    def check(self, name: str) -> BackupCheck:
        """Check hashes, SQLite's own integrity and the counts of a backup."""
        directory = Path(self.get(name).path)
        problems = list(_problems(directory, _read_manifest(directory)))
        return BackupCheck(name=name, problems=problems)

    def copy_to(self, name: str, target: Path) -> None:
        """Copy a backup's database out. Raises `BackupError` when the backup is broken."""
        problems = self.check(name).problems
        if problems:
            raise BackupError(f"backup '{name}' is broken: {'; '.join(problems)}")
        with (
            (self._directory / name / COPY_NAME).open("rb") as source,
            replacing(target) as file,
        ):
            shutil.copyfileobj(source, file, 1 << 20)

    def retain(self, prefix: str, keep: int) -> None:
        """Remove all but the newest `keep` backups of a prefix."""
        of_prefix = [s for s in self.list() if _prefix_of(s.name) == prefix]
        for summary in of_prefix[keep:]:
            remove_directory(Path(summary.path))

    def _free_name(self, prefix: str) -> str:
        stem = f"{prefix}_{time.strftime('%Y%m%d_%H%M%S', time.gmtime())}"
        name, n = stem, 1
        while (self._directory / name).exists() or (self._directory / f"{name}.partial").exists():
            n += 1
            name = f"{stem}_{n}"
        return name

    def _directories(self) -> Iterator[Path]:
        return (path for path in self._directory.iterdir() if _NAME.fullmatch(path.name))

    def _summary(self, directory: Path) -> BackupSummary | None:
        try:
            manifest = _read_manifest(directory)
            return BackupSummary(
                name=directory.name,
                created_s=manifest["created_s"],
                path=str(directory),
                total_memories=manifest["total_memories"],
                size_bytes=sum(entry["bytes"] for entry in manifest["files"].values()),
            )
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            _log.warning("%s has no readable manifest (%s); it is not listed", directory, exc)
            return None


def _prefix_of(name: str) -> str:
    return re.sub(r"_\d{8}_\d{6}(_\d+)?$", "", name)


def _copy_database(database: Path, copy: Path) -> None:
    with (
        translating_sqlite_errors(copy),
        closing(connect(database, mode="rw")) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
        # The copy is one file: it takes no WAL with it.
        target.execute("PRAGMA journal_mode = DELETE")
    fsync_file(copy)


def _write_manifest(directory: Path, name: str) -> None:
    copy = directory / COPY_NAME
    manifest = {
        "format": _FORMAT,
        "name": name,
        "created_s": time.time(),
        **_facts(copy),
        "files": {COPY_NAME: {"sha256": sha256_of(copy), "bytes": copy.stat().st_size}},
    }
    with replacing(directory / MANIFEST_NAME) as file:
        file.write(json.dumps(manifest, indent=1).encode())


def _facts(database: Path) -> dict[str, Any]:
    with (
        translating_sqlite_errors(database),
        closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection,
    ):
        (n_memories,) = connection.execute("SELECT count(*) FROM memories").fetchone()
        (n_embeddings,) = connection.execute("SELECT count(*) FROM embeddings").fetchone()
        meta = dict(connection.execute("SELECT name, value FROM meta"))
    return {
        "total_memories": n_memories,
        "total_embeddings": n_embeddings,
        "lsn": int(meta["lsn"]),
        "epoch": meta["epoch"],
        "model": json.loads(meta["model"]),
    }


def _read_manifest(directory: Path) -> dict[str, Any]:
    manifest = json.loads((directory / MANIFEST_NAME).read_text("utf-8"))
    if not isinstance(manifest, dict) or manifest["format"] != _FORMAT:
        raise ValueError("manifest of another format")
    return manifest


def _problems(directory: Path, manifest: dict[str, Any]) -> Iterator[str]:
    for name, expected in manifest["files"].items():
        path = directory / name
        if not path.is_file():
            yield f"{name} is missing"
            return
        if path.stat().st_size != expected["bytes"] or sha256_of(path) != expected["sha256"]:
            yield f"{name} is not the file that was written"
            return
    copy = directory / COPY_NAME
    with closing(sqlite3.connect(f"{copy.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        check_format(connection, copy)
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        yield f"{COPY_NAME}: {verdict}"
    elif any(manifest[name] != fact for name, fact in _facts(copy).items()):
        yield f"{COPY_NAME} does not hold what {MANIFEST_NAME} says"
