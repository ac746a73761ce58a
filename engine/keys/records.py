"""What a key is and may do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypedDict

from engine.namespaces import EVERY, is_covered

Scope = Literal["read", "write", "admin"]
SCOPES: Final[tuple[Scope, ...]] = ("read", "write", "admin")
"""Each may do all that those before it may."""

ROOT_ID: Final = "root"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key without its secret."""

    id: str
    """Names it in lists and logs; its text holds it."""
    digest: bytes = field(repr=False)
    """SHA-256 of its text."""
    name: str
    scopes: tuple[Scope, ...]
    namespaces: tuple[str, ...]
    """Globs of those it may use."""
    created_us: int
    """Microseconds since the epoch."""
    expires_us: int | None = None
    """From then on it is refused."""
    max_memories: int | None = None
    writes_per_minute: int | None = None
    last_used_us: int | None = None
    """To about a minute."""

    @property
    def binding(self) -> str | None:
        """The namespace of every call with it, when there is but one that it may use."""
        [first, *others] = self.namespaces
        return None if others or first.endswith(EVERY) else first

    @property
    def is_of_all(self) -> bool:
        """Whether it may use every namespace."""
        return EVERY in self.namespaces

    def has_expired(self, now_us: int) -> bool:
        """Whether its time is over."""
        return self.expires_us is not None and self.expires_us <= now_us

    def has_scope(self, scope: Scope) -> bool:
        """Whether it may do what needs a scope."""
        return max(map(SCOPES.index, self.scopes)) >= SCOPES.index(scope)

    def may_use(self, namespace: str) -> bool:
        """Whether it may be used in a namespace."""
        return is_covered(namespace, self.namespaces)


class KeyChanges(TypedDict, total=False):
    """What a change gives a key; what is not named stays."""

    name: str
    scopes: tuple[Scope, ...]
    namespaces: tuple[str, ...]
    expires_us: int | None
    max_memories: int | None
    writes_per_minute: int | None


class RingVersion(NamedTuple):
    """A state of all keys: which process has counted, and how many changes."""

    counted_by: str = ""
    n_changes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RingChange:
    """What makes one state of all keys the one of `version`."""

    version: RingVersion
    keys: list[Key]
    """Those that are new or changed; all, when `is_whole`."""
    revoked: list[str]
    """Ids."""
    is_whole: bool
    """Whatever else was known is void."""
