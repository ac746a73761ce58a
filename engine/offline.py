"""Mending a data directory while no service runs. The caller holds its `DataLock`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.backup_files import facts_in
from engine.backups import Backups
from engine.durable_files import fsync_directory, fsync_file, translating_os_errors
from engine.errors import BackupError, EngineError
from engine.index_cache import CACHE_NAME
from engine.legacy import find_legacy
from engine.restore import continue_history, remove_database
from engine.store import DATABASE_NAME
from engine.verification import problems_of

COMMAND = ".venv/bin/python -m scripts.store"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong with a data directory, and the command that mends it."""

    problem: str
    remedy: str


def examine(data_dir: Path, backups: Backups) -> Iterator[Finding]:
    """Look at everything in a data directory; changes nothing."""
    database = data_dir / DATABASE_NAME
    newest = next((s.name for s in backups.summaries() if not backups.damage(s.name)), None)
    restore = f"{COMMAND} restore {newest}" if newest else "no sound backup is left to restore"
    if not database.exists():
        if newest:
            yield Finding(problem=f"{DATABASE_NAME} is missing", remedy=restore)
    else:
        for problem in _problems_of_copy(data_dir):
            yield Finding(problem=f"{DATABASE_NAME}: {problem}", remedy=restore)
    for summary in backups.summaries():
        for problem in backups.damage(summary.name):
            yield Finding(
                problem=f"backup {summary.name}: {problem}",
                remedy="none: later backups start anew from the store; delete this one",
            )
    if find_legacy(data_dir):
        yield Finding(
            problem="files of the original service wait to be imported",
            remedy="start the service; it says so if it cannot take them over",
        )


def restore_offline(data_dir: Path, backups: Backups, name: str) -> Path | None:
    """Put a backup in the store's place.

    Returns:
        Where the database before is kept; None when there was none.

    Raises:
        BackupNotFoundError, BackupError: nothing was changed.
    """
    database = data_dir / DATABASE_NAME
    candidate = data_dir / f"{DATABASE_NAME}.restoring.partial"
    try:
        facts = backups.assemble(name, candidate)
        if problems := problems_of(candidate, exact_below=_NO_CODES):
            raise BackupError(f"backup '{name}' cannot be used: {'; '.join(problems)}")
        last_id, last_lsn = max(facts.last_id, backups.last_id()), facts.lsn
        try:
            live = facts_in(database) if database.exists() else facts
            last_id, last_lsn = max(last_id, live.last_id), max(last_lsn, live.lsn)
        except (EngineError, KeyError, TypeError, ValueError):
            last_id += _UNKNOWN_IDS
        continue_history(candidate, last_id=last_id, last_lsn=last_lsn)
        fsync_file(candidate)
        return _put_in_place(candidate, database)
    finally:
        remove_database(candidate)


def forget_indexes(data_dir: Path) -> None:
    """Remove the cached posting lists; the next start reads every text again."""
    (data_dir / CACHE_NAME).unlink(missing_ok=True)


_NO_CODES = 1 << 62
_UNKNOWN_IDS = 1_000_000
"""Skipped when the database that knows the last id cannot be read: none is used twice."""


def _put_in_place(candidate: Path, database: Path) -> Path | None:
    aside = None
    with translating_os_errors(database):
        if database.exists():
            aside = database.parent / f"replaced_{time.strftime('%Y%m%d_%H%M%S', time.gmtime())}"
            aside.mkdir(mode=0o700)
            # The WAL belongs to the old database and must go with it; the database goes last, so
            # that a crash in between leaves it where this command finds it.
            for suffix in ("-wal", "-shm", ""):
                part = database.with_name(database.name + suffix)
                if part.exists():
                    part.rename(aside / part.name)
            fsync_directory(aside)
        candidate.rename(database)
        (database.parent / CACHE_NAME).unlink(missing_ok=True)
        fsync_directory(database.parent)
    return aside


def _problems_of_copy(data_dir: Path) -> list[str]:
    """Check a copy, since opening a database with a WAL changes it."""
    scratch = data_dir / "doctor.partial"
    shutil.rmtree(scratch, ignore_errors=True)
    with translating_os_errors(scratch):
        scratch.mkdir(mode=0o700)
        try:
            for suffix in ("", "-wal"):
                part = data_dir / (DATABASE_NAME + suffix)
                if part.exists():
                    shutil.copyfile(part, scratch / part.name)
            return problems_of(scratch / DATABASE_NAME, exact_below=_NO_CODES)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
