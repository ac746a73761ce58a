"""Serves MCP over streamable HTTP, stateless: a restart of the server breaks no client."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.datastructures import Headers as RequestHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_server.client import NAMESPACE_HEADER, FaissClient, Headers
from mcp_server.server import CALLERS_HEADERS, client_from_environment, create_server
from mcp_server.settings import BridgeSettings
from wire.addresses import LOOPBACK_HOSTS
from wire.limits import BODY_BYTES


class McpApp:
    """An ASGI endpoint that speaks MCP whatever its path. Run it inside `running()`.

    Who may call it is for the application around it to decide.
    """

    def __init__(
        self,
        open_client: Callable[[], FaissClient],
        *,
        headers_of: Callable[[Scope], Headers],
        max_body_bytes: int = BODY_BYTES,
    ) -> None:
        """Answer nothing yet.

        Args:
            open_client: makes the client of the service.
            headers_of: those with which a request's tools call the service.
            max_body_bytes: larger requests are refused with 413.
        """
        self._open_client = open_client
        self._headers_of = headers_of
        self._max_body_bytes = max_body_bytes
        self._sessions: StreamableHTTPSessionManager | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Accept requests. Enter and leave it in one task, an ASGI lifespan for instance."""
        # A session manager runs once and belongs to its event loop, so each start makes its own.
        sessions = StreamableHTTPSessionManager(
            create_server(self._open_client),
            stateless=True,
            json_response=True,
            max_request_body_size=self._max_body_bytes,
            security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        async with sessions.run():
            self._sessions = sessions
            try:
                yield
            finally:
                self._sessions = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        app: ASGIApp
        if scope["method"] != "POST":
            # Without sessions there is no stream to open and none to end.
            headers = {"Allow": "POST"}
            app = JSONResponse({"detail": "Method Not Allowed"}, 405, headers=headers)
        elif self._sessions is None:
            app = JSONResponse({"detail": "Not ready yet"}, 503, headers={"Retry-After": "1"})
        else:
            scope[CALLERS_HEADERS] = self._headers_of(scope)
            app = self._sessions.handle_request
        await app(scope, receive, send)


async def refuse_sse(_: Request) -> JSONResponse:
    """What clients of the transport before streamable HTTP get at `/sse`: where to go instead."""
    detail = (
        "MCP over SSE is not spoken here: give your client the URL that ends with /mcp "
        "(streamable HTTP), or let it start faiss-memory-mcp (stdio)"
    )
    return JSONResponse({"detail": detail}, 404)


def create_mcp_app(
    service: ASGIApp,
    *,
    headers_of: Callable[[Scope], Headers],
    base_url: str = "http://localhost:8900",
    max_body_bytes: int = BODY_BYTES,
) -> McpApp:
    """An endpoint inside the service itself: tools call its routes without a network hop.

    Args:
        service: the application whose routes the tools call, this endpoint's own one included.
        headers_of: those that make a tool's call one of the caller of a request.
        base_url: what those calls are addressed to; its host must be one the service allows.
        max_body_bytes: larger requests are refused with 413.
    """

    def open_client() -> FaissClient:
        settings = BridgeSettings(
            faiss_url=base_url, faiss_api_key=SecretStr(""), faiss_namespace=""
        )
        transport = httpx.ASGITransport(service, raise_app_exceptions=False)
        return FaissClient(settings, transport=transport)

    return McpApp(open_client, headers_of=headers_of, max_body_bytes=max_body_bytes)


class Guard:
    """Refuses strangers: wrong key, another website's page, a rebound host name."""

    def __init__(self, app: ASGIApp, *, api_key: str) -> None:
        self._app = app
        self._api_key = api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        # A client that has no key yet looks there for how to get one.
        is_open = scope["type"] != "http" or scope["path"].startswith("/.well-known/")
        refusal = None if is_open else self._refusal(RequestHeaders(scope=scope))
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, headers: RequestHeaders) -> JSONResponse | None:
        host = headers.get("host", "")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return JSONResponse({"detail": "Origin not allowed"}, 403)
        if not self._api_key:
            # Without a key only this machine is served, and only under its own names.
            if urlsplit(f"//{host}").hostname not in LOOPBACK_HOSTS:
                return JSONResponse({"detail": "Host not allowed"}, 400)
            return None
        given = headers.get("x-api-key") or _bearer(headers.get("authorization", ""))
        if not secrets.compare_digest(given.encode(), self._api_key):
            challenge = {"WWW-Authenticate": "Bearer"}
            return JSONResponse({"detail": "Invalid or missing API key"}, 401, challenge)
        return None


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _namespace_in_path(scope: Scope) -> Headers:
    """`/mcp/<namespace>`; it wins over `FAISS_NAMESPACE`, as a path does over all but a key."""
    namespace = scope["path_params"].get("namespace")
    return [(NAMESPACE_HEADER, namespace.encode("latin-1", "replace"))] if namespace else []


def standalone_app(
    open_client: Callable[[], FaissClient] = client_from_environment, *, api_key: str
) -> ASGIApp:
    """The bridge as an application of its own, at `/mcp`; callers present the service's key."""
    mcp_app = McpApp(open_client, headers_of=_namespace_in_path)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with mcp_app.running():
            yield

    routes = [
        Route("/mcp", endpoint=mcp_app),
        Route("/mcp/{namespace}", endpoint=mcp_app),
        Route("/sse", refuse_sse, methods=["GET", "POST"]),
    ]
    app = Starlette(routes=routes, lifespan=lifespan)
    return Guard(app, api_key=api_key)


def serve_http(*, host: str, port: int) -> None:
    """Serve until interrupted.

    Raises:
        ValueError: a non-loopback host without a key, or settings that cannot be used.
    """
    import uvicorn

    api_key = BridgeSettings().faiss_api_key.get_secret_value()
    if not api_key and host not in LOOPBACK_HOSTS:
        raise ValueError(
            f"refusing to listen on {host} without a key: everyone who reaches it could read and "
            "change the memories. Set FAISS_API_KEY, and API_KEY of the service to the same."
        )
    uvicorn.run(standalone_app(api_key=api_key), host=host, port=port, log_level="warning")
