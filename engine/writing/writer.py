"""The write path: group, commit (durable), apply (visible), acknowledge. In that order.

A job waits in the queue; the writer thread takes all that wait, runs them in one SQLite
transaction and commits it, applies them to the indexes under the exclusive lock, and only then
settles their futures.
"""

from __future__ import annotations

import functools
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter

from engine.errors import DeadlinePassedError, EngineError, UnavailableError
from engine.records import MemoryId
from engine.search.postings_cache import cache_path, postings_of, write_cache
from engine.search.search_index import IndexEntry, SearchIndex
from engine.search.vectors.vector_index import VectorIndex
from engine.store.database import now_us
from engine.store.layout.namespaces import NamespaceFacts
from engine.writing.group_commit import GroupCommitter, WriteJob
from engine.writing.live_state import LiveState
from engine.writing.write_group import WriteGroup

T = TypeVar("T")

_APPLIED_AT_ONCE = 32
_LET_SEARCHES_IN_S = 0.0005
_CACHE_AFTER_SHARE = 0.1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _IndexChange:
    """What the index of a namespace must follow."""

    namespace_id: int
    entries: list[IndexEntry]
    removals: dict[MemoryId, list[str]]


@dataclass(frozen=True, slots=True)
class _Changes:
    """What a group committed."""

    lsn: int
    """That it reached."""
    n_written: int
    """Memories written or removed."""
    namespaces: list[NamespaceFacts]
    """As they are now, those that were written to."""
    deleted: set[int]
    """Namespaces that are gone."""
    of_indexes: list[_IndexChange]


