"""The data directory as a whole: how it stands, and its backups."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

from engine.operations.operation import Directory, DirectoryOperation, Lane, Remedy
from engine.records import BackupCheck, BackupSummary, IndexStats


@dataclass(frozen=True, slots=True)
class Count(DirectoryOperation[int]):
    """Memories stored. In memory; answers in the midst of anything."""

    lane = Lane.LOOP

    def run(self, directory: Directory) -> int:
        return directory.index.count()


@dataclass(frozen=True, slots=True)
class Problem(DirectoryOperation[str | None]):
    """What keeps memories from being stored and backed up, if something does."""

    lane = Lane.LOOP

    def run(self, directory: Directory) -> Future[str | None]:
        """Look for it beside every lane: one of them may be the problem."""
        return directory.problem()


@dataclass(frozen=True, slots=True)
class Stats(DirectoryOperation[IndexStats]):
    """The state of the index, for operators."""

    def run(self, directory: Directory) -> IndexStats:
        return directory.index.stats()


@dataclass(frozen=True, slots=True)
class ListBackups(DirectoryOperation[list[BackupSummary]]):
    """Every restorable backup, newest first."""

    def run(self, directory: Directory) -> list[BackupSummary]:
        return directory.index.backups()


@dataclass(frozen=True, slots=True)
class CreateBackup(DirectoryOperation[BackupSummary]):
    """Make a backup named `<prefix>_<UTC time>`. Durable when it is answered."""

    lane = Lane.SLOW
    is_long = True
    if_unknown = Remedy.LIST_BACKUPS

    prefix: str

    def run(self, directory: Directory) -> BackupSummary:
        return directory.index.backup(self.prefix)


@dataclass(frozen=True, slots=True)
class VerifyBackup(DirectoryOperation[BackupCheck]):
    """Check that a backup can be restored. Raises `BackupNotFoundError`."""

    lane = Lane.SLOW
    is_long = True

    name: str

    def run(self, directory: Directory) -> BackupCheck:
        return directory.index.verify_backup(self.name)


@dataclass(frozen=True, slots=True)
class RestoreBackup(DirectoryOperation[int]):
    """Restore a backup; how many memories there are now."""

    lane = Lane.WRITE
    is_long = True
    if_unknown = Remedy.SEND_AGAIN

    name: str
    request_id: str = field(kw_only=True)

    def run(self, directory: Directory) -> Future[int]:
        return directory.index.restore(self.name, request_id=self.request_id)
