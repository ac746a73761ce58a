"""From where calls may come: pure ASGI, before anything of a body is read.

The order is fixed: Host (DNS rebinding), Origin and Sec-Fetch-Site (other sites' pages).
"""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.http.errors import detail_response
from deployments.http.needs import OpenPaths
from deployments.ingress_settings import IngressSettings

_OWN_SITES = frozenset({"same-origin", "none"})
"""`Sec-Fetch-Site` of the service's own pages, and of what a person typed or bookmarked."""

_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PATCH, DELETE",
    "Access-Control-Allow-Headers": (
        "Authorization, Content-Type, Idempotency-Key, X-API-Key, X-Memory-Namespace, X-Request-ID"
    ),
    "Access-Control-Max-Age": "600",
}


def host_name(authority: str) -> str:
    """The host of `host[:port]`, lower case, without port or trailing dot; IPv6 in brackets."""
    authority = authority.strip().lower()
    if authority.startswith("["):
        return authority.partition("]")[0] + "]"
    if authority.count(":") > 1:
        return f"[{authority}]"
    return authority.partition(":")[0].rstrip(".")


class SiteGuard:
    """Refuses strange hosts and other sites' pages."""

    def __init__(self, app: ASGIApp, settings: IngressSettings, open_paths: OpenPaths) -> None:
        self.app = app
        self.hosts = frozenset(map(host_name, settings.allowed_hosts))
        self.has_key = bool(settings.api_key)
        self.open_paths = open_paths
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
        if not self.has_key and not host_allowed:
            refusal = detail_response(400, "Host not allowed; add it to ALLOWED_HOSTS")
            await refusal(scope, receive, send)
            return
        origins = header_values(scope, b"origin")
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
        await self.app(scope, receive, send)

    def _origin_allowed(self, origin: str, own: str | None) -> bool:
        origin = origin.lower()
        return origin == own or origin in self.origins or "*" in self.origins

    def _is_of_another_site(self, scope: Scope) -> bool:
        """Whether a page elsewhere asks in a way that names no `Origin`: an image, a script.

        A link to an open page may be followed.
        """
        sites = header_values(scope, b"sec-fetch-site")
        if "*" in self.origins or all(site.lower() in _OWN_SITES for site in sites):
            return False
        is_link = _header(scope, b"sec-fetch-dest").lower() == "document"
        is_page = scope["path"] == "/" or scope["path"] in self.open_paths
        return not (is_link and is_page and scope["method"] == "GET")


def header_values(scope: Scope, name: bytes) -> list[str]:
    """The values of all headers of a name, which is given in lower case."""
    return [v.decode("latin-1").strip() for n, v in scope["headers"] if n == name]


def _header(scope: Scope, name: bytes) -> str:
    return next(iter(header_values(scope, name)), "")


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
