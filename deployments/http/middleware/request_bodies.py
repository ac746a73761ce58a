"""Bodies of requests: read once, whole, in bounded memory and time, or dropped without harm.

A streamed body is its route's own to read, see `deployments.transfer.import_body`.
"""

from __future__ import annotations

import anyio
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.http.errors import detail_response
from deployments.http.needs import OpenPaths
from deployments.ingress_settings import IngressSettings

_PATIENCE_S = 30.0
_LEAST_BYTES_PER_S = 16 * 1024
"""What a body that takes longer must keep up on average."""
_LINGER_S = 30.0
_LINGER_IDLE_S = 2.0
_NO_BODY: Message = {"type": "http.request", "body": b"", "more_body": False}


class _RefusedBodyError(Exception):
    """The body is not read on; carries the answer."""

    def __init__(self, answer: Response) -> None:
        super().__init__(answer.status_code)
        self.answer = answer


class _ClientGoneError(Exception):
    """Nobody is left to answer."""


class BodyLimit:
    """Reads a request's body once, whole, and never more of it than allowed.

    What all requests hold until they are answered comes out of one budget; routes open to
    everybody get no body at all.
    """

    def __init__(self, app: ASGIApp, settings: IngressSettings, open_paths: OpenPaths) -> None:
        self.app = app
        self.open_paths = open_paths
        self.max_bytes = settings.max_body_bytes
        # A call of MCP holds its own body and that of the route it calls.
        self.max_held_bytes = max(settings.max_held_bytes, 2 * settings.max_body_bytes)
        self.streamed_paths = settings.streamed_paths
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the body on as one message; answer 413, 429 or 408 when it cannot be."""
        if scope["type"] != "http" or scope["path"] in self.streamed_paths:
            await self.app(scope, receive, send)
            return
        held = _Held(self)
        try:
            is_open = scope["path"] in self.open_paths
            body = _NO_BODY if is_open else await self._read(scope, receive, held)
            await self.app(scope, _replayed(body, receive), send)
        except _RefusedBodyError as exc:
            await exc.answer(scope, receive, send)
        except _ClientGoneError:
            pass
        finally:
            held.give_back()

    async def _read(self, scope: Scope, receive: Receive, held: _Held) -> Message:
        if declared_bytes(scope) > self.max_bytes:
            raise self._too_large()
        parts: list[bytes] = []
        more = True
        with anyio.move_on_after(_PATIENCE_S) as patience:
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _ClientGoneError
                part = message.get("body", b"")
                held.take(len(part))
                if held.n_bytes > self.max_bytes:
                    raise self._too_large()
                parts.append(part)
                patience.deadline += len(part) / _LEAST_BYTES_PER_S
                more = message.get("more_body", False)
        if more:
            raise _RefusedBodyError(detail_response(408, "The request body did not come in time"))
        return {"type": "http.request", "body": b"".join(parts)}

    def _too_large(self) -> _RefusedBodyError:
        detail = f"Request body is larger than {self.max_bytes} bytes"
        return _RefusedBodyError(detail_response(413, detail))

    def hold(self, n_bytes: int) -> None:
        """Take some of the budget, or give some back. Raises `_RefusedBodyError` beyond it."""
        if n_bytes > 0 and self._held_bytes + n_bytes > self.max_held_bytes:
            detail = "too many large requests at the same time; try again shortly"
            raise _RefusedBodyError(detail_response(429, detail, retry_after_s=1))
        self._held_bytes += n_bytes


class _Held:
    """One request's part of the budget."""

    def __init__(self, limit: BodyLimit) -> None:
        self.n_bytes = 0
        self._limit = limit

    def take(self, n_bytes: int) -> None:
        self._limit.hold(n_bytes)
        self.n_bytes += n_bytes

    def give_back(self) -> None:
        self._limit.hold(-self.n_bytes)
        self.n_bytes = 0


class LingeringClose:
    """Reads and drops, for a while, what a client still sends when it is answered already.

    A connection that is closed with bytes unread is reset, and a client that reads only after it
    has sent everything would lose its answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of the answer at once; the connection stays open for the rest of the request."""
        if scope["type"] != "http" or not _has_body(scope):
            await self.app(scope, receive, send)
            return
        has_ended = owes_end = False

        async def watched() -> Message:
            nonlocal has_ended
            message = await receive()
            has_ended = not message.get("more_body", False)
            return message

        async def send_all_but_the_end(message: Message) -> None:
            nonlocal owes_end
            is_last = message["type"] == "http.response.body" and not message.get("more_body")
            owes_end = is_last and not has_ended
            await send({**message, "more_body": True} if owes_end else message)

        await self.app(scope, watched, send_all_but_the_end)
        if owes_end:
            with anyio.move_on_after(_LINGER_S):
                is_idle = False
                while not (has_ended or is_idle):
                    with anyio.move_on_after(_LINGER_IDLE_S) as patience:
                        await watched()
                    is_idle = patience.cancelled_caught
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def declared_bytes(scope: Scope) -> int:
    """The `Content-Length` of a request; 0 without one."""
    declared = next((v for n, v in scope["headers"] if n == b"content-length"), b"")
    return int(declared[:20]) if declared.isdigit() else 0


def _has_body(scope: Scope) -> bool:
    return declared_bytes(scope) > 0 or any(n == b"transfer-encoding" for n, _ in scope["headers"])


def _replayed(body: Message, receive: Receive) -> Receive:
    """A `receive` that gives the body first."""
    remaining = [body]

    async def replay() -> Message:
        return remaining.pop() if remaining else await receive()

    return replay
