"""One request's identity and timings, carried in its ASGI scope."""

from __future__ import annotations

import hashlib
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Literal, cast

from fastapi import Depends, Header
from starlette.requests import Request
from starlette.types import Scope

from engine.store.layout.remembered_outcomes import CALLERS_KEY
from wire import limits

Stage = Literal["embed", "index"]

TRACE_KEY = "faiss_memory.trace"
PROXY_WRITE_ID = "x-faiss-memory-write-id"
"""Set by HAProxy on every request, whatever the client says: see its shim in `scripts`."""

# A caller's own id is taken over only when it can do no harm in a log line or a header.
_PROXYS_OWN = re.compile(r"[0-9a-f-]{32,36}")
_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(slots=True)
class RequestTrace:
    """What the canonical log line and the metrics say of one request."""

    request_id: str
    started_s: float = field(default_factory=time.perf_counter)
    stage_s: dict[Stage, float] = field(default_factory=dict)
    """Seconds spent waiting for each part."""
    k: int | None = None
    n_hits: int | None = None
    key: str | None = None
    """The id of the caller's key, `root` for the root key."""
    namespace: str | None = None

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Add the time spent inside to a stage."""
        before = time.perf_counter()
        try:
            yield
        finally:
            self.stage_s[name] = self.stage_s.get(name, 0.0) + time.perf_counter() - before


def start_trace(scope: Scope) -> RequestTrace:
    """Make the trace of a request; its id is the caller's `X-Request-ID` or a new one."""
    given = next((v.decode("latin-1") for n, v in scope["headers"] if n == b"x-request-id"), "")
    request_id = given if _SANE_REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    trace = RequestTrace(request_id)
    scope[TRACE_KEY] = trace
    return trace


def trace_of(request: Request) -> RequestTrace:
    """The trace that `start_trace` put into the request's scope."""
    return cast(RequestTrace, request.scope[TRACE_KEY])


async def _write_id(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=limits.IDEMPOTENCY_KEY,
            description="Sending a write again with the same key returns its first outcome.",
        ),
    ] = None,
) -> str:
    if idempotency_key is None:
        # The proxy's: it sends a request whose replica died to another one with the same id.
        given = request.headers.get(PROXY_WRITE_ID, "")
        return given if _PROXYS_OWN.fullmatch(given) else uuid.uuid4().hex
    # With method, path and body: a key reused for something else never answers for it.
    digest = hashlib.blake2b(await request.body(), digest_size=16).hexdigest()
    return f"{CALLERS_KEY}{request.method} {request.scope['path']} {idempotency_key} {digest}"


WriteId = Annotated[str, Depends(_write_id)]
"""The id that makes a write exactly-once: the caller's `Idempotency-Key`, or a fresh one."""
