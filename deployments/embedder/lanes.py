"""Who embeds next: queries at once, single texts before bulk, bulk on niced threads.

One model session serves all threads. Work is cut into the engine's short runs; between two of
them a bulk thread looks for single texts, and queries have a thread of their own. What waits
together is embedded together, whoever asked for it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from deployments.embedder.cores import usable_cores
from engine.errors import EmbeddingError, EngineError, OverloadedError
from engine.model.embedder import EmbeddingRun, HiddenRows
from engine.records import Embeddings, FloatMatrix, FloatVector

_SMALL_JOB_TEXTS = 4
"""A job of at most so many texts is somebody waiting for an add; it passes bulk work."""
_MAX_BATCH_TEXTS = 256
"""Texts planned together: enough that equal lengths meet, little enough to start soon."""
_BULK_NICENESS = 10


class RunEmbedder(Protocol):
    """The part of `engine.model.embedder.Embedder` that the lanes use."""

    @property
    def dim(self) -> int:
        """Length of an embedding."""

    def plan_runs(self, texts: Sequence[str], max_windows: Sequence[int]) -> list[EmbeddingRun]:
        """Split texts into runs."""

    def embed_run(self, run: EmbeddingRun) -> FloatMatrix:
        """Embed one run."""

    def read_run(self, run: EmbeddingRun) -> tuple[FloatMatrix, HiddenRows]:
        """Embed one run and keep its hidden rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """What became of the texts of a job."""

    embeddings: Embeddings
    rows: dict[int, HiddenRows]
    """Hidden rows of each text by position, shape (n_tokens, dim), where they were asked for."""


@dataclass(slots=True, eq=False)
class _Job:
    texts: list[str]
    max_windows: int
    with_rows: bool
    result: Embedded
    n_missing: int
    future: Future[Embedded]

    def note(self, row: int, window: int, vector: FloatVector, rows: HiddenRows | None) -> None:
        """Keep the vector of one window."""
        if window:
            self.result.embeddings.later[row][window - 1] = vector
        else:
            self.result.embeddings.firsts[row] = vector
        if rows is not None:
            self.result.rows[row] = rows
        self.n_missing -= 1


_PlannedRun = tuple[EmbeddingRun, list[tuple[_Job, int]]]
"""A run, and for each of its texts the job and the row in it."""


