"""The pipeline of one import: read, validate, embed, write, answer, in step with its client.

```
body ─► lines ─► chunks ─► embedding pool (several chunks at a time) ─► index (in order) ─► answer
```

Every stage is bounded: while the index or the client is slow, the queue of chunks is full and
nothing more is read from the connection. A line is answered when its write is durable.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import structlog
from starlette.types import Message, Receive

from deployments.calls.patience import patiently
from deployments.http.services import Services
from deployments.transfer.import_body import Chunk, ClientGoneError, End, ImportBody, done_within
from deployments.transfer.import_lines import BadLine, GoodLine, LineParser
from deployments.transfer.import_report import PROGRESS_S, ImportReport
from engine.errors import EngineError, NotReadyError, OverloadedError, UnknownOutcomeError
from engine.operations.operation import Within
from engine.operations.reads import KnownEmbeddings
from engine.operations.writes import IngestLines
from engine.records import FloatMatrix, FloatVector, ModelIdentity
from engine.workspace.passages import text_in_context
from engine.writing.lines import ImportAttempt, ImportOutcome

T = TypeVar("T")

_WRITE_LINES = 256
"""Lines of one write: a search waits for at most one."""
"""How long a full or restarting part is waited for."""

_log = structlog.stdlib.get_logger("import")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What the caller wants."""

    stop_on_error: bool
    deduplicate: bool
    redact: bool
    within: Within
    check_caller: Callable[[], None]
    """Raises once the caller may write no more."""
    key: str | None
    """Names the import, so that it can be sent again."""
    content_encoding: str
    reports_all: bool
    """Whether every line is answered, or only those with errors."""


class _Stopped(Exception):
    """No further line is applied; says why."""