class Writer:
    """The thread that changes a `LiveState`."""

    def __init__(
        self,
        state: LiveState,
        *,
        on_commit: Callable[[], None],
        max_pending_jobs: int,
        max_pending_memories: int,
        compact_from: int,
        cache_after: int,
        longest_write_s: float,
    ) -> None:
        self._state = state
        self._longest_write_s = longest_write_s
        self._compact_from = compact_from
        self._cache_after = cache_after
        self._on_commit = on_commit
        self._touched: set[int] = set()
        """Namespaces whose indexes have changed since they were last looked after."""
        self._background: threading.Thread | None = None
        self._queue = GroupCommitter(
            self._commit,
            max_pending_jobs=max_pending_jobs,
            max_pending_memories=max_pending_memories,
        )

    @property
    def n_pending(self) -> int:
        """Writes that wait."""
        return self._queue.n_pending

    def submit(
        self,
        run: Callable[[WriteGroup], T],
        outcome_type: TypeAdapter[T],
        *,
        request_id: str,
        replaces: str | None = None,
        weight: int = 1,
        deadline_s: float | None = None,
        in_pieces: bool = False,
    ) -> Future[T]:
        """Queue a write; durable and visible when the future is done.

        Args:
            run: changes the group; an error undoes this job alone.
            outcome_type: how its outcome is remembered.
            request_id: sent again, the remembered outcome is returned and nothing is written.
            replaces: id of an earlier write that will not be sent again; see
                `RememberedOutcomes.put`.
            weight: memories it writes.
            deadline_s: since the epoch. The future fails with `DeadlinePassedError` when its
                turn comes later.
            in_pieces: searches may see a part of it before it is acknowledged.

        Raises:
            OverloadedError, NotReadyError: nothing of it happens.
        """

        def exactly_once(group: WriteGroup) -> T:
            remembered = group.transaction.outcomes.get(request_id)
            if remembered is not None:
                return outcome_type.validate_json(remembered)
            if deadline_s is not None and time.time() > deadline_s:
                raise DeadlinePassedError("the service was busy too long; nothing was applied")
            outcome = run(group)
            group.transaction.outcomes.put(
                request_id, outcome_type.dump_json(outcome).decode(), replaces=replaces
            )
            return outcome

        return self._queue.submit(WriteJob(run=exactly_once, weight=weight, in_pieces=in_pieces))

    def check_progress(self) -> None:
        """Raise `UnavailableError` while a write takes as if it hung."""
        if self._queue.busy_s > self._longest_write_s:
            raise UnavailableError(
                f"a write has been under way for {self._queue.busy_s:.0f} s, and others wait for it"
            )

    @property
    def is_alive(self) -> bool:
        """Whether writes are still worked off."""
        return self._queue.is_alive

    def submit_alone(self, run: Callable[[], T]) -> Future[T]:
        """Queue work that needs the writer thread to itself, between two commits."""
        return self._queue.submit(WriteJob(run=run, weight=0, alone=True))

    def close(self) -> None:
        """Finish the writes that wait and leave fresh caches."""
        self._queue.close()
        if self._background is not None:
            self._background.join()
        if self._state.broken is None:
            for namespace_id in self._state.indexes.ids():
                if self._state.indexes.n_uncached(namespace_id) and self._has_cache(namespace_id):
                    self._caching(namespace_id)()

    def _commit(self, group: Sequence[WriteJob[Any]]) -> None:
        outcomes: list[tuple[WriteJob[Any], Any]] = []
        with self._state.changing:
            changes = self._commit_and_show(group, outcomes)
        if changes is None:
            return
        for job, outcome in outcomes:
            job.done.set_result(outcome)
        if changes.n_written:
            self._on_commit()
        if self._state.broken is None:
            try:
                self._maintain()
            except Exception:  # noqa: BLE001 - the indexes are as they were, only less compact
                _log.exception(
                    "maintenance of the indexes failed; it is tried after the next write"
                )

    def _commit_and_show(
        self, group: Sequence[WriteJob[Any]], outcomes: list[tuple[WriteJob[Any], Any]]
    ) -> _Changes | None:
        """Commit, then show it to searches; None, and every caller knows, if it failed."""
        try:
            if self._state.broken is not None:
                raise UnavailableError("the index needs a restart") from self._state.broken
            changes = self._run(group, outcomes)
        except Exception as exc:  # noqa: BLE001 - settles the callers, whatever it is
            for job in group:
                if not job.done.done():
                    job.done.set_exception(exc)
            return None
        try:
            self._state.store.publish_lsn(changes.lsn)
            self._show(changes, in_pieces=all(job.in_pieces for job, _ in outcomes))
        except Exception as exc:  # noqa: BLE001 - whatever it is, the answers are wrong now
            # Committed, but not searchable: nothing may be answered until a restart.
            self._state.broken = exc
            _log.exception("the indexes could not follow the store")
        return changes

    def _run(
        self, jobs: Sequence[WriteJob[Any]], outcomes: list[tuple[WriteJob[Any], Any]]
    ) -> _Changes:
        """Run a group in one transaction; durable when this returns."""
        store = self._state.store
        lsn, time_us = store.lsn, now_us()
        with store.transaction() as transaction:
            with closing(WriteGroup(transaction, self._state, lsn=lsn, time_us=time_us)) as group:
                for job in jobs:
                    n_before = group.n_changes
                    outcome = self._run_one(job, group, lsn + 1)
                    if not isinstance(outcome, Exception):
                        outcomes.append((job, outcome))
                        lsn += group.n_changes > n_before
                namespaces = group.settle()
            if lsn != store.lsn:
                transaction.set_lsn(lsn, time_us)
            # Before the commit: until they are applied, searches find what is gone.
            of_indexes = [
                _IndexChange(namespace_id, session.entries(), session.removals())
                for namespace_id, session in group.sessions.items()
                if self._state.indexes.get(namespace_id) is not None
            ]
        return _Changes(lsn, group.n_changes, namespaces, group.deleted, of_indexes)

    @staticmethod
    def _run_one(job: WriteJob[Any], group: WriteGroup, lsn: int) -> Any:  # noqa: ANN401
        """The job's outcome; or the error, handed to its caller, that undid this job alone."""
        try:
            with group.job(lsn):
                return job.run(group)
        except sqlite3.Error:
            raise  # the file's fault: nothing of the group can be relied on
        except Exception as exc:  # noqa: BLE001 - whatever it is, it was not another namespace's
            job.done.set_exception(exc)
            return exc

    def _show(self, changes: _Changes, *, in_pieces: bool) -> None:
        """Show what is committed to reads."""
        for change in changes.of_indexes:
            self._apply(change, in_pieces=in_pieces)
        for facts in changes.namespaces:
            self._state.namespaces.note(facts)
        for namespace_id in changes.deleted:
            self._state.namespaces.forget(namespace_id)
            self._state.indexes.drop(namespace_id)
            cache_path(self._state.settings.data_dir, namespace_id).unlink(missing_ok=True)

    def _apply(self, change: _IndexChange, *, in_pieces: bool) -> None:
        entries, removals = change.entries, change.removals
        index = self._state.indexes.get(change.namespace_id)
        if index is None or not (entries or removals):
            return  # it is loaded with what is stored by then
        # A changed memory leaves and enters in one step; an import's additions are let in a few at
        # a time, so that a search waits for milliseconds also while much is written.
        step = _APPLIED_AT_ONCE if in_pieces and not removals else len(entries)
        for start in range(0, max(len(entries), 1), max(step, 1)):
            if start:
                time.sleep(_LET_SEARCHES_IN_S)
            with self._state.lock.exclusive():
                index.apply(entries[start : start + step], removals)
        self._state.indexes.note_change(change.namespace_id, len(entries) + len(removals))
        self._touched.add(change.namespace_id)

    # Maintenance, in the writer thread between two commits: nothing changes meanwhile, so new
    # structures are built aside while searches go on with the old ones.

    def _maintain(self) -> None:
        for namespace_id in list(self._touched):
            index = self._state.indexes.get(namespace_id)
            if index is None or self._look_after(namespace_id, index):
                self._touched.discard(namespace_id)

    def _look_after(self, namespace_id: int, index: SearchIndex) -> bool:
        """Do what an index needs, as far as it can be done now; whether that is all."""
        if index.needs_compaction(from_dead_rows=self._compact_from):
            index = index.compacted()
            with self._state.lock.exclusive():
                self._state.indexes.put(
                    namespace_id, index, self._state.indexes.n_uncached(namespace_id)
                )
        outgrown = [v for v in (index.vectors, index.later.vectors) if v.needs_switch()]
        n_uncached = self._state.indexes.n_uncached(namespace_id)
        is_old = n_uncached >= max(self._cache_after, _CACHE_AFTER_SHARE * len(index))
        needs_cache = is_old and self._has_cache(namespace_id)
        if not outgrown and not needs_cache:
            return True
        if self._background is not None and self._background.is_alive():
            return False
        if outgrown:
            self._start(functools.partial(self._switch, namespace_id, index, outgrown[0]))
        else:
            self._start(self._caching(namespace_id))
        return False

    def _has_cache(self, namespace_id: int) -> bool:
        facts = self._state.namespaces.with_id(namespace_id)
        return facts is not None and self._state.is_kept_ready(facts)

    def _caching(self, namespace_id: int) -> Callable[[], None]:
        """What writes the posting lists, as they are now, to the cache."""
        index, store = self._state.index_for_write(namespace_id), self._state.store
        postings = postings_of(index, epoch=store.epoch, lsn=store.lsn)
        self._state.indexes.note_cached(namespace_id)
        path = cache_path(self._state.settings.data_dir, namespace_id)
        return functools.partial(write_cache, path, postings)

    def _start(self, work: Callable[[], None]) -> None:
        self._background = threading.Thread(target=work, name="maintenance", daemon=True)
        self._background.start()

    def _switch(self, namespace_id: int, index: SearchIndex, vectors: VectorIndex) -> None:
        """Build the codes here, in the background; adopt them in the writer thread."""
        built = vectors.build_quantised()

        def adopt() -> None:
            if self._state.indexes.get(namespace_id) is index:  # not compacted or restored away
                with self._state.lock.exclusive():
                    vectors.adopt(built)
                self._state.indexes.note_change(namespace_id, 0)

        try:
            self.submit_alone(adopt)
        except EngineError:
            _log.info("the switch to a quantised index waits for the next write")
