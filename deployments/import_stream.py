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
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import structlog
from pydantic_core import to_json
from starlette.types import Message, Receive

from deployments import rendering
from deployments.import_lines import BadLine, GoodLine, LineParser, MarkLine, ParsedLine
from deployments.line_reader import BodyError, LineReader
from deployments.services import Services
from engine.errors import EngineError, NotReadyError, OverloadedError, UnknownOutcomeError
from engine.imports import ImportAttempt, ImportOutcome
from engine.records import FloatMatrix, FloatVector, ModelIdentity

T = TypeVar("T")

_CHUNK_LINES = 1_024
"""Enough that texts of equal length meet in full runs of the model."""
_CHUNK_EMBED_CHARS = 1 << 17
"""About two seconds of the model on two cores."""
_EMBEDDED_CHARS = 1_200
"""The model sees about so many characters of a text, however long it is."""
_CHUNK_BYTES = 1 << 19
_WRITE_LINES = 256
"""Lines of one write: a search waits for at most one."""
_PARSED_AT_ONCE = 16
"""Lines validated before other requests get their turn on the event loop."""
_FLUSH_S = 0.05
"""A chunk is not kept waiting longer for a client that pauses."""
_PROGRESS_S = 1.0
_IDLE_S = 600.0
_PATIENCE_S = 300.0
"""How long a full or restarting part is waited for."""
_LONGEST_RETRY_S = 1.0