class ImportStream:
    """One import. `run` does it all."""

    def __init__(
        self,
        services: Services,
        options: ImportOptions,
        identity: ModelIdentity,
        send: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._services = services
        self._options = options
        self._dim = identity.dim
        parser = LineParser(identity, deduplicate=options.deduplicate, redact=options.redact)
        self._body = ImportBody(parser, options.content_encoding, self._submit)
        self._report = ImportReport(send, reports_all=options.reports_all)
        # One more is being written and one more is full: together they fill the pool's places.
        self._queue: asyncio.Queue[Chunk | End] = asyncio.Queue(
            max(1, services.settings.import_chunks - 1)
        )
        self._attempt = secrets.randbits(62)
        self._n_writes = 0

    async def run(self, first: Message, receive: Receive) -> None:
        """Import the body whose first message was received already, and answer every line.

        Raises:
            ClientGoneError: the connection was closed. What was answered is stored.
        """
        reading = asyncio.create_task(self._read(first, receive))
        try:
            stopped_at, message = await self._write_all(reading)
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError, ClientGoneError):
                await reading
            self._drop_waiting()
        await self._report.summary(stopped_at, message)

    async def _read(self, first: Message, receive: Receive) -> None:
        await self._queue.put(await self._body.read(first, receive))

    async def _submit(self, chunk: Chunk) -> None:
        chunk.embeddings = asyncio.create_task(self._embed(chunk.good))
        try:
            await self._queue.put(chunk)
        except BaseException:
            chunk.embeddings.cancel()
            raise

    def _drop_waiting(self) -> None:
        while not self._queue.empty():
            dropped = self._queue.get_nowait()
            if isinstance(dropped, Chunk) and dropped.embeddings is not None:
                dropped.embeddings.cancel()

    # Embedding

    async def _embed(self, lines: Sequence[GoodLine]) -> FloatMatrix:
        """The embeddings of lines, shape (len(lines), dim); equal texts are embedded once."""
        embeddings = np.empty((len(lines), self._dim), np.float32)
        missing: dict[str, list[int]] = {}
        for row, line in enumerate(lines):
            if line.vector is None:
                missing.setdefault(text_in_context(line.memory), []).append(row)
            else:
                embeddings[row] = line.vector
        if missing:
            async with self._services.imports.embedding:
                vectors = await self._vectors_of(list(missing))
            for text, vector in vectors.items():
                embeddings[missing[text]] = vector
        return embeddings

    async def _vectors_of(self, texts: list[str]) -> dict[str, FloatVector]:
        """The embedding of each text; those that a stored memory has are not made anew."""
        known = await self._patiently(
            lambda: self._services.index.ask(KnownEmbeddings(texts, within=self._options.within))
        )
        found = {texts[at]: vectors[0] for at, vectors in known.items()}
        new = [text for text in texts if text not in found]
        if new:
            made = await self._patiently(lambda: self._services.embedder.embed_long(new))
            found.update(zip(new, made.firsts, strict=True))
        return found

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await patiently(call)
        except (OverloadedError, NotReadyError, UnknownOutcomeError) as exc:
            raise _Stopped(f"{exc}; {self._how_to_go_on()}") from exc

    # Writing

    async def _write_all(self, reading: asyncio.Task[None]) -> tuple[int | None, str | None]:
        """Write and answer every chunk; returns where and why that stopped, if it did."""
        try:
            while isinstance(taken := await self._next(reading), Chunk):
                await self._write_chunk(taken)
            if taken.problem is not None:
                raise _Stopped(f"{taken.problem}; {self._how_to_go_on()}")
            if self._report.is_cut_off:
                raise _Stopped("the export is cut off: its last line, the footer, is missing")
        except _Stopped as exc:
            return self._report.tally.lines + 1, str(exc)
        except EngineError as exc:
            _log.error("import_stopped", error=type(exc).__name__, message=str(exc))
            return self._report.tally.lines + 1, f"{exc}; {self._how_to_go_on()}"
        return None, None

    async def _next(self, reading: asyncio.Task[None]) -> Chunk | End:
        """The next chunk, embedded; progress is reported meanwhile.

        Raises:
            ClientGoneError: the reader found the connection closed.
        """
        getting = asyncio.ensure_future(self._queue.get())
        try:
            while not getting.done():
                await asyncio.wait(
                    {getting, *(() if reading.done() else (reading,))},
                    timeout=PROGRESS_S,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if reading.done() and reading.exception() is not None and not getting.done():
                    reading.result()
                await self._report.progress()
            taken = getting.result()
        finally:
            getting.cancel()
        if isinstance(taken, Chunk):
            assert taken.embeddings is not None, "submitted chunks are being embedded"
            while not await done_within(taken.embeddings, PROGRESS_S):
                await self._report.progress()
        return taken

    async def _write_chunk(self, chunk: Chunk) -> None:
        assert chunk.embeddings is not None, "submitted chunks are being embedded"
        embeddings = chunk.embeddings.result()
        n_good = 0
        for start in range(0, len(chunk.lines), _WRITE_LINES):
            lines = chunk.lines[start : start + _WRITE_LINES]
            bad = next((i for i, line in enumerate(lines) if isinstance(line, BadLine)), None)
            stops = self._options.stop_on_error and bad is not None
            if stops:
                lines = lines[: bad + 1] if bad is not None else lines
            good = [line for line in lines if isinstance(line, GoodLine)]
            ingesting = self._ingest(good, embeddings[n_good : n_good + len(good)])
            outcomes = await self._while_reporting(ingesting)
            n_good += len(good)
            await self._report.answer(lines, outcomes)
            if stops:
                self._report.tally.lines -= 1
                raise _Stopped(f"line {lines[-1].number} has an error, and on_error=stop was asked")
        self._report.tally.lines, self._report.tally.bytes = chunk.last_number, chunk.body_bytes
        await self._report.progress()

    async def _ingest(
        self, lines: Sequence[GoodLine], embeddings: FloatMatrix
    ) -> list[ImportOutcome]:
        if not lines:
            return []
        self._options.check_caller()
        before, self._n_writes = self._n_writes, self._n_writes + 1
        attempt = None
        if self._options.key is not None:
            attempt = ImportAttempt(
                key=self._options.key,
                attempt=self._attempt,
                digests=[line.digest for line in lines],
            )
        memories = [line.memory for line in lines]
        operation = IngestLines(
            memories,
            embeddings,
            request_id=self._request_id(before + 1),
            after=self._request_id(before) if before else None,
            attempt=attempt,
            within=self._options.within,
        )
        return await self._patiently(lambda: self._services.index.ask(operation))

    def _request_id(self, n: int) -> str:
        return f"import {self._attempt:x} {n}"

    async def _while_reporting(self, work: Coroutine[None, None, T]) -> T:
        """Await something that a restart may draw out; progress is reported meanwhile."""
        task = asyncio.ensure_future(work)
        try:
            while not await done_within(task, PROGRESS_S):
                await self._report.progress()
            return task.result()
        finally:
            task.cancel()

    def _how_to_go_on(self) -> str:
        if self._options.key is None:
            return f"send the lines from {self._report.tally.lines + 1} on again"
        return "send it again with the same Idempotency-Key"
