"""One thread writes; what waits together is committed together.

A commit costs one fsync however many writes it holds, so under load the cost of durability is
shared (group commit: DeWitt et al., "Implementation Techniques for Main Memory Database
Systems", SIGMOD 1984).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from engine.errors import OverloadedError, ShuttingDownError

T = TypeVar("T")

_JOBS_A_COMMIT = 64
_MEMORIES_A_COMMIT = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteJob(Generic[T]):
    """A write that waits for its commit."""

    run: Callable[..., T]
    weight: int
    """Memories it writes: what the queue's bound counts."""
    in_pieces: bool = False
    """Searches may see a part of it before it is acknowledged."""
    alone: bool = False
    """Not part of a transaction: `run()` has the writer thread to itself."""
    done: Future[T] = field(default_factory=Future)


class GroupCommitter:
    """The writer thread and its bounded queue."""

    def __init__(
        self,
        commit: Callable[[Sequence[WriteJob[Any]]], None],
        *,
        max_pending_jobs: int,
        max_pending_memories: int,
    ) -> None:
        """Start the thread.

        Args:
            commit: runs jobs in one transaction and settles every `done`; never raises.
            max_pending_jobs: jobs that may wait.
            max_pending_memories: memories that may wait in all of them.
        """
        self._commit = commit
        self._max_jobs = max_pending_jobs
        self._max_memories = max_pending_memories
        self._jobs: deque[WriteJob[Any]] = deque()
        self._n_memories = 0
        self._changed = threading.Condition()
        self._closing = False
        self._began_s: float | None = None
        """When the commit that is under way began, on the monotonic clock."""
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    @property
    def n_pending(self) -> int:
        """Jobs that wait."""
        return len(self._jobs)

    @property
    def busy_s(self) -> float:
        """How long the commit that is under way has taken so far."""
        began_s = self._began_s
        return 0.0 if began_s is None else time.monotonic() - began_s

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def submit(self, job: WriteJob[T]) -> Future[T]:
        """Queue a job.

        Raises:
            OverloadedError: the queue is full; nothing of the job happens.
            ShuttingDownError: closing.
        """
        with self._changed:
            if self._closing:
                raise ShuttingDownError("the index is shutting down")
            # A job heavier than the bound may still go alone.
            if len(self._jobs) >= self._max_jobs or (
                self._n_memories and self._n_memories + job.weight > self._max_memories
            ):
                raise OverloadedError("too many writes are waiting; try again shortly")
            self._jobs.append(job)
            self._n_memories += job.weight
            self._changed.notify()
        return job.done

    def close(self) -> None:
        """Finish what is queued, then stop. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while taken := self._next_group():
            # A caller that went away before its turn gets nothing written.
            group = [job for job in taken if job.done.set_running_or_notify_cancel()]
            self._began_s = time.monotonic()
            if group and group[0].alone:
                _settle(group[0])
            elif group:
                self._commit(group)
            self._began_s = None

    def _next_group(self) -> list[WriteJob[Any]]:
        with self._changed:
            while not self._jobs and not self._closing:
                self._changed.wait()
            group: list[WriteJob[Any]] = []
            weight = 0
            while self._jobs and len(group) < _JOBS_A_COMMIT:
                job = self._jobs[0]
                if group and (job.alone or weight + job.weight > _MEMORIES_A_COMMIT):
                    break
                group.append(self._jobs.popleft())
                weight += job.weight
                if job.alone:
                    break
            self._n_memories -= weight
            return group


def _settle(job: WriteJob[Any]) -> None:
    try:
        job.done.set_result(job.run())
    except BaseException as exc:  # noqa: BLE001 - handed to the caller, whatever it is
        job.done.set_exception(exc)
