"""The write path: group, commit (durable), apply (visible), acknowledge. In that order.

A job waits in the queue; the writer thread takes all that wait, runs them in one SQLite
transaction and commits it, applies them to the indexes under the exclusive lock, and only then
settles their futures.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from engine.errors import DeadlinePassedError, EngineError, UnavailableError
from engine.records import MemoryId
from engine.search.postings_cache import CACHE_NAME, postings_of, write_cache
from engine.search.search_index import IndexEntry, SearchIndex
from engine.search.vector_index import VectorIndex
from engine.store.database import Store, now_us
from engine.writing.group_commit import GroupCommitter, WriteJob
from engine.writing.rw_lock import ReadWriteLock
from engine.writing.write_session import WriteSession

T = TypeVar("T")

_APPLIED_AT_ONCE = 32
_LET_SEARCHES_IN_S = 0.0005
_CACHE_AFTER_SHARE = 0.1

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class LiveState:
    """The store and its indexes, which a restore replaces together."""

    store: Store
    index: SearchIndex
    lock: ReadWriteLock = field(default_factory=ReadWriteLock)
    """Shared by searches, exclusive for changes of the indexes and for the swap."""
    store_lock: ReadWriteLock = field(default_factory=ReadWriteLock)
    """Shared by all that read the store, exclusive for the swap alone: writers need not wait for
    reads of SQLite, which has snapshots. Whoever takes both takes this one first."""
    n_uncached: int = 0
    """Memories in the indexes that the cache on disk does not know."""
    broken: Exception | None = None
    """Why the indexes no longer show what the store holds; only a restart mends that."""


@dataclass(frozen=True, slots=True)
class _Changes:
    """What a group committed."""

    lsn: int
    """That it reached."""
    n_written: int
    """Memories written or removed."""
    entries: list[IndexEntry]
    removals: dict[MemoryId, list[str]]


class Writer:
    """The thread that changes a `LiveState`."""

    def __init__(
        self,
        state: LiveState,
        data_dir: Path,
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
        self._cache_path = data_dir / CACHE_NAME
        self._changes_since_cache = state.n_uncached
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
        run: Callable[[WriteSession], T],
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
            run: changes the session; an error undoes this job alone.
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

        def exactly_once(session: WriteSession) -> T:
            remembered = session.transaction.outcomes.get(request_id)
            if remembered is not None:
                return outcome_type.validate_json(remembered)
            if deadline_s is not None and time.time() > deadline_s:
                raise DeadlinePassedError("the service was busy too long; nothing was applied")
            outcome = run(session)
            session.transaction.outcomes.put(
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
        """Finish the writes that wait and leave a fresh cache."""
        self._queue.close()
        if self._background is not None:
            self._background.join()
        if self._changes_since_cache and self._state.broken is None:
            write_cache(self._cache_path, self._postings())

    def forget_cache(self) -> None:
        """Drop the cache: what it shows has been replaced."""
        self._cache_path.unlink(missing_ok=True)
        self._changes_since_cache = len(self._state.index)

    def _commit(self, group: Sequence[WriteJob[Any]]) -> None:
        outcomes: list[tuple[WriteJob[Any], Any]] = []
        try:
            if self._state.broken is not None:
                raise UnavailableError("the index needs a restart") from self._state.broken
            changes = self._run(group, outcomes)
        except Exception as exc:  # noqa: BLE001 - settles the callers, whatever it is
            for job in group:
                if not job.done.done():
                    job.done.set_exception(exc)
            return
        try:
            self._state.store.publish_lsn(changes.lsn)
            self._apply(changes, in_pieces=all(job.in_pieces for job, _ in outcomes))
        except Exception as exc:  # noqa: BLE001 - whatever it is, the answers are wrong now
            # Committed, but not searchable: nothing may be answered until a restart.
            self._state.broken = exc
            _log.exception("the indexes could not follow the store")
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

    def _run(
        self, group: Sequence[WriteJob[Any]], outcomes: list[tuple[WriteJob[Any], Any]]
    ) -> _Changes:
        """Run a group in one transaction; durable when this returns."""
        store = self._state.store
        lsn, time_us = store.lsn, now_us()
        with store.transaction() as transaction:
            session = WriteSession(transaction, self._state.index, lsn=lsn, time_us=time_us)
            for job in group:
                n_before = session.n_changes
                outcome = self._run_one(job, session, lsn + 1)
                if not isinstance(outcome, EngineError):
                    outcomes.append((job, outcome))
                    lsn += session.n_changes > n_before
            if lsn != store.lsn:
                transaction.set_lsn(lsn, time_us)
            # Before the commit: until they are applied, searches find what is gone.
            entries, removals = session.entries(), session.removals()
        return _Changes(lsn, session.n_changes, entries, removals)

    @staticmethod
    def _run_one(job: WriteJob[Any], session: WriteSession, lsn: int) -> Any:  # noqa: ANN401
        """The job's outcome; or the error, handed to its caller, that undid this job alone."""
        try:
            with session.job(lsn):
                return job.run(session)
        except EngineError as exc:
            job.done.set_exception(exc)
            return exc

    def _apply(self, changes: _Changes, *, in_pieces: bool) -> None:
        """Show what is committed to searches."""
        entries, removals = changes.entries, changes.removals
        if not entries and not removals:
            return
        # A changed memory leaves and enters in one step; an import's additions are let in a few at
        # a time, so that a search waits for milliseconds also while much is written.
        step = _APPLIED_AT_ONCE if in_pieces and not removals else len(entries)
        for start in range(0, max(len(entries), 1), max(step, 1)):
            if start:
                time.sleep(_LET_SEARCHES_IN_S)
            with self._state.lock.exclusive():
                self._state.index.apply(entries[start : start + step], removals)
        self._changes_since_cache += len(entries) + len(removals)

    # Maintenance, in the writer thread between two commits: nothing changes meanwhile, so new
    # structures are built aside while searches go on with the old ones.

    def _maintain(self) -> None:
        if self._state.index.needs_compaction(from_dead_rows=self._compact_from):
            compacted = self._state.index.compacted()
            with self._state.lock.exclusive():
                self._state.index = compacted
        if self._background is not None and self._background.is_alive():
            return
        index = self._state.index
        if outgrown := [v for v in (index.vectors, index.later.vectors) if v.needs_switch()]:
            self._start(functools.partial(self._switch, index, outgrown[0]))
        elif self._changes_since_cache >= max(
            self._cache_after, _CACHE_AFTER_SHARE * len(self._state.index)
        ):
            self._changes_since_cache = 0
            self._start(functools.partial(write_cache, self._cache_path, self._postings()))

    def _start(self, work: Callable[[], None]) -> None:
        self._background = threading.Thread(target=work, name="maintenance", daemon=True)
        self._background.start()

    def _switch(self, index: SearchIndex, vectors: VectorIndex) -> None:
        """Build the codes here, in the background; adopt them in the writer thread."""
        built = vectors.build_quantised()

        def adopt() -> None:
            if self._state.index is index:  # not compacted or restored away
                with self._state.lock.exclusive():
                    vectors.adopt(built)

        try:
            self.submit_alone(adopt)
        except EngineError:
            _log.info("the switch to a quantised index waits for the next write")

    def _postings(self) -> dict[str, Any]:
        return postings_of(
            self._state.index, epoch=self._state.store.epoch, lsn=self._state.store.lsn
        )
