"""Putting a backup in the place of the live store, whole or not at all."""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

from engine.backups.catalogue import Backups
from engine.backups.facts import Origin, facts_in, facts_of, write_origin
from engine.disk.durable_files import fsync_directory, fsync_file
from engine.errors import StorageError
from engine.store.database import Store
from engine.store.layout.rows import last_id_of, set_meta
from engine.store.layout.schema import connect, translating_sqlite_errors
from engine.writing.live_state import LiveState, ReadyStore


def restored_before(store: Store, request_id: str | None) -> int | None:
    """How many memories a restore of this id left, if `store` is what came of it."""
    if request_id is None:
        return None
    with store.transaction() as transaction:
        outcome = transaction.outcomes.get(request_id)
    return None if outcome is None else int(outcome)


def restore_into(state: LiveState, backups: Backups, name: str, *, request_id: str | None) -> None:
    """Replace store and indexes by those of a backup. For the writer thread, between commits.

    All that can fail happens beside the live store; the swap is one rename.

    Args:
        state: what is replaced.
        backups: among them this one.
        name: of the backup.
        request_id: the restored store remembers that this restore has happened.

    Raises:
        BackupError: the backup is broken. The live state is as it was.
        ModelMismatchError: its vectors come from another model.
    """
    live = state.store
    candidate = live.path.with_name(live.path.name + ".restoring.partial")
    try:
        backups.assemble(name, candidate)
        facts = facts_in(live.path)
        continue_history(candidate, last_id=facts.last_id, last_lsn=facts.lsn)
        ready = _ready(state, candidate, request_id)
        _swap(state, candidate, ready)
    finally:
        remove_database(candidate)


def remove_database(path: Path) -> None:
    """Remove a database that nobody has open, with its WAL; it may be absent."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def continue_history(candidate: Path, *, last_id: int, last_lsn: int) -> None:
    """Give a restored database a history of its own that repeats no id and no LSN.

    Args:
        candidate: the database, which nobody has open.
        last_id: the highest id that may have been given out before.
        last_lsn: likewise the highest LSN.
    """
    with (
        translating_sqlite_errors(candidate),
        closing(connect(candidate, mode="rw")) as restored,
    ):
        restored.execute("BEGIN IMMEDIATE")
        _raise_last_id(restored, last_id)
        facts = facts_of(restored)
        lsn = max(facts.lsn, last_lsn) + 1
        write_origin(restored, Origin(epoch=facts.epoch, lsn=facts.lsn, as_lsn=lsn))
        set_meta(restored, "epoch", uuid.uuid4().hex)
        set_meta(restored, "lsn", str(lsn))
        set_meta(restored, "last_id", str(last_id_of(restored)))
        restored.execute("COMMIT")


def _raise_last_id(restored: sqlite3.Connection, last_id: int) -> None:
    changed = restored.execute(
        "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'memories'", (last_id,)
    )
    if not changed.rowcount:
        restored.execute("INSERT INTO sqlite_sequence VALUES ('memories', ?)", (last_id,))


def _ready(state: LiveState, candidate: Path, request_id: str | None) -> ReadyStore:
    with closing(Store(candidate, identity=state.store.identity)) as store:
        ready = state.ready(store, with_caches=False)
        if request_id is not None:
            with store.transaction() as transaction:
                transaction.outcomes.put(request_id, str(store.count()))
        return ready


def _swap(state: LiveState, candidate: Path, ready: ReadyStore) -> None:
    live = state.store
    fsync_file(candidate)
    with state.store_lock.exclusive(), state.changing, state.lock.exclusive():
        # The last connection to close empties and removes the WAL; one that stayed would be
        # replayed into the restored database.
        live.close()
        try:
            wal = live.path.with_name(live.path.name + "-wal")
            if wal.exists() and wal.stat().st_size:
                raise StorageError("the store is in use elsewhere; nothing was restored")
            candidate.replace(live.path)
            state.adopt(ready)  # at once: what follows may fail, and they belong together
            fsync_directory(live.path.parent)
        finally:
            try:
                state.store = Store(live.path, identity=live.identity)
            except Exception as exc:
                state.broken = exc
                raise
            if live.mark is not None:
                state.store.follow(live.mark)
