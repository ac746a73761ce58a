"""Backups of the store: a directory each, self-contained, listed only when whole.

`backups/<prefix>_<UTC YYYYMMDD_HHMMSS>[_n]/` holds a base, the deltas after it, and
`manifest.json` with their hashes. A new backup hard-links the files of the one before and adds
one delta, so that it costs what changed, not what is stored; it starts a new base when the
deltas have outgrown a quarter of it.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine.backup_files import (
    BackupFile,
    StoreFacts,
    assemble,
    facts_in,
    origin_in,
    pruned_lsn_in,
    write_base,
    write_delta,
)
from engine.backup_manifest import (
    MANIFEST_NAME,
    BackupKind,
    Manifest,
    is_backup_name,
    read_manifest,
    write_manifest,
)
from engine.durable_files import (
    fsync_file,
    make_directory,
    remove_directory,
    rename_directory,
    replacing,
    sha256_of,
    sweep_leftovers,
    translating_os_errors,
)
from engine.errors import BackupError, BackupNotFoundError, StorageError, StoreFullError
from engine.memory_rows import iso_time
from engine.records import BackupCheck, BackupSummary
from engine.row_checksum import row_checksum
from engine.soundness import problems_in
from engine.upgrade import upgrade

_VERIFIED_NAME = "verified"
_NOT_IN_PREFIX = re.compile(r"[^A-Za-z0-9_-]")
_log = logging.getLogger(__name__)


class Backups:
    """The backup directories of one data directory. One caller at a time creates."""

    def __init__(
        self,
        directory: Path,
        *,
        keep: Mapping[BackupKind, int],
        deltas_share: float = 0.25,
        merge_below_bytes: int = 512 * 1024,
    ) -> None:
        """Open the directory and sweep what a killed process left.

        Args:
            directory: of all backups.
            keep: how many of each kind stay; the oldest go first.
            deltas_share: a new base is due when the deltas outgrow this share of it.
            merge_below_bytes: the last deltas are written anew as one while they take less, so
                that many backups do not mean many files.
        """
        self._directory = directory
        self._keep = keep
        self._deltas_share = deltas_share
        self._merge_below_bytes = merge_below_bytes
        self._trusted: set[BackupFile] = set()
        """Files whose hash this process has checked or written."""
        self._pins: Counter[str] = Counter()
        self._pin_lock = threading.Lock()
        self._verifying = threading.Lock()
        with translating_os_errors(directory):
            make_directory(directory)
            sweep_leftovers(directory)

    def create(self, database: Path, prefix: str, *, kind: BackupKind) -> BackupSummary:
        """Back up the database as it is now; writers go on. Durable when this returns.

        Args:
            database: the live file.
            prefix: characters other than letters, digits, `_` and `-` become `_`.
            kind: says which limit it counts for.
        """
        name = self._free_name(_NOT_IN_PREFIX.sub("_", prefix))
        partial = self._directory / f"{name}.partial"
        try:
            with translating_os_errors(partial):
                partial.mkdir(mode=0o700)
            files, facts = self._write_files(database, partial)
            # The newest also after a clock was set back.
            created_s = max([time.time(), *(m.created_s + 0.001 for _, m in self._manifests()[:1])])
            manifest = Manifest(kind=kind, created_s=created_s, facts=facts, files=files)
            self._finish(partial, name, manifest)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        self._trusted.update(files)
        self._retain(kind)
        return self.get(name)

    def _finish(self, partial: Path, name: str, manifest: Manifest) -> None:
        write_manifest(partial, manifest)
        rename_directory(partial, self._directory / name)

    def accept(
        self, name: str, manifest: Manifest, fetch: Callable[[BackupFile, Path], None]
    ) -> BackupSummary:
        """Make a backup of what comes from elsewhere. Durable when this returns.

        Files that are here already are not fetched, also those that an interrupted call left.

        Args:
            name: as it was called there; another is taken when it means another backup here.
            manifest: what it holds.
            fetch: writes one file; its hash is checked here.

        Raises:
            BackupError: a file that was fetched is not the one in the manifest.
        """
        free, n = name, 1
        while (self._directory / free).exists():
            here = read_manifest(self._directory / free)
            if here and here.files == manifest.files and not self.damage(free):
                return self.get(free)
            n += 1
            free = f"{name}_{n}"
        partial = self._directory / f"{free}.partial"
        with translating_os_errors(partial):
            partial.mkdir(mode=0o700, exist_ok=True)
        for file in manifest.files:
            self._place(file, partial / file.name, fetch)
        self._finish(partial, free, manifest)
        return self.get(free)

    def _place(
        self, file: BackupFile, path: Path, fetch: Callable[[BackupFile, Path], None]
    ) -> None:
        for other, manifest in self._manifests():
            if file in manifest.files and not path.exists() and self._is_trusted(other, file):
                _link(other / file.name, path)
        if not _damage_of(path, file):
            return
        path.unlink(missing_ok=True)
        fetch(file, path)
        if problem := _damage_of(path, file):
            path.unlink(missing_ok=True)
            raise BackupError(problem)
        with translating_os_errors(path):
            fsync_file(path)

    @contextmanager
    def pinned(self, name: str) -> Iterator[tuple[Path, Manifest]]:
        """A backup's directory and manifest; it is not pushed out meanwhile."""
        with self._pin_lock:
            manifest = self._manifest_of(name)
            self._pins[name] += 1
        try:
            yield self._directory / name, manifest
        finally:
            with self._pin_lock:
                self._pins[name] -= 1

    def base_lsn(self, epoch: str) -> int | None:
        """LSN of the base that the newest backup of a history stands on; None without one.

        Later backups ask for no deletion at or before it.
        """
        bases = (m.files[0].to_lsn for _, m in self._manifests() if m.facts.epoch == epoch)
        return next(bases, None)

    def summaries(self) -> list[BackupSummary]:
        """Every whole backup, newest first."""
        return [_summary(path, manifest) for path, manifest in self._manifests()]

    def count(self) -> int:
        """How many backups there are."""
        return sum((path / MANIFEST_NAME).exists() for path in self._directories())

    def get(self, name: str) -> BackupSummary:
        """One backup. Raises `BackupNotFoundError`, also for what is no plain backup name."""
        directory = self._directory / name
        return _summary(directory, self._manifest_of(name))

    def unreadable(self) -> list[str]:
        """Names of directories that look like backups but have no readable manifest."""
        return [path.name for path in self._directories() if read_manifest(path) is None]

    def newest_sound(self, *, epoch: str | None = None, above_lsn: int = -1) -> str | None:
        """The newest backup whose files are all as they were written; reads them.

        Args:
            epoch: of this history; None for any.
            above_lsn: and that reaches further than this.
        """
        for path, manifest in self._manifests():
            fits = epoch in (None, manifest.facts.epoch) and manifest.facts.lsn > above_lsn
            if fits and not self.damage(path.name):
                return path.name
        return None

    def current(self, database: Path) -> str | None:
        """A backup that holds the database as it is now, if there is one."""
        now, origin = facts_in(database), origin_in(database)
        states = {(now.epoch, now.lsn)}
        if origin is not None and origin.as_lsn == now.lsn:
            states.add((origin.epoch, origin.lsn))
        for directory, manifest in self._manifests():
            if (manifest.facts.epoch, manifest.facts.lsn) in states:
                return directory.name
        return None

    def damage(self, name: str) -> list[str]:
        """Which files of a backup are not the ones that were written."""
        manifest = self._manifest_of(name)
        return [
            problem
            for file in manifest.files
            if (problem := _damage_of(self._directory / name / file.name, file))
        ]

    def assemble(self, name: str, target: Path) -> StoreFacts:
        """Put a backup together as one database at `target`.

        Raises:
            BackupNotFoundError: there is none of this name.
            BackupError: it is damaged, or does not hold what its manifest says.
        """
        manifest = self._manifest_of(name)
        problems = self.damage(name)
        if problems:
            raise BackupError(f"backup '{name}' is damaged: {'; '.join(problems)}")
        facts = assemble(self._directory / name, manifest.files, target)
        if facts != manifest.facts:
            raise BackupError(f"backup '{name}' does not hold what its manifest says")
        upgrade(target)
        if problems := problems_in(target):
            raise BackupError(f"backup '{name}' cannot be used: {'; '.join(problems)}")
        return facts

    def verify(self, name: str, check: Callable[[Path], Sequence[str]]) -> BackupCheck:
        """Check hashes, put the backup together in a scratch directory, and `check` it there."""
        try:
            with self._verifying, self.pinned(name), self._scratch(name) as scratch:
                self.assemble(name, scratch / "memories.db")
                problems = list(check(scratch / "memories.db"))
                if not problems:
                    self._note_verified(name)
        except (BackupNotFoundError, StoreFullError):
            raise
        except StorageError as exc:
            problems = [str(exc)]
        return BackupCheck(name=name, problems=problems)

    def _note_verified(self, name: str) -> None:
        with replacing(self._directory / name / _VERIFIED_NAME) as file:
            verified_at = iso_time(time.time_ns() // 1_000)
            file.write(f"{verified_at} {row_checksum([name, verified_at])}".encode())

    def last_id(self) -> int:
        """The highest memory id that any backup knows to be given out."""
        return max((m.facts.last_id for _, m in self._manifests()), default=0)

    @contextmanager
    def _scratch(self, name: str) -> Iterator[Path]:
        scratch = self._directory / f"{name}.scratch.partial"
        shutil.rmtree(scratch, ignore_errors=True)
        with translating_os_errors(scratch):
            scratch.mkdir(mode=0o700)
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _write_files(
        self, database: Path, partial: Path
    ) -> tuple[tuple[BackupFile, ...], StoreFacts]:
        now = facts_in(database)
        directory, files = self._newest_chain(lambda facts: facts.epoch == now.epoch)
        if directory is None and (origin := origin_in(database)):
            # After a restore only what has changed since is new.
            directory, files = self._newest_chain(
                lambda facts: (facts.epoch, facts.lsn) == (origin.epoch, origin.lsn)
            )
        base_bytes = files[0].n_bytes if files else 0
        if files and files[0].to_lsn < pruned_lsn_in(database):
            directory = None  # the deltas upon this base would miss deletions
        if directory is None or sum(f.n_bytes for f in files[1:]) > self._deltas_share * base_bytes:
            base, facts = write_base(database, partial)
            return (base,), facts
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
                _link(directory / file.name, partial / file.name)
        return (*kept, *new), facts

    def _newest_chain(
        self, fits: Callable[[StoreFacts], bool]
    ) -> tuple[Path | None, tuple[BackupFile, ...]]:
        """The newest backup that fits, if its files are whole."""
        for directory, manifest in self._manifests():
            if not fits(manifest.facts):
                continue
            if all(self._is_trusted(directory, file) for file in manifest.files):
                return directory, manifest.files
            _log.warning("%s is damaged; the next backup starts a new base", directory)
            return None, ()
        return None, ()

    def _is_trusted(self, directory: Path, file: BackupFile) -> bool:
        path = directory / file.name
        if file in self._trusted:
            return path.exists() and path.stat().st_size == file.n_bytes
        if _damage_of(path, file):
            return False
        self._trusted.add(file)
        return True

    def _retain(self, kind: BackupKind) -> None:
        of_kind = [path for path, manifest in self._manifests() if manifest.kind == kind]
        with self._pin_lock:
            for path in of_kind[self._keep[kind] :]:
                if not self._pins[path.name]:
                    remove_directory(path)

    def _free_name(self, prefix: str) -> str:
        stem = f"{prefix}_{time.strftime('%Y%m%d_%H%M%S', time.gmtime())}"
        name, n = stem, 1
        while (self._directory / name).exists():
            n += 1
            name = f"{stem}_{n}"
        return name

    def _directories(self) -> Iterator[Path]:
        return (path for path in self._directory.iterdir() if is_backup_name(path.name))

    def _manifests(self) -> list[tuple[Path, Manifest]]:
        """Every whole backup, newest first."""
        found = [(path, read_manifest(path)) for path in self._directories()]
        return sorted(
            ((path, manifest) for path, manifest in found if manifest is not None),
            key=lambda pair: (pair[1].created_s, pair[0].name),
            reverse=True,
        )

    def _manifest_of(self, name: str) -> Manifest:
        manifest = read_manifest(self._directory / name) if is_backup_name(name) else None
        if manifest is None:
            raise BackupNotFoundError(name)
        return manifest


def _summary(directory: Path, manifest: Manifest) -> BackupSummary:
    return BackupSummary(
        name=directory.name,
        created_s=manifest.created_s,
        path=str(directory),
        total_memories=manifest.facts.total_memories,
        size_bytes=sum(file.n_bytes for file in manifest.files),
        verified_at=_verified_at(directory),
    )


def _verified_at(directory: Path) -> str | None:
    try:
        verified_at, checksum = (directory / _VERIFIED_NAME).read_text("ascii").split()
    except (OSError, ValueError):
        return None
    return verified_at if str(row_checksum([directory.name, verified_at])) == checksum else None


def _damage_of(path: Path, file: BackupFile) -> str | None:
    if not path.is_file():
        return f"{file.name} is missing"
    try:
        if path.stat().st_size != file.n_bytes or sha256_of(path) != file.sha256:
            return f"{file.name} is not the file that was written"
    except OSError as exc:
        return f"{file.name} cannot be read: {exc.strerror}"
    return None


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
        fsync_file(target)