class EmbeddingLanes:
    """Threads around one embedder. `submit` may be called from any thread."""

    def __init__(
        self,
        embedder: RunEmbedder,
        *,
        max_queued_queries: int,
        max_queued_texts: int,
        bulk_threads: int | None = None,
    ) -> None:
        """Start the threads.

        Args:
            embedder: safe to call from several threads.
            max_queued_queries: queries that may wait.
            max_queued_texts: other texts that may wait.
            bulk_threads: as many as there are cores for this process unless given.
        """
        self._embedder = embedder
        self._max_queued_queries = max_queued_queries
        self._max_queued_texts = max_queued_texts
        self._queries: deque[_Job] = deque()
        self._small: deque[_Job] = deque()
        self._bulk: deque[_Job] = deque()
        self._planned: deque[_PlannedRun] = deque()
        self._n_queued_texts = 0
        self._counters = {"batches": 0, "texts": 0, "rejected": 0}
        self._closed = False
        self._changed = threading.Condition()
        n_bulk = bulk_threads or usable_cores()
        self._threads = [
            threading.Thread(target=self._serve, args=(self._query_work, 0), daemon=True),
            *(
                threading.Thread(
                    target=self._serve, args=(self._bulk_work, _BULK_NICENESS), daemon=True
                )
                for _ in range(n_bulk)
            ),
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        texts: Sequence[str],
        *,
        is_query: bool = False,
        max_windows: int = 1,
        with_rows: bool = False,
    ) -> Future[Embedded]:
        """Queue texts.

        Args:
            texts: to be embedded.
            is_query: ahead of all bulk work.
            max_windows: embedded of each text, >= 1.
            with_rows: whether the hidden rows are wanted too.

        Returns:
            Resolves to their embeddings, in order.

        Raises:
            OverloadedError: the lane is full; nothing was queued.
        """
        firsts = np.empty((len(texts), self._embedder.dim), np.float32)
        job = _Job(
            texts=list(texts),
            max_windows=max_windows,
            with_rows=with_rows,
            result=Embedded(embeddings=Embeddings(firsts=firsts), rows={}),
            n_missing=len(texts),
            future=Future(),
        )
        if not texts:
            job.future.set_result(job.result)
            return job.future
        with self._changed:
            self._enqueue(job, is_query=is_query)
            self._changed.notify_all()
        return job.future

    def counters(self) -> dict[str, float]:
        """What was done so far."""
        with self._changed:
            return {**self._counters}

    def depths(self) -> dict[str, float]:
        """How much waits now."""
        with self._changed:
            return {
                "queue_depth": self._n_queued_texts,
                "query_queue_depth": len(self._queries),
            }

    def is_alive(self) -> bool:
        """Whether every thread still works."""
        return not self._closed and all(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        """Let the threads finish the runs they are at, and end. Waiting jobs stay unanswered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _enqueue(self, job: _Job, *, is_query: bool) -> None:
        n_texts = len(job.texts)
        if is_query:
            full = len(self._queries) >= self._max_queued_queries
        else:
            # A job beyond the bound passes when nothing else waits: it could never otherwise.
            full = self._n_queued_texts > 0 and (
                self._n_queued_texts + n_texts > self._max_queued_texts
            )
        if full:
            self._counters["rejected"] += n_texts
            raise OverloadedError("too many texts wait to be embedded")
        if is_query:
            self._queries.append(job)
        else:
            self._n_queued_texts += n_texts
            job.future.add_done_callback(lambda _: self._release(n_texts))
            (self._small if n_texts <= _SMALL_JOB_TEXTS else self._bulk).append(job)

    def _serve(self, next_work: Callable[[], list[_PlannedRun]], niceness: int) -> None:
        if niceness and sys.platform == "linux":
            # On Linux the "process" of a thread's id is that thread alone. Only root may go below
            # the niceness that the process has been given.
            thread_id = threading.get_native_id()
            own = os.getpriority(os.PRIO_PROCESS, thread_id)
            os.setpriority(os.PRIO_PROCESS, thread_id, own + niceness)
        while not self._closed:
            for planned in next_work():
                self._embed(planned)

    def _query_work(self) -> list[_PlannedRun]:
        with self._changed:
            self._changed.wait_for(lambda: self._queries or self._closed)
            jobs = _take(self._queries, _MAX_BATCH_TEXTS)
        return self._plan(jobs)

    def _bulk_work(self) -> list[_PlannedRun]:
        """All small jobs that wait, else one bulk run."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._small or self._planned or self._bulk or self._closed
            )
            if not self._small and self._planned:
                return [self._planned.popleft()]
            lane = self._small or self._bulk
            jobs = _take(lane, _MAX_BATCH_TEXTS)
        runs = self._plan(jobs)
        if lane is self._small:
            return runs
        with self._changed:
            self._planned.extend(runs)
            self._changed.notify_all()
        return []

    def _plan(self, jobs: Sequence[_Job]) -> list[_PlannedRun]:
        """Runs over the texts of several jobs; a job with an invalid text fails alone."""
        targets = [(job, row) for job in jobs for row in range(len(job.texts))]
        try:
            runs = self._embedder.plan_runs(
                [job.texts[row] for job, row in targets], [job.max_windows for job, _ in targets]
            )
        except EngineError as exc:
            if len(jobs) == 1:
                _finish(jobs[0], exc)
                return []
            return [planned for job in jobs for planned in self._plan([job])]
        planned = [(run, [targets[row] for row in run.rows]) for run in runs]
        self._make_room(planned)
        return planned

    def _make_room(self, planned: Sequence[_PlannedRun]) -> None:
        """Count the windows past the first, and reserve their places."""
        n_later = Counter(
            target
            for run, targets in planned
            for target, n in zip(targets, run.windows, strict=True)
            if n
        )
        for (job, row), n in n_later.items():
            job.result.embeddings.later[row] = np.empty((n, self._embedder.dim), np.float32)
            job.n_missing += n

    def _embed(self, planned: _PlannedRun) -> None:
        run, targets = planned
        if all(job.future.done() for job, _ in targets):
            return
        try:
            if any(job.with_rows for job, _ in targets):
                embeddings, rows = self._embedder.read_run(run)
            else:
                embeddings, rows = self._embedder.embed_run(run), None
        except Exception as exc:  # noqa: BLE001 (a thread must live on; the callers are told)
            failure = EmbeddingError(f"the model failed: {type(exc).__name__}")
            for job in {job for job, _ in targets}:
                _finish(job, failure)
            return
        finished = []
        with self._changed:
            self._counters["batches"] += 1
            self._counters["texts"] += len(targets)
            for at, (job, row) in enumerate(targets):
                wanted = rows[at] if rows is not None and job.with_rows else None
                job.note(row, int(run.windows[at]), embeddings[at], wanted)
                if not job.n_missing:
                    finished.append(job)
        for job in finished:
            _finish(job, None)

    def _release(self, n_texts: int) -> None:
        with self._changed:
            self._n_queued_texts -= n_texts


def _take(lane: deque[_Job], max_texts: int) -> list[_Job]:
    """Take jobs from the front, at least one if there is any; those given up are dropped."""
    jobs: list[_Job] = []
    n_texts = 0
    while lane and (not jobs or n_texts + len(lane[0].texts) <= max_texts):
        job = lane.popleft()
        if not job.future.done():
            jobs.append(job)
            n_texts += len(job.texts)
    return jobs


def _finish(job: _Job, failure: Exception | None) -> None:
    """Answer a job, unless its caller has given it up."""
    with suppress(InvalidStateError):
        if failure is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(failure)
