"""Who may call, and with how much: pure ASGI, before anything of a body is parsed.

The order is fixed: Host (DNS rebinding), Origin (other sites' pages), API key, body size.
"""

from __future__ import annotations

import hmac

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.http_errors import detail_response
from deployments.ingress_settings import IngressSettings

_OPEN_PATHS = frozenset({"/health", "/docs", "/redoc", "/openapi.json"})
_OPEN_PREFIXES = ("/health/", "/docs/")

_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PATCH, DELETE",
    "Access-Control-Allow-Headers": (
        "Authorization, Content-Type, Idempotency-Key, X-API-Key, X-Request-ID"
    ),
    "Access-Control-Max-Age": "600",
}


def needs_key(path: str) -> bool:
    """Whether a path is closed to callers without the API key."""
    return path not in _OPEN_PATHS and not path.startswith(_OPEN_PREFIXES)


def host_name(authority: str) -> str:
    """The host of `host[:port]`, lower case, without port or trailing dot; IPv6 in brackets."""
    authority = authority.strip().lower()
    if authority.startswith("["):
        return authority.partition("]")[0] + "]"
    if authority.count(":") > 1:
        return f"[{authority}]"
    return authority.partition(":")[0].rstrip(".")


class AccessGuard:
    """Refuses strange hosts, other sites' pages and callers without the key."""

    def __init__(self, app: ASGIApp, settings: IngressSettings) -> None:
        self.app = app
        self.hosts = frozenset(map(host_name, settings.allowed_hosts))
        self.keys = _accepted_credentials(settings.api_key)
        self.origins = frozenset(
            origin.strip().lower().rstrip("/")
            for origin in (settings.public_url, *settings.cors_origins)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an allowed request on; answer any other."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        host = _header(scope, b"host")
        host_allowed = "*" in self.hosts or host_name(host) in self.hosts
        if not self.keys and not host_allowed:
            refusal = detail_response(400, "Host not allowed; add it to ALLOWED_HOSTS")
            await refusal(scope, receive, send)
            return
        origins = _header_values(scope, b"origin")
        if origins:
            own = f"{scope['scheme']}://{host.lower()}" if host_allowed else None
            if not all(self._origin_allowed(origin, own) for origin in origins):
                refusal = detail_response(403, "Origin not allowed; add it to CORS_ORIGINS")
                await refusal(scope, receive, send)
                return
            send = _with_cors(send, origins[0])
            if scope["method"] == "OPTIONS" and _header(scope, b"access-control-request-method"):
                await Response(status_code=204, headers=_PREFLIGHT)(scope, receive, send)
                return
        if self.keys and needs_key(scope["path"]) and not self._has_key(scope):
            await detail_response(401, "Invalid or missing API key")(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _origin_allowed(self, origin: str, own: str | None) -> bool:
        origin = origin.lower()
        return origin == own or origin in self.origins or "*" in self.origins

    def _has_key(self, scope: Scope) -> bool:
        for name, value in scope["headers"]:
            expected = self.keys.get(name)
            if expected is not None and hmac.compare_digest(value, expected):
                return True
        return False


class BodyLimit:
    """Reads a request's body once, whole, and never more of it than allowed."""

    def __init__(self, app: ASGIApp, settings: IngressSettings) -> None:
        self.app = app
        self.max_bytes = settings.max_body_bytes
        self.streamed_paths = settings.streamed_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the body on as one message; answer 413 as soon as it is too long."""
        if scope["type"] != "http" or scope["path"] in self.streamed_paths:
            await self.app(scope, receive, send)
            return
        declared = _header(scope, b"content-length")
        if declared.isdecimal() and int(declared[:20]) > self.max_bytes:
            await self._too_large()(scope, receive, send)
            return
        parts: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.max_bytes:
                await self._too_large()(scope, receive, send)
                return
            more = message.get("more_body", False)
        body: Message | None = {"type": "http.request", "body": b"".join(parts)}

        async def replay() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            message, body = body, None
            return message

        await self.app(scope, replay, send)

    def _too_large(self) -> Response:
        return detail_response(413, f"Request body is larger than {self.max_bytes} bytes")


def _header_values(scope: Scope, name: bytes) -> list[str]:
    return [v.decode("latin-1").strip() for n, v in scope["headers"] if n == name]


def _header(scope: Scope, name: bytes) -> str:
    return next(iter(_header_values(scope, name)), "")


def _accepted_credentials(api_key: str) -> dict[bytes, bytes]:
    """Header name to the value that carries the key; empty without a key."""
    if not api_key:
        return {}
    return {b"x-api-key": api_key.encode(), b"authorization": b"Bearer " + api_key.encode()}


def _with_cors(send: Send, origin: str) -> Send:
    """A `send` that lets the page of `origin` read the answer."""
    cors = [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", b"Retry-After, X-Request-ID"),
        (b"vary", b"Origin"),
    ]

    async def send_with_cors(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *cors]}
        await send(message)

    return send_with_cors
