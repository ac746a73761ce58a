"""Who calls, and in which namespace: pure ASGI, before anything of a body is read.

A request has a valid key or none is needed. Its namespace is the first that speaks: the key's
binding, the path (`/ns/<namespace>/<any route>`, `/mcp/<namespace>`), the header
`X-Memory-Namespace`, `default`. What it may do there is for the route to declare.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import cast

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.http.callers import CALLER_KEY, NAMESPACE_HEADER, Caller, may_not_use
from deployments.http.errors import MAX_ECHO_CHARS, detail_response
from deployments.http.json_route import json_response
from deployments.http.middleware.guards import header_values
from deployments.http.needs import OpenPaths
from deployments.http.request_trace import TRACE_KEY, RequestTrace
from engine.errors import NotReadyError
from engine.keys.key_text import PREFIX
from engine.keys.records import Key
from engine.keys.ring import KeyRing
from engine.namespaces import DEFAULT, is_name
from wire.limits import NAMESPACE

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="faiss-memory"'}
_BELOW_NS = re.compile(r"/ns/([^/]*)(/.*)", re.DOTALL)
_BELOW_MCP = re.compile(r"(/mcp)/([^/]+)", re.DOTALL)

Place = tuple[str, str]
"""Where a namespace is named, as `loc` of an error: `("header", "X-Memory-Namespace")`."""


class KeyGuard:
    """Refuses callers without a key, and calls that name no namespace in which they can be."""

    def __init__(
        self, app: ASGIApp, ring: KeyRing, open_paths: OpenPaths, *, needs_key: bool
    ) -> None:
        """Guard an application.

        Args:
            app: is called with paths without their namespaces.
            ring: the keys.
            open_paths: those that need none.
            needs_key: whether there is a root key; without one whoever presents no key is it.
        """
        self.app = app
        self.ring = ring
        self.open_paths = open_paths
        self.needs_key = needs_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an allowed request on, its `Caller` in its scope; answer any other."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        named = [*_taken_from_path(scope), *_in_header(scope)]
        refusal = self._admit(scope, named)
        await (refusal or self.app)(scope, receive, send)

    def _admit(self, scope: Scope, named: list[tuple[Place, str]]) -> Response | None:
        """Put the caller into the scope, or return the refusal."""
        is_open = scope["path"] in self.open_paths
        try:
            key = self._key_of(scope)
        except NotReadyError as exc:
            return None if is_open else detail_response(503, str(exc), retry_after_s=2)
        if key is None:
            challenge = detail_response(401, "Invalid or missing API key", headers=_CHALLENGE)
            return None if is_open else challenge
        trace = cast("RequestTrace | None", scope.get(TRACE_KEY))
        if trace is not None and not is_open:
            trace.key = key.id
        namespace = DEFAULT if is_open else _chosen(key, named)
        if isinstance(namespace, Response):
            return namespace
        scope[CALLER_KEY] = Caller(key, namespace, lambda: self.ring.current(key, _now_us()))
        if trace is not None and not is_open:
            trace.namespace = namespace
        return None

    def _key_of(self, scope: Scope) -> Key | None:
        """The key of a request; the root key when none is needed and none presented."""
        texts = list(_presented(scope))
        for text in texts:
            if key := self.ring.key_of(text, _now_us()):
                return key
        # Without a root key other texts are ignored, as they always were; a revoked key never is.
        is_refused = self.needs_key or any(text.startswith(PREFIX) for text in texts)
        return None if is_refused else self.ring.root


def _now_us() -> int:
    return time.time_ns() // 1_000


def headers_of_caller(scope: Scope) -> list[tuple[bytes, bytes]]:
    """What makes another request one of the same caller in the same namespace."""
    given = [(n, v) for n, v in scope["headers"] if n in (b"x-api-key", b"authorization")]
    caller: Caller = scope[CALLER_KEY]
    return [*given, (NAMESPACE_HEADER.lower().encode(), caller.namespace.encode())]


def _presented(scope: Scope) -> Iterator[str]:
    """The texts of keys in a request's headers."""
    for name, value in scope["headers"]:
        scheme, _, credential = value.partition(b" ")
        if name == b"x-api-key" and value:
            yield value.decode("utf-8", "surrogateescape")
        elif name == b"authorization" and scheme.lower() == b"bearer" and credential.strip():
            yield credential.strip().decode("utf-8", "surrogateescape")


def _taken_from_path(scope: Scope) -> Iterator[tuple[Place, str]]:
    """The namespaces in the path, which is then the one of a route."""
    if found := _BELOW_NS.fullmatch(scope["path"]):
        scope["path"] = found[2]
        yield ("path", "namespace"), found[1]
    if found := _BELOW_MCP.fullmatch(scope["path"]):
        scope["path"] = found[1]
        yield ("path", "namespace"), found[2]


def _in_header(scope: Scope) -> Iterator[tuple[Place, str]]:
    for name in header_values(scope, NAMESPACE_HEADER.lower().encode()):
        yield ("header", NAMESPACE_HEADER), name


def _chosen(key: Key, named: list[tuple[Place, str]]) -> str | Response:
    """The namespace of a call, or the refusal."""
    names = list(dict.fromkeys(name for _, name in named))
    for place, name in named:
        if not is_name(name):
            return _invalid(place, name)
    if len(names) > 1:
        return detail_response(
            400, f"Path and header name different namespaces: {', '.join(names)}"
        )
    if key.binding is None:
        return names[0] if names else DEFAULT
    if names and names[0] != key.binding:
        return detail_response(403, may_not_use(names[0]))
    return key.binding


def _invalid(place: Place, name: str) -> Response:
    problem = {
        "type": "namespace",
        "loc": place,
        "msg": f"A namespace is written like {NAMESPACE}",
        "input": name[:MAX_ECHO_CHARS].encode("utf-8", "replace").decode(),
    }
    return json_response({"detail": [problem]}, status=422)
