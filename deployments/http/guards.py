"""Who may call: pure ASGI, before anything of a body is read.

The order is fixed: Host (DNS rebinding), Origin and Sec-Fetch-Site (other sites' pages), API key.
"""

from __future__ import annotations

import hmac

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.http.errors import detail_response
from deployments.ingress_settings import IngressSettings

_OPEN_PATHS = frozenset({"/health", "/docs", "/redoc", "/openapi.json", "/openapi-gpt.json"})
_OPEN_PREFIXES = ("/health/", "/docs/", "/.well-known/")
"""Nothing is below `/.well-known/`: MCP hosts that look there for OAuth must see that, not 401."""
_OWN_SITES = frozenset({"same-origin", "none"})
"""`Sec-Fetch-Site` of the service's own pages, and of what a person typed or bookmarked."""
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="faiss-memory"'}

_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PATCH, DELETE",
    "Access-Control-Allow-Headers": (
        "Authorization, Content-Type, Idempotency-Key, X-API-Key, X-Request-ID"
    ),
    "Access-Control-Max-Age": "600",
}


def is_open(path: str) -> bool:
    """Whether callers without the API key get an answer; these paths take no body."""
    return path in _OPEN_PATHS or path.startswith(_OPEN_PREFIXES)


def needs_key(path: str) -> bool:
    """Whether a path is closed to callers without the API key."""
    return not is_open(path)


def host_name(authority: str) -> str:
    """The host of `host[:port]`, lower case, without port or trailing dot; IPv6 in brackets."""
    authority = authority.strip().lower()
    if authority.startswith("["):
        return authority.partition("]")[0] + "]"
    if authority.count(":") > 1:
        return f"[{authority}]"
    return authority.partition(":")[0].rstrip(".")


HAS_KEY = "has_key"
"""In the scope of a request: whether its caller may know more than that the service is there."""


class AccessGuard:
    """Refuses strange hosts, other sites' pages and callers without the key."""

    def __init__(self, app: ASGIApp, settings: IngressSettings) -> None:
        self.app = app
        self.hosts = frozenset(map(host_name, settings.allowed_hosts))
        self.key = settings.api_key.encode()
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
        if not self.key and not host_allowed:
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
        elif self._is_of_another_site(scope):
            refusal = detail_response(403, "Pages of other sites may not call")
            await refusal(scope, receive, send)
            return
        scope[HAS_KEY] = not self.key or self._has_key(scope)
        if needs_key(scope["path"]) and not scope[HAS_KEY]:
            refusal = detail_response(401, "Invalid or missing API key", headers=_CHALLENGE)
            await refusal(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _origin_allowed(self, origin: str, own: str | None) -> bool:
        origin = origin.lower()
        return origin == own or origin in self.origins or "*" in self.origins

    def _is_of_another_site(self, scope: Scope) -> bool:
        """Whether a page elsewhere asks in a way that names no `Origin`: an image, a script.

        A link to an open page may be followed.
        """
        sites = _header_values(scope, b"sec-fetch-site")
        if "*" in self.origins or all(site.lower() in _OWN_SITES for site in sites):
            return False
        is_link = _header(scope, b"sec-fetch-dest").lower() == "document"
        is_page = scope["path"] == "/" or is_open(scope["path"])
        return not (is_link and is_page and scope["method"] == "GET")

    def _has_key(self, scope: Scope) -> bool:
        return any(
            hmac.compare_digest(_credential(name, value), self.key)
            for name, value in scope["headers"]
        )


def _credential(name: bytes, value: bytes) -> bytes:
    """The key that a header carries; empty for one that carries none."""
    if name == b"x-api-key":
        return value
    scheme, _, credential = value.partition(b" ")
    is_bearer = name == b"authorization" and scheme.lower() == b"bearer"
    return credential.strip() if is_bearer else b""


def _header_values(scope: Scope, name: bytes) -> list[str]:
    return [v.decode("latin-1").strip() for n, v in scope["headers"] if n == name]


def _header(scope: Scope, name: bytes) -> str:
    return next(iter(_header_values(scope, name)), "")


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
