"""The outermost layer: request id, canonical log line, metrics, and the answer to a crash."""

from __future__ import annotations

import logging
import time
import traceback
from urllib.parse import quote

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.http.errors import internal_error_response
from deployments.http.metrics import IngressMetrics
from deployments.http.request_trace import RequestTrace, start_trace
from engine.errors import EngineError
from engine.words.redaction import redact

_CLIENT_CLOSED = 499
"""Logged for a request whose caller went away before an answer was sent."""
_UNMATCHED = "unmatched"
_MAX_PATH_CHARS = 200

_PRIVACY = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

_log = structlog.stdlib.get_logger("ingress")


class RequestLog:
    """Gives every request an id, and logs and counts it once, at its end."""

    def __init__(self, app: ASGIApp, metrics: IngressMetrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request; an exception that nothing below answered becomes a 500."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        trace = start_trace(scope)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                request_id = (b"x-request-id", trace.request_id.encode())
                headers = [*message["headers"], request_id, *_PRIVACY]
                message = {**message, "headers": _uncached(headers)}
            await send(message)

        with self.metrics.in_flight.track_inprogress():
            try:
                await self.app(scope, receive, send_with_id)
            except Exception as exc:
                _log_crash(exc, trace.request_id)
                if status:
                    raise  # too late for another answer; the server cuts the connection
                response = internal_error_response(trace.request_id)
                await response(scope, receive, send_with_id)
            finally:
                self._finish(scope, trace, status or _CLIENT_CLOSED)

    def _finish(self, scope: Scope, trace: RequestTrace, status: int) -> None:
        total_s = time.perf_counter() - trace.started_s
        route = getattr(scope.get("route"), "path_format", _UNMATCHED)
        self.metrics.observe(route, scope["method"], status, trace.stage_s, total_s)
        fields: dict[str, object] = {
            "request_id": trace.request_id,
            "route": route,
            "method": scope["method"],
            "status": status,
            "total_ms": _ms(total_s),
        }
        if route == _UNMATCHED:
            # Somebody's key, perhaps, in the place of a namespace.
            fields["path"] = quote(redact(scope["path"]).text)[:_MAX_PATH_CHARS]
        for name in ("key", "namespace", "k", "n_hits"):
            if (value := getattr(trace, name)) is not None:
                fields[name] = value
        for stage, name in (("embed", "embed_ms"), ("index", "search_ms")):
            if stage in trace.stage_s:
                fields[name] = _ms(trace.stage_s[stage])
        probe = status < 400 and (route.startswith("/health") or route == "/metrics")
        _log.log(logging.DEBUG if probe else logging.INFO, "request", **fields)


def _uncached(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """JSON is of this moment and of this caller, unless its route says otherwise."""
    named = dict(headers)
    is_json = named.get(b"content-type", b"").startswith(b"application/json")
    if is_json and b"cache-control" not in named:
        return [*headers, (b"cache-control", b"no-store")]
    return headers


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _log_crash(exc: Exception, request_id: str) -> None:
    """Log where it broke. The message of a foreign error may quote a memory, so it stays out."""
    frames = [
        f"{frame.filename}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(exc.__traceback__)
    ]
    _log.error(
        "request_failed",
        request_id=request_id,
        error=type(exc).__name__,
        message=str(exc) if isinstance(exc, EngineError | OSError) else None,
        cause=type(exc.__cause__).__name__ if exc.__cause__ else None,
        frames=frames,
    )
