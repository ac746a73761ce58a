"""Who makes a call, and in which namespace: decided once, by the guard, before any route."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Scope

from engine.errors import KeyWithdrawnError
from engine.keys.records import Key
from engine.keys.records import Scope as KeyScope
from engine.namespaces import EVERY
from engine.operations.operation import Within
from engine.operations.reads import Among
from engine.records import MemoryQuota

CALLER_KEY = "faiss_memory.caller"
NAMESPACE_HEADER = "X-Memory-Namespace"


@dataclass(frozen=True, slots=True)
class Caller:
    """A key that is valid now, and the namespace that the call is for."""

    key: Key
    namespace: str
    current: Callable[[], Key | None]
    """What the key is by now; None once it is revoked or has expired."""

    def check_still(self, scope: KeyScope) -> None:
        """Refuse to go on with a stream that began when the key still allowed it.

        Raises:
            KeyWithdrawnError: it no longer does.
        """
        key = self.current()
        if key is None or not (key.has_scope(scope) and key.may_use(self.namespace)):
            raise KeyWithdrawnError("the key was revoked, changed or has expired meanwhile")

    def check_scope(self, scope: KeyScope) -> None:
        """Refuse, with 403, what the key may not do."""
        if not self.key.has_scope(scope):
            raise HTTPException(403, f"This key may not do what needs the scope '{scope}'")

    def check_namespace(self, namespace: str) -> None:
        """Refuse, with 403, a namespace that the key may not use, whether or not it exists."""
        if not self.key.may_use(namespace):
            raise HTTPException(403, may_not_use(namespace))

    def check_all(self) -> None:
        """Refuse, with 403, a key that may not use every namespace."""
        if not self.key.is_of_all:
            raise HTTPException(403, "This is for keys that may use every namespace ('*')")


def may_not_use(namespace: str) -> str:
    """What a caller is told of a namespace that its key may not use."""
    return f"This key may not use namespace '{namespace}'"


def caller_of(request: Request) -> Caller:
    """Who makes a request to a route that is not open to everybody."""
    return cast(Caller, request.scope[CALLER_KEY])


def within(request: Request) -> Within:
    """Whose memories a request concerns, and how many there may be. Raises 403."""
    caller = caller_of(request)
    caller.check_namespace(caller.namespace)
    key, quota = caller.key, None
    if key.max_memories is not None:
        quota = MemoryQuota(max_memories=key.max_memories, namespaces=key.namespaces)
    return Within(caller.namespace, quota)


def among(request: Request, asked: Sequence[str]) -> Among:
    """Whose memories a request concerns that names several. Raises 403 for one by its name."""
    caller = caller_of(request)
    for glob in asked:
        if not glob.endswith(EVERY):
            caller.check_namespace(glob)
    return Among(tuple(asked), caller.key.namespaces)


def known_caller(scope: Scope) -> Caller | None:
    """Who makes a request, if its caller presented a key or needs none."""
    return cast("Caller | None", scope.get(CALLER_KEY))
