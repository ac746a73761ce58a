"""Backups of the store: a directory each, self-contained, listed only when whole.

`backups/<prefix>_<UTC YYYYMMDD_HHMMSS>[_n]/` holds a base, the deltas after it, and
`manifest.json` with their hashes. A new backup hard-links the files of the one before and adds
one delta, so that it costs what changed, not what is stored; it starts a new base when the
deltas have outgrown a quarter of it.
"""

from __future__ import annotations

import logging
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine.backups.chain import BackupChain, damage_of, link_file
from engine.backups.facts import StoreFacts, state_in
from engine.backups.files import BackupFile, assemble
from engine.backups.manifest import (
    LATEST_S,
    BackupKind,
    Manifest,
    is_backup_name,
    name_after,
    note_verified,
    read_manifest,
    verified_at,
    write_manifest,
)
from engine.disk.durable_files import (
    check_writable,
    fsync_file,
    make_directory,
    remove_directory,
    rename_directory,
    sweep_leftovers,
    translating_os_errors,
)
from engine.errors import (
    BackupError,
    BackupNotFoundError,
    StorageError,
    StoreCorruptError,
    StoreFormatError,
    StoreFullError,
)
from engine.records import BackupCheck, BackupSummary
from engine.store.soundness import problems_in
from engine.store.upgrade import upgrade

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
        self._chain = BackupChain(deltas_share=deltas_share, merge_below_bytes=merge_below_bytes)
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
        self._ensure_directory()
        name = self._free_name(_NOT_IN_PREFIX.sub("_", prefix))
        partial = self._directory / f"{name}.partial"
        try:
            with translating_os_errors(partial):
                partial.mkdir(mode=0o700)
            before = self._manifests()
            files, facts = self._chain.write(database, partial, before)
            # The newest also after a clock was set back.
            created_s = max([time.time(), *(m.created_s + 0.001 for _, m in before[:1])])
            manifest = Manifest(
                kind=kind, created_s=min(created_s, LATEST_S), facts=facts, files=files
            )
            self._finish(partial, name, manifest)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        self._retain(kind)
        return self.get(name)

    def _finish(self, partial: Path, name: str, manifest: Manifest) -> None:
        write_manifest(partial, manifest)
        rename_directory(partial, self._directory / name)

    def take_over(
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
        self._ensure_directory()
        free, n = name, 1
        while (self._directory / free).exists():
            here = read_manifest(self._directory / free)
            if here and here.files == manifest.files and not self.damage(free):
                return self.get(free)
            n += 1
            free = name_after(name, n)
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
            if file in manifest.files and not path.exists() and self._chain.trusts(other, file):
                link_file(other / file.name, path)
        if not damage_of(path, file):
            return
        path.unlink(missing_ok=True)
        if shutil.disk_usage(path.parent).free < file.n_bytes:
            raise StoreFullError(f"no space left for {file.n_bytes} bytes in {path.parent}")
        fetch(file, path)
        if problem := damage_of(path, file):
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
        """How many whole backups there are."""
        return sum(read_manifest(path) is not None for path in self._directories())

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
        state = state_in(database)
        now, origin = state.facts, state.origin
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
            if (problem := damage_of(self._directory / name / file.name, file))
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
        try:
            facts = assemble(self._directory / name, manifest.files, target)
            if facts != manifest.facts:
                raise BackupError(f"backup '{name}' does not hold what its manifest says")
            upgrade(target)
        except (StoreCorruptError, StoreFormatError) as exc:
            reason = exc.reason if isinstance(exc, StoreCorruptError) else str(exc)
            raise BackupError(f"backup '{name}' cannot be used: {reason}") from exc
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
                    note_verified(self._directory / name)
        except (BackupNotFoundError, StoreFullError):
            raise
        except StorageError as exc:
            problems = [str(exc)]
        return BackupCheck(name=name, problems=problems)

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

    def check_writable(self) -> None:
        """Raise unless backups can be made: `StoreFullError`, `UnavailableError`."""
        self._ensure_directory()
        check_writable(self._directory)

    def _ensure_directory(self) -> None:
        """Make the directory anew if it was removed; not its parent, which may be unmounted."""
        with translating_os_errors(self._directory):
            if not self._directory.is_dir():
                self._directory.mkdir(mode=0o700)
                _log.warning("%s was removed and is made anew", self._directory)

    def _directories(self) -> list[Path]:
        self._ensure_directory()
        with translating_os_errors(self._directory):
            return [path for path in self._directory.iterdir() if is_backup_name(path.name)]

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
        verified_at=verified_at(directory),
    )
