"""What is wrong with a data directory, and which command mends it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.backups.catalogue import Backups
from engine.backups.facts import facts_in
from engine.backups.verification import NO_CODES, problems_of
from engine.commands import script_command
from engine.errors import StoreCorruptError
from engine.keys.key_store import KEYS_NAME, check_keys
from engine.legacy.directory import find_legacy
from engine.recovery.offline import copy_of_database
from engine.recovery.open_store import check_new, check_nothing_lost
from engine.recovery.reembed import UNFINISHED_NAME
from engine.search.postings_cache import caches_in, problem_of_cache
from engine.store.acknowledged_mark import MARK_NAME, HighWaterMark
from engine.store.database import DATABASE_NAME
from engine.store.layout.schema import is_empty_database
from engine.store.layout.tables import FORMAT_VERSION
from engine.store.upgrade import format_of

_NOTHING_TO_RESTORE = (
    "no sound backup is left: copy one into the directory of backups and restore it, or see what "
    "the sqlite3 shell's .recover gets out of the file"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong with a data directory, and the command that mends it."""

    problem: str
    remedy: str


def examine(data_dir: Path, backups: Backups) -> Iterator[Finding]:
    """Look at everything in a data directory; changes nothing. The caller holds its `DataLock`."""
    yield from _examine_store(data_dir, backups)
    try:
        check_keys(data_dir / KEYS_NAME)
    except StoreCorruptError as exc:
        yield Finding(problem=f"{KEYS_NAME}: {exc.reason}", remedy=exc.command)
    for cache in caches_in(data_dir):
        if (problem := problem_of_cache(cache)) is not None:
            yield Finding(
                problem=f"{cache.name}: {problem}", remedy=script_command("store rebuild", data_dir)
            )
    if (data_dir / MARK_NAME).exists() and HighWaterMark(data_dir).read() is None:
        yield Finding(
            problem=f"{MARK_NAME} cannot be read",
            remedy="none needed: the next start writes it anew",
        )
    for name in backups.unreadable():
        yield Finding(
            problem=f"backup {name}: its manifest is missing or not as it was written",
            remedy="none: it is not listed and cannot be restored; delete the directory",
        )
    for summary in backups.summaries():
        for problem in backups.damage(summary.name):
            yield Finding(
                problem=f"backup {summary.name}: {problem}",
                remedy="none: later backups start anew from the store; delete this one",
            )
    if (data_dir / UNFINISHED_NAME).exists():
        yield Finding(
            problem="an embedding of all memories anew was interrupted",
            remedy=f"{script_command('reembed', data_dir)} goes on with it; or delete "
            f"{data_dir / UNFINISHED_NAME}",
        )
    if find_legacy(data_dir):
        yield Finding(
            problem="files of the original service wait to be imported",
            remedy="start the service; it says so if it cannot take them over",
        )


def _examine_store(data_dir: Path, backups: Backups) -> Iterator[Finding]:
    newest = backups.newest_sound()
    restore = script_command(f"store restore {newest}", data_dir) if newest else _NOTHING_TO_RESTORE
    mark = HighWaterMark(data_dir)
    try:
        with copy_of_database(data_dir) as copy:
            if is_empty_database(copy):
                check_new(copy, mark, backups)
                return
            known = facts_in(copy) if format_of(copy) < FORMAT_VERSION else None
            if problems := problems_of(copy, exact_below=NO_CODES):
                for problem in problems:
                    yield Finding(problem=f"{DATABASE_NAME}: {problem}", remedy=restore)
                return
            facts = known or facts_in(copy)  # an upgrade has begun another history
            check_nothing_lost(copy, mark, backups, epoch=facts.epoch, lsn=facts.lsn)
    except StoreCorruptError as exc:
        yield Finding(problem=f"{DATABASE_NAME}: {exc.reason}", remedy=exc.command or restore)
