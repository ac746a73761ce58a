"""What a route needs of its caller, declared once, where the route is.

```
@router.get("/memories", …)
@needs(READ)
async def list_memories(…)
```

An application with a route that declares nothing does not start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from starlette.requests import Request
from starlette.routing import BaseRoute, Mount, Route

from deployments.http.callers import Caller, caller_of
from deployments.http.services import services_of
from engine.keys.records import Scope
from engine.operations.keys import AdmitWrite

Endpoint = TypeVar("Endpoint")

_ATTRIBUTE: Final = "__needs__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """A scope, and where the key must have it."""

    scope: Scope | None = None
    of: Literal["call", "call or named", "named", "all"] = "named"
    """Namespaces that the key must be allowed to use: the call's own, or those which the route
    finds named and checks itself, or all."""
    is_open: bool = False
    """Whether no key is needed."""

    def check(self, caller: Caller) -> None:
        """Refuse, with 403, a caller whose key does not have it."""
        if self.scope is not None:
            caller.check_scope(self.scope)
        if self.of == "call":
            caller.check_namespace(caller.namespace)
        elif self.of == "all":
            caller.check_all()


OPEN: Final = Needs(is_open=True)
"""No key. The path has no parameters, and nothing of a body is read."""
VALID_KEY: Final = Needs()
READ: Final = Needs(scope="read", of="call")
WRITE: Final = Needs(scope="write", of="call")
ADMIN: Final = Needs(scope="admin", of="call")
READ_SEVERAL: Final = Needs(scope="read", of="call or named")
READ_NAMED: Final = Needs(scope="read")
ADMIN_NAMED: Final = Needs(scope="admin")
READ_ALL: Final = Needs(scope="read", of="all")
ADMIN_ALL: Final = Needs(scope="admin", of="all")


def needs(what: Needs) -> Callable[[Endpoint], Endpoint]:
    """Declare what a route's endpoint needs."""

    def declared(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _ATTRIBUTE, what)
        return endpoint

    return declared


def needs_of(endpoint: object, path: str) -> Needs:
    """What an endpoint needs. Raises `TypeError` when it does not say."""
    declared: Needs | None = getattr(endpoint, _ATTRIBUTE, None)
    if declared is None:
        raise TypeError(f"the route {path} does not declare what it needs: see {__name__}")
    return declared


def declared_needs(routes: Iterable[BaseRoute]) -> Iterator[tuple[Route | Mount, Needs]]:
    """Every route of an application, included routers' too, and what it needs.

    Raises:
        TypeError: one does not say, or says what nothing would check.
    """
    for route in routes:
        included: Any = getattr(route, "original_router", None)  # FastAPI's, without a public name
        if included is not None:
            yield from declared_needs(included.routes)
            continue
        if not isinstance(route, Route | Mount):
            raise TypeError(f"{route} is no route that could declare what it needs")
        endpoint = route.endpoint if isinstance(route, Route) else route.app
        what = needs_of(endpoint, route.path)
        if not (what.is_open or what == VALID_KEY or hasattr(route, "checks_needs")):
            raise TypeError(f"nothing checks what the route {route.path} needs")
        if what.is_open and "{" in route.path:
            raise TypeError(f"the route {route.path} is open, and has parameters")
        yield route, what


class OpenPaths:
    """The paths that are answered without a key, as their routes declare."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        """Look at every route. Raises `TypeError` as `declared_needs` does."""
        declared = [route for route, what in declared_needs(routes) if what.is_open]
        self._paths = frozenset(route.path for route in declared if isinstance(route, Route))
        mounted = [f"{route.path}/" for route in declared if isinstance(route, Mount)]
        # Nothing is there: MCP hosts that look for OAuth must see that, not 401.
        self._prefixes = ("/.well-known/", *mounted)

    def __contains__(self, path: str) -> bool:
        return path in self._paths or path.startswith(self._prefixes)


async def check_request(request: Request, what: Needs) -> None:
    """Refuse a request whose caller may not make it, or not so often.

    Raises:
        HTTPException: 403.
        RateLimitedError: the key has written as often as it may.
    """
    if what.is_open:
        return
    caller = caller_of(request)
    what.check(caller)
    is_write = request.method != "GET" and what.scope in ("write", "admin")
    if is_write and caller.key.writes_per_minute is not None:
        await services_of(request).index.ask(AdmitWrite(caller.key.id))