_log = structlog.stdlib.get_logger("import")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What the caller wants."""

    stop_on_error: bool
    deduplicate: bool
    key: str | None
    """Names the import, so that it can be sent again."""
    content_encoding: str
    reports_all: bool
    """Whether every line is answered, or only those with errors."""


@dataclass(slots=True)
class _Chunk:
    lines: list[ParsedLine] = field(default_factory=list)
    last_number: int = 0
    body_bytes: int = 0
    """Of the body up to its end."""
    n_bytes: int = 0
    n_embed_chars: int = 0
    embeddings: asyncio.Task[FloatMatrix] | None = None

    @property
    def good(self) -> list[GoodLine]:
        return [line for line in self.lines if isinstance(line, GoodLine)]

    def is_full(self) -> bool:
        return (
            len(self.lines) >= _CHUNK_LINES
            or self.n_bytes >= _CHUNK_BYTES
            or self.n_embed_chars >= _CHUNK_EMBED_CHARS
        )


@dataclass(slots=True)
class _Tally:
    lines: int = 0
    added: int = 0
    duplicates: int = 0
    updated: int = 0
    unchanged: int = 0
    errors: int = 0
    bytes: int = 0

    def count(self, status: Literal["added", "duplicate", "updated", "unchanged"]) -> None:
        name = "duplicates" if status == "duplicate" else status
        setattr(self, name, getattr(self, name) + 1)

    def shown(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class _End:
    """The body has ended; with a reason, before its end."""

    problem: str | None


class _Stopped(Exception):
    """No further line is applied; says why."""


class ClientGoneError(Exception):
    """The client closed its connection; nobody is left to answer."""


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
        self._send_bytes = send
        self._parser = LineParser(identity, deduplicate=options.deduplicate)
        # One more is being written and one more is full: together they fill the pool's places.
        self._queue: asyncio.Queue[_Chunk | _End] = asyncio.Queue(
            max(1, services.settings.import_chunks - 1)
        )
        self._tally = _Tally()
        self._attempt = secrets.randbits(62)
        self._n_writes = 0
        self._progress_s = time.monotonic()
        self._after_header: int | None = None
        """Memory lines since the export's header; None without one, or after its footer."""

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
        ok = message is None and not self._tally.errors
        if message is None:
            n = self._tally.errors
            message = "Import finished" if ok else f"{n} lines were not imported; see their errors"
        await self._send(
            {"type": "summary", **self._tally.shown(), "ok": ok}
            | {"stopped_at": stopped_at, "message": message}
        )

    # Reading

    async def _read(self, first: Message, receive: Receive) -> None:
        """Cut the body into chunks, starting to embed each as it is full."""
        lines = LineReader(self._options.content_encoding)
        chunk = _Chunk()
        receiving: asyncio.Future[Message] | None = None
        message: Message = first
        n_read = 0
        number = 0
        try:
            while True:
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                body, more = message.get("body", b""), message.get("more_body", False)
                n_read += len(body)
                found = lines.feed(body)
                for finished in (found,) if more else (found, lines.end()):
                    for line in finished:
                        number += 1
                        if number % _PARSED_AT_ONCE == 0:
                            await asyncio.sleep(0)
                        self._add(chunk, number, line, n_read)
                        if chunk.is_full():
                            await self._submit(chunk)
                            chunk = _Chunk()
                if not more:
                    break
                receiving = asyncio.ensure_future(receive())
                if not await _done_within(receiving, _FLUSH_S):
                    if chunk.last_number:
                        await self._submit(chunk)
                        chunk = _Chunk()
                    if not await _done_within(receiving, _IDLE_S):
                        raise BodyError(f"nothing came for {_IDLE_S:.0f} s")
                message, receiving = receiving.result(), None
            problem = None
        except BodyError as exc:
            problem = str(exc)
        finally:
            if receiving is not None:
                receiving.cancel()
        if chunk.last_number:
            await self._submit(chunk)
        await self._queue.put(_End(problem))

    def _add(self, chunk: _Chunk, number: int, line: bytes | None, n_read: int) -> None:
        chunk.last_number, chunk.body_bytes = number, n_read
        parsed = self._parser.parse(number, line)
        if parsed is None:
            return
        chunk.lines.append(parsed)
        chunk.n_bytes += len(line or b"")
        if isinstance(parsed, GoodLine) and parsed.vector is None:
            chunk.n_embed_chars += min(len(parsed.memory.text), _EMBEDDED_CHARS)

    async def _submit(self, chunk: _Chunk) -> None:
        chunk.embeddings = asyncio.create_task(self._embed(chunk.good))
        try:
            await self._queue.put(chunk)
        except BaseException:
            chunk.embeddings.cancel()
            raise

    def _drop_waiting(self) -> None:
        while not self._queue.empty():
            dropped = self._queue.get_nowait()
            if isinstance(dropped, _Chunk) and dropped.embeddings is not None:
                dropped.embeddings.cancel()

    # Embedding

    async def _embed(self, lines: Sequence[GoodLine]) -> FloatMatrix:
        """The embeddings of lines, shape (len(lines), dim); equal texts are embedded once."""
        embeddings = np.empty((len(lines), self._dim), np.float32)
        missing: dict[str, list[int]] = {}
        for row, line in enumerate(lines):
            if line.vector is None:
                missing.setdefault(line.memory.text, []).append(row)
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
        known = await self._patiently(lambda: self._services.index.known_embeddings(texts))
        found = {texts[at]: vector for at, vector in known.items()}
        new = [text for text in texts if text not in found]
        if new:
            vectors = await self._patiently(lambda: self._services.embedder.embed_long(new))
            found.update(zip(new, vectors, strict=True))
        return found

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call again while the called one is full or restarting; each call happens once there."""
        deadline_s = time.monotonic() + _PATIENCE_S
        pause_s = 0.05
        while True:
            try:
                return await call()
            except (OverloadedError, NotReadyError, UnknownOutcomeError) as exc:
                if time.monotonic() > deadline_s:
                    raise _Stopped(f"{exc}; {self._how_to_go_on()}") from exc
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_RETRY_S)

    # Writing

    async def _write_all(self, reading: asyncio.Task[None]) -> tuple[int | None, str | None]:
        """Write and answer every chunk; returns where and why that stopped, if it did."""
        try:
            while isinstance(taken := await self._next(reading), _Chunk):
                await self._write_chunk(taken)
            if taken.problem is not None:
                raise _Stopped(f"{taken.problem}; {self._how_to_go_on()}")
            if self._after_header is not None:
                raise _Stopped("the export is cut off: its last line, the footer, is missing")
        except _Stopped as exc:
            return self._tally.lines + 1, str(exc)
        except EngineError as exc:
            _log.error("import_stopped", error=type(exc).__name__, message=str(exc))
            return self._tally.lines + 1, f"{exc}; {self._how_to_go_on()}"
        return None, None

    async def _next(self, reading: asyncio.Task[None]) -> _Chunk | _End:
        """The next chunk, embedded; progress is reported meanwhile.

        Raises:
            ClientGoneError: the reader found the connection closed.
        """
        getting = asyncio.ensure_future(self._queue.get())
        try:
            while not getting.done():
                await asyncio.wait(
                    {getting, *(() if reading.done() else (reading,))},
                    timeout=_PROGRESS_S,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if reading.done() and reading.exception() is not None and not getting.done():
                    reading.result()
                await self._report_progress()
            taken = getting.result()
        finally:
            getting.cancel()
        if isinstance(taken, _Chunk):
            assert taken.embeddings is not None, "submitted chunks are being embedded"
            while not await _done_within(taken.embeddings, _PROGRESS_S):
                await self._report_progress()
        return taken

    async def _write_chunk(self, chunk: _Chunk) -> None:
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
            await self._answer(lines, outcomes)
            if stops:
                self._tally.lines -= 1
                raise _Stopped(f"line {lines[-1].number} has an error, and on_error=stop was asked")
        self._tally.lines, self._tally.bytes = chunk.last_number, chunk.body_bytes
        await self._report_progress()

    async def _ingest(
        self, lines: Sequence[GoodLine], embeddings: FloatMatrix
    ) -> list[ImportOutcome]:
        if not lines:
            return []
        before, self._n_writes = self._n_writes, self._n_writes + 1
        attempt = None
        if self._options.key is not None:
            attempt = ImportAttempt(
                key=self._options.key,
                attempt=self._attempt,
                digests=[line.digest for line in lines],
            )
        memories = [line.memory for line in lines]
        return await self._patiently(
            lambda: self._services.index.ingest(
                memories,
                embeddings,
                request_id=self._request_id(before + 1),
                after=self._request_id(before) if before else None,
                attempt=attempt,
            )
        )

    def _request_id(self, n: int) -> str:
        return f"import {self._attempt:x} {n}"

    # Answering

    async def _answer(self, lines: Sequence[ParsedLine], outcomes: Sequence[ImportOutcome]) -> None:
        """Tell what became of lines; those that could be stored are, durably."""
        remaining = iter(outcomes)
        answers = []
        for line in lines:
            self._tally.lines = line.number
            problem = line.reason if isinstance(line, BadLine) else None
            if isinstance(line, MarkLine):
                problem = self._check_mark(line)
                if problem is None:
                    continue
            elif self._after_header is not None:
                self._after_header += 1
            if isinstance(line, GoodLine):
                outcome = next(remaining)
                self._tally.count(outcome.status)
                if self._options.reports_all:
                    answers.append(_item(line.number, outcome))
            else:
                self._tally.errors += 1
                shown = {"type": "item", "line": line.number, "status": "error", "error": problem}
                answers.append(to_json(shown) + b"\n")
        if answers:
            await self._send_bytes(b"".join(answers))

    def _check_mark(self, line: MarkLine) -> str | None:
        """What a footer finds wrong with the lines since its header."""
        if line.kind == "header":
            self._after_header = 0
            return None
        n_lines, self._after_header = self._after_header, None
        if n_lines is None or line.fields.get("count") == n_lines:
            return None
        return f"the export says it has {line.fields.get('count')} memories, {n_lines} came"

    async def _while_reporting(self, work: Coroutine[None, None, T]) -> T:
        """Await something that a restart may draw out; progress is reported meanwhile."""
        task = asyncio.ensure_future(work)
        try:
            while not await _done_within(task, _PROGRESS_S):
                await self._report_progress()
            return task.result()
        finally:
            task.cancel()

    async def _report_progress(self) -> None:
        now_s = time.monotonic()
        if now_s - self._progress_s >= _PROGRESS_S:
            self._progress_s = now_s
            await self._send({"type": "progress", **self._tally.shown()})

    async def _send(self, content: dict[str, Any]) -> None:
        await self._send_bytes(to_json(content) + b"\n")

    def _how_to_go_on(self) -> str:
        if self._options.key is None:
            return f"send the lines from {self._tally.lines + 1} on again"
        return "send it again with the same Idempotency-Key"


def _item(number: int, outcome: ImportOutcome) -> bytes:
    shown: dict[str, Any] = {
        "type": "item",
        "line": number,
        "status": outcome.status,
        "id": outcome.id,
    }
    if outcome.status == "duplicate":
        shown["duplicate_of"] = outcome.duplicate_of
        shown["similarity"] = rendering.score(outcome.similarity or 0.0)
    return to_json(shown) + b"\n"


async def _done_within(task: asyncio.Future[Any], seconds: float) -> bool:
    done, _ = await asyncio.wait({task}, timeout=seconds)
    return bool(done)
