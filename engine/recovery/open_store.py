"""Opening the store of a data directory, or saying why not and which command mends it.

A store that is damaged in one row is refused whole: a search cannot say which memory it did not
see, an automatic backup of it would push sound ones out, and restoring the newest of those takes
a second and loses nothing that was written more than a moment before the damage.
"""

from __future__ import annotations

from pathlib import Path

from engine.backups.catalogue import Backups
from engine.backups.facts import facts_in
from engine.commands import script_command
from engine.errors import StoreCorruptError
from engine.records import ModelIdentity
from engine.store.acknowledged_mark import HighWaterMark
from engine.store.database import DATABASE_NAME, Store
from engine.store.layout.schema import is_empty_database
from engine.store.layout.tables import FORMAT_VERSION
from engine.store.soundness import check_sound
from engine.store.upgrade import format_of

_BEFORE_UPGRADE = "pre_upgrade"


def open_store(data_dir: Path, backups: Backups, identity: ModelIdentity) -> Store:
    """Open the store, checked to the last row, or create it in a directory that never had one.

    Reads all of it: about a second for 100,000 memories.

    Raises:
        StoreCorruptError: it is missing, damaged, or lacks acknowledged writes; names the command.
        StoreFormatError, ModelMismatchError: see `Store`.
    """
    database = data_dir / DATABASE_NAME
    mark = HighWaterMark(data_dir)
    try:
        if is_empty_database(database):
            check_new(database, mark, backups)
        elif format_of(database) < FORMAT_VERSION:
            _keep_older(database, mark, backups)
        store = Store(database, identity=identity)
        try:
            check_nothing_lost(database, mark, backups, epoch=store.epoch, lsn=store.lsn)
            check_sound(database)
            store.follow(mark)
        except BaseException:
            store.close()
            raise
    except StoreCorruptError as exc:
        command = exc.command or restore_command(data_dir, backups)
        raise StoreCorruptError(exc.path, exc.reason, command) from exc
    return store


def _keep_older(database: Path, mark: HighWaterMark, backups: Backups) -> None:
    """Back up a database of an older format before it is upgraded; once, also if that fails."""
    check_sound(database)
    facts = facts_in(database)
    check_nothing_lost(database, mark, backups, epoch=facts.epoch, lsn=facts.lsn)
    if not (backups.current(database) or "").startswith(_BEFORE_UPGRADE):
        backups.create(database, _BEFORE_UPGRADE, kind="safety")


def check_new(database: Path, mark: HighWaterMark, backups: Backups) -> None:
    """Raise `StoreCorruptError` when a store that is missing or empty should not be."""
    known = mark.read()
    state = "empty" if database.exists() else "missing"
    if known and known.lsn:
        reason = f"it is {state}, but write {known.lsn} was acknowledged"
        raise StoreCorruptError(str(database), reason)
    if backups.count() or backups.unreadable():
        raise StoreCorruptError(str(database), f"it is {state}, but there are backups of it")


def check_nothing_lost(
    database: Path, mark: HighWaterMark, backups: Backups, *, epoch: str, lsn: int
) -> None:
    """Raise `StoreCorruptError` when writes were acknowledged that the database does not hold.

    A backup of the same history that holds more of them is what to restore; without one, what
    the database holds is the most there is.
    """
    known = mark.read()
    if known is None or known.epoch != epoch or known.lsn <= lsn:
        return
    best = backups.newest_sound(epoch=epoch, above_lsn=lsn)
    raise StoreCorruptError(
        str(database),
        f"it ends at write {lsn}, but write {known.lsn} was acknowledged; "
        f"{database.name}-wal was damaged or removed, or this is an older copy",
        script_command(f"store restore {best}", mark.data_dir)
        if best
        else f"{script_command('store accept', mark.data_dir)} (goes on without them)",
    )


def restore_command(data_dir: Path, backups: Backups) -> str:
    """What to run when the store cannot be used."""
    newest = backups.newest_sound()
    return script_command(f"store restore {newest}" if newest else "store doctor", data_dir)
