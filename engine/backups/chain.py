"""What a new backup shares with those before it: a base and its deltas, linked, plus one delta."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.backups.facts import StoreFacts, StoreState, state_in
from engine.backups.files import BackupFile, write_base, write_delta
from engine.backups.manifest import Manifest
from engine.disk.durable_files import fsync_file, sha256_of, translating_os_errors
from engine.store.layout.tables import FORMAT_VERSION

_log = logging.getLogger(__name__)


class BackupChain:
    """Writes the files of backups. One caller at a time."""

    def __init__(self, *, deltas_share: float, merge_below_bytes: int) -> None:
        """Trust no file yet.

        Args:
            deltas_share: a new base is due when the deltas outgrow this share of it.
            merge_below_bytes: the last deltas are written anew as one while they take less, so
                that many backups do not mean many files.
        """
        self._deltas_share = deltas_share
        self._merge_below_bytes = merge_below_bytes
        self._trusted: set[BackupFile] = set()
        """Files whose hash this process has checked or written."""

    def write(
        self, database: Path, partial: Path, before: Sequence[tuple[Path, Manifest]]
    ) -> tuple[tuple[BackupFile, ...], StoreFacts]:
        """Write the files of a backup of the live database, or link those that are there.

        Args:
            database: the live file; writers go on.
            partial: the directory to fill.
            before: the backups that there are, newest first.
        """
        state = state_in(database)
        now = state.facts
        directory, files = self._continued(state, before)
        if directory is None:
            base, facts = write_base(database, partial)
            return self._remembered((base,)), facts
        kept = list(files)
        if kept[-1].to_lsn != now.lsn:
            n_merged_bytes, from_lsn = 0, kept[-1].to_lsn
            while len(kept) > 1 and n_merged_bytes + kept[-1].n_bytes <= self._merge_below_bytes:
                merged = kept.pop()
                n_merged_bytes += merged.n_bytes
                from_lsn = merged.from_lsn or 0
            delta, facts = write_delta(database, partial, from_lsn=from_lsn)
            new = [delta]
        else:
            facts, new = now, []
        with translating_os_errors(partial):
            for file in kept:
                link_file(directory / file.name, partial / file.name)
        return self._remembered((*kept, *new)), facts

    def _continued(
        self, state: StoreState, before: Sequence[tuple[Path, Manifest]]
    ) -> tuple[Path | None, tuple[BackupFile, ...]]:
        """The backup that a new one goes on from; None when a new base is due."""
        now, origin = state.facts, state.origin
        directory, files = self._newest(before, lambda facts: facts.epoch == now.epoch)
        if directory is None and origin is not None:
            # After a restore only what has changed since is new.
            directory, files = self._newest(
                before, lambda facts: (facts.epoch, facts.lsn) == (origin.epoch, origin.lsn)
            )
        if directory is None or files[0].to_lsn < state.pruned_lsn:
            return None, ()  # the deltas upon an older base would miss deletions
        if state.format < FORMAT_VERSION and files[-1].to_lsn != now.lsn:
            return None, ()  # deltas are of this format
        are_long = sum(f.n_bytes for f in files[1:]) > self._deltas_share * files[0].n_bytes
        return (None, ()) if are_long else (directory, files)

    def _newest(
        self, before: Sequence[tuple[Path, Manifest]], fits: Callable[[StoreFacts], bool]
    ) -> tuple[Path | None, tuple[BackupFile, ...]]:
        """The newest backup that fits, if its files are whole."""
        for directory, manifest in before:
            if not fits(manifest.facts):
                continue
            if all(self.trusts(directory, file) for file in manifest.files):
                return directory, manifest.files
            _log.warning("%s is damaged; the next backup starts a new base", directory)
            return None, ()
        return None, ()

    def trusts(self, directory: Path, file: BackupFile) -> bool:
        """Whether a file of a backup is as it was written; its hash is taken once."""
        path = directory / file.name
        if file in self._trusted:
            return path.exists() and path.stat().st_size == file.n_bytes
        if damage_of(path, file):
            return False
        self._trusted.add(file)
        return True

    def _remembered(self, files: tuple[BackupFile, ...]) -> tuple[BackupFile, ...]:
        self._trusted.update(files)
        return files


def damage_of(path: Path, file: BackupFile) -> str | None:
    """Why a file is not the one that was written; None when it is."""
    if not path.is_file():
        return f"{file.name} is missing"
    try:
        if path.stat().st_size != file.n_bytes or sha256_of(path) != file.sha256:
            return f"{file.name} is not the file that was written"
    except OSError as exc:
        return f"{file.name} cannot be read: {exc.strerror}"
    return None


def link_file(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where a file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        fsync_file(target)
