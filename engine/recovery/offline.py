"""Mending a data directory while no service runs. The caller holds its `DataLock`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from engine.backups.catalogue import Backups
from engine.backups.facts import facts_in
from engine.backups.restore import continue_history, remove_database
from engine.backups.verification import NO_CODES, problems_of
from engine.disk.durable_files import fsync_directory, fsync_file, translating_os_errors
from engine.errors import BackupError, EngineError
from engine.namespaces import DEFAULT
from engine.search.bm25 import BM25Index
from engine.search.postings_cache import (
    arrays_of,
    cache_path,
    caches_in,
    remove_caches,
    replace_cache,
)
from engine.search.search_index import searchable_tokens
from engine.store.acknowledged_mark import HighWaterMark, Mark
from engine.store.database import DATABASE_NAME, Store, recorded_identity
from engine.store.soundness import check_sound
from engine.store.upgrade import upgrade

_PROGRESS_ROWS = 500
_UNKNOWN_IDS = 1_000_000
"""Skipped when nothing is left that knows the last id: none is used twice."""


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
        if problems := problems_of(candidate, exact_below=NO_CODES):
            raise BackupError(f"backup '{name}' cannot be used: {'; '.join(problems)}")
        last_id, last_lsn = max(facts.last_id, backups.last_id()), facts.lsn
        marks = [m for m in (HighWaterMark(data_dir).read(), _mark_in(data_dir)) if m]
        if database.exists() and not marks:
            last_id += _UNKNOWN_IDS
        last_id = max(last_id, *(mark.last_id for mark in marks), 0)
        last_lsn = max(last_lsn, *(mark.lsn for mark in marks), 0)
        continue_history(candidate, last_id=last_id, last_lsn=last_lsn)
        fsync_file(candidate)
        return _put_in_place(candidate, database)
    finally:
        remove_database(candidate)


def accept_loss(data_dir: Path) -> int:
    """Go on with what the database holds, though newer writes were acknowledged.

    Ids that were given out with the lost writes stay used.

    Returns:
        How many memories it holds.

    Raises:
        StoreCorruptError: it is damaged beyond that.
    """
    database = data_dir / DATABASE_NAME
    upgrade(database)
    check_sound(database)
    facts, known = facts_in(database), HighWaterMark(data_dir).read()
    continue_history(
        database,
        last_id=max(facts.last_id, known.last_id if known else 0),
        last_lsn=max(facts.lsn, known.lsn if known else 0),
    )
    return facts.total_memories


def rebuild_indexes(data_dir: Path) -> Iterator[tuple[int, int]]:
    """Build the cached posting lists anew.

    Yields:
        (memories read, memories in all), now and then.

    Raises:
        StoreCorruptError: the store is damaged; nothing was changed.
    """
    database = data_dir / DATABASE_NAME
    upgrade(database)
    check_sound(database)
    had_caches = {path.name for path in caches_in(data_dir)}
    remove_caches(data_dir)
    with closing(Store(database, identity=recorded_identity(database))) as store:
        of_caches = {cache_path(data_dir, facts.id): facts for facts in store.namespaces()}
        wanted = {
            path: facts
            for path, facts in of_caches.items()
            if facts.name == DEFAULT or path.name in had_caches
        }
        total, n_done = sum(facts.n_memories for facts in wanted.values()), 0
        for path, facts in wanted.items():
            keywords, ids = BM25Index(), np.empty(facts.n_memories, dtype=np.int64)
            texts = store.searchable_since(-1, facts.id)
            for row, (memory_id, text, source) in enumerate(texts):
                keywords.add(row, searchable_tokens(text, source))
                ids[row] = memory_id
                if row % _PROGRESS_ROWS == 0:
                    yield n_done + row, total
            replace_cache(path, arrays_of(keywords, ids, epoch=store.epoch, lsn=store.lsn))
            n_done += facts.n_memories
        yield total, total


@contextmanager
def copy_of_database(data_dir: Path) -> Iterator[Path]:
    """A scratch copy with its WAL, since opening a database with a WAL changes it."""
    scratch = data_dir / "doctor.partial"
    shutil.rmtree(scratch, ignore_errors=True)
    with translating_os_errors(scratch):
        scratch.mkdir(mode=0o700)
        try:
            for suffix in ("", "-wal"):
                part = data_dir / (DATABASE_NAME + suffix)
                if part.exists():
                    shutil.copyfile(part, scratch / part.name)
            yield scratch / DATABASE_NAME
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _mark_in(data_dir: Path) -> Mark | None:
    """What the database itself says, if it can be read."""
    try:
        with copy_of_database(data_dir) as copy:
            check_sound(copy)
            facts = facts_in(copy)
        return Mark(epoch=facts.epoch, lsn=facts.lsn, last_id=facts.last_id)
    except (EngineError, KeyError, TypeError, ValueError):
        return None


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
        remove_caches(database.parent)
        fsync_directory(database.parent)
    return aside
