"""A data directory under its lock: the single writer, all namespaces, their backups.

What is done to the memories of one namespace: see `engine.namespace`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from pydantic import TypeAdapter

from engine.backups.catalogue import Backups
from engine.backups.of_live_store import LiveBackups
from engine.disk.data_lock import DataLock
from engine.disk.durable_files import check_writable, sweep_leftovers
from engine.errors import StorageError
from engine.index_options import IndexOptions
from engine.legacy.takeover import import_legacy
from engine.namespace import Namespace
from engine.namespace_reads import Workings
from engine.namespaces import DEFAULT
from engine.records import (
    BackupCheck,
    BackupSummary,
    IndexStats,
    MemoryId,
    MemoryQuota,
    MoveOutcome,
    NamespaceSummary,
)
from engine.recovery.open_store import open_store
from engine.several_namespaces import SeveralNamespaces
from engine.store.exports import Exports
from engine.store.namespaces import checked_name
from engine.store.rows import iso_time
from engine.workspace.directory_id import directory_id
from engine.workspace.planned_builds import PlannedBuilds
from engine.workspace.workspace import Workspace
from engine.writing import writes
from engine.writing.live_state import LiveState
from engine.writing.upkeep import Upkeep, VectorTools
from engine.writing.write_group import WriteGroup
from engine.writing.writer import Writer

_COUNT = TypeAdapter(int)
_NONE = TypeAdapter(None)
_MOVED = TypeAdapter(MoveOutcome)

_log = logging.getLogger(__name__)


class MemoryIndex(Namespace):
    """A data directory. Asked as a namespace, it is `default`, where calls that name none go."""

    def __init__(
        self,
        options: IndexOptions,
        *,
        count_pieces: Callable[[str], int],
        vector_tools: VectorTools | None = None,
    ) -> None:
        """Open the data directory, or create it.

        Args:
            options: see there.
            count_pieces: pieces the model sees in a text; chunks are cut by it.
            vector_tools: what makes the vectors that writes left to be made; None leaves them.

        Raises:
            StoreLockedError: another process owns the directory.
            StoreCorruptError, StoreFormatError, ModelMismatchError: see `Store`.
        """
        self._lock = DataLock(options.data_dir, timeout_s=options.lock_timeout_s)
        try:
            sweep_leftovers(options.data_dir)
            backups = options.open_backups()
            store = open_store(options.data_dir, backups, options.identity)
            import_legacy(store, options.data_dir)
            state = LiveState(store, options.index_settings())
        except BaseException:
            self._lock.release()
            raise
        self._writer = Writer(
            state,
            on_commit=self._notice_write,
            max_pending_jobs=options.max_pending_jobs,
            max_pending_memories=options.max_pending_memories,
            compact_from=options.compact_from,
            cache_after=options.cache_after,
            longest_write_s=options.longest_write_s,
        )
        self._backups = LiveBackups(
            state,
            self._writer,
            backups,
            data_dir=options.data_dir,
            exact_below=options.exact_below,
            bursts=options.bursts(),
        )
        workings = Workings(
            options=options,
            state=state,
            writer=self._writer,
            backups=self._backups,
            exports=Exports(),
            builds=PlannedBuilds(),
            workspace=Workspace(options.workspace_dir, passed_over=options.unbuilt_names),
            count_pieces=count_pieces,
        )
        super().__init__(DEFAULT, workings)
        self._upkeep = None
        if vector_tools is not None:
            self._upkeep = Upkeep(state, self._writer, vector_tools)

    def _notice_write(self) -> None:
        self._backups.notice_write()
        if self._upkeep is not None:
            self._upkeep.notice_write()

    def close(self) -> None:
        """Finish the writes that wait, close the store and let go of the directory."""
        if self._upkeep is not None:
            self._upkeep.close()
        self._writer.close()
        self._backups.close()
        self._shared.exports.close()
        self._state.store.close()
        self._lock.release()

    def check(self) -> None:
        """Raise `UnavailableError` when only a restart can make the answers right again."""
        self._shared.check()

    def check_in_place(self) -> None:
        """Raise `StoreMovedError` when the database is not the one that is open here."""
        with self._state.store_lock.shared():
            self._state.store.check_in_place()

    def problem(self) -> str | None:
        """What keeps memories from being stored and backed up, if something does. Writes files."""
        try:
            self.check()
            self._writer.check_progress()
            self.check_in_place()
            check_writable(self._options.data_dir)
            self._backups.files.check_writable()
        except StorageError as exc:
            return str(exc)
        return None

    # Namespaces

    def namespace(self, name: str, *, quota: MemoryQuota | None = None) -> Namespace:
        """The memories of one namespace. Raises `InvalidInputError` for what is no name."""
        return Namespace(name, self._shared, quota)

    def several(self, names: Sequence[str]) -> SeveralNamespaces:
        """Namespaces that are searched and listed as one. Raises `InvalidInputError`."""
        return SeveralNamespaces(names, self._shared)

    def names(self) -> list[str]:
        """Of every namespace that was written to, in order."""
        return [facts.name for facts in self._state.namespaces.every()]

    def namespaces(self) -> list[NamespaceSummary]:
        """Every namespace that was written to, by name."""
        return [
            NamespaceSummary(
                name=facts.name,
                memories=facts.n_memories,
                last_updated=None if facts.changed_us is None else iso_time(facts.changed_us),
            )
            for facts in self._state.namespaces.every()
        ]

    def rename_namespace(self, name: str, to: str, *, request_id: str) -> Future[None]:
        """Call a namespace otherwise; `InvalidInputError` when the name is taken or is none."""
        checked_name(to)

        def run(group: WriteGroup) -> None:
            group.rename_namespace(name, to)

        return self._writer.submit(run, _NONE, request_id=request_id)

    def delete_namespace(self, name: str, *, request_id: str) -> Future[int]:
        """Delete a namespace with all its memories; the result is how many those were."""

        def run(group: WriteGroup) -> int:
            return group.delete_namespace(name)

        return self._writer.submit(run, _COUNT, request_id=request_id)

    def move(
        self,
        name: str,
        to: str,
        *,
        ids: Sequence[MemoryId] | None = None,
        source_prefix: str | None = None,
        quota: MemoryQuota | None = None,
        request_id: str,
    ) -> Future[MoveOutcome]:
        """Put memories of one namespace, by ids or by their sources, into another.

        All or none: `InvalidInputError` names those whose source and key one has there.
        """
        checked_name(to)

        def run(group: WriteGroup) -> MoveOutcome:
            used = 0 if quota is None else group.n_memories(quota)
            outcome = writes.move(
                group.session(name), group.session(to), ids=ids, source_prefix=source_prefix
            )
            if quota is not None:
                group.check_quota(quota, used)
            return outcome

        # The same key and body, sent to another namespace, are another move.
        request_id = self.namespace(name)._scoped(request_id)
        return self._writer.submit(run, _MOVED, request_id=request_id, weight=len(ids or ()))

    # All namespaces

    def stats(self) -> IndexStats:
        """The state of all namespaces together, for operators. Loads none."""
        workspace_id = directory_id(self._options.workspace_dir)  # before the locks: it may hang
        with self._state.store_lock.shared(), self._state.lock.shared():
            store, loaded = self._state.store, self._state.indexes.all()
            indexes = list(loaded.values())
            known = store.namespaces()
            changed_us = store.last_changed_us()
            return IndexStats(
                total_memories=self.count(),
                model=store.identity,
                created_at=iso_time(store.created_us),
                last_updated=None if changed_us is None else iso_time(changed_us),
                lsn=store.lsn,
                store_bytes=store.file_bytes(),
                index_bytes=self._state.indexes.n_bytes,
                backup_count=self._backups.count(),
                backup_error=self._backups.error,
                vector_index=max((i.vectors.kind for i in indexes), default="exact"),
                n_rows=sum(i.n_rows for i in indexes),
                n_terms=sum(i.keywords.n_terms for i in indexes),
                pending_writes=self._writer.n_pending,
                n_stored=sum(facts.n_memories for facts in known if facts.id in loaded),
                n_vectors=sum(i.n_vectors for i in indexes),
                n_documents=sum(i.keywords.n_documents for i in indexes),
                workspace_id=workspace_id,
            )

    def count(self) -> int:
        """Memories in all namespaces. In memory, takes no lock."""
        return self._state.namespaces.n_memories

    # Backups

    def backups(self) -> list[BackupSummary]:
        """Every restorable backup, newest first."""
        return self._backups.files.summaries()

    def backup(self, prefix: str) -> BackupSummary:
        """Back up the store as it is now; writes go on meanwhile."""
        return self._backups.create(prefix, "scheduled" if prefix == "scheduled" else "requested")

    @property
    def backup_files(self) -> Backups:
        """The backup directories, for whoever copies them elsewhere."""
        return self._backups.files

    def on_automatic_backup(self, hear: Callable[[str], None]) -> None:
        """Tell `hear` of each automatic backup; see `LiveBackups.on_automatic`."""
        self._backups.on_automatic(hear)

    def verify_backup(self, name: str) -> BackupCheck:
        """Check that a backup can be restored. Raises `BackupNotFoundError`."""
        return self._backups.verify(name)

    def restore(self, name: str, *, request_id: str | None = None) -> Future[int]:
        """Put a backup in the store's place; the result is how many memories there are now.

        The state before is kept as `pre_restore_…`. Reads go on against it until the swap.
        Sent again with its `request_id`, it happens once, until another restore undoes it.
        """
        restored = self._backups.restore(name, request_id=request_id)
        restored.add_done_callback(lambda _: self._notice_write())
        return restored
