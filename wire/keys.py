"""What requests say of keys, and what is answered of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from wire import limits
from wire.memory import Input
from wire.moments import Instant

Scope = Literal["read", "write", "admin"]


def _each_once(values: list[str]) -> list[str]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("repeated", "Must not name anything twice")
    return values


Name = Annotated[
    str,
    Field(
        min_length=1,
        max_length=limits.KEY_NAME_CHARS,
        description="Whose it is, for lists and logs.",
    ),
]
Scopes = Annotated[
    list[Scope],
    Field(
        min_length=1,
        max_length=3,
        description="What it may do; each may do what those before it may: read, write, admin.",
        json_schema_extra={"uniqueItems": True},
    ),
    AfterValidator(_each_once),
]
Globs = Annotated[
    list[Annotated[str, StringConstraints(pattern=limits.NAMESPACE_GLOB)]],
    Field(
        min_length=1,
        max_length=limits.MAX_GLOBS,
        description="Namespaces that it may use, like team.a, or team.* for all that begin so.",
        json_schema_extra={"uniqueItems": True},
    ),
    AfterValidator(_each_once),
]
Expiry = Annotated[Instant | None, Field(description="From then on it is refused.")]
MaxMemories = Annotated[
    int | None, Field(ge=0, le=limits.MAX_ID, description="Memories that its namespaces may hold.")
]
WritesPerMinute = Annotated[
    int | None,
    Field(ge=1, le=limits.MAX_WRITES_PER_MINUTE, description="Requests that change something."),
]


class NewKeyRequest(Input):
    """A key to make."""

    name: Name
    scopes: Scopes = Field(["read", "write"])
    namespaces: Globs = Field(["*"])
    expires_at: Expiry = None
    max_memories: MaxMemories = None
    writes_per_minute: WritesPerMinute = None


class KeyPatchRequest(Input):
    """Changes of a key; what is not named stays, and null takes a limit away."""

    name: Name | None = None
    scopes: Scopes | None = None
    namespaces: Globs | None = None
    expires_at: Expiry = None
    max_memories: MaxMemories = None
    writes_per_minute: WritesPerMinute = None


class KeyOut(TypedDict):
    """A key, without its text."""

    id: str
    name: str
    scopes: list[Scope]
    namespaces: list[str]
    expires_at: str | None
    max_memories: int | None
    writes_per_minute: int | None
    created_at: Annotated[str | None, Field(description="UTC ISO-8601; null for the root key.")]
    last_used_at: Annotated[str | None, Field(description="To about a minute; null for never.")]


class NewKeyAnswer(KeyOut):
    """A new key."""

    key: Annotated[
        str | None,
        Field(description="Its text, shown this once; null when this request made it before."),
    ]


class OwnKeyAnswer(KeyOut):
    """The key of the request."""

    namespace: Annotated[str, Field(description="The one that this request is for.")]


class KeysAnswer(TypedDict):
    """Keys that are not revoked, oldest first."""

    keys: list[KeyOut]
    count: int


class RevokedAnswer(TypedDict):
    """Which key is refused from now on."""

    success: bool
    revoked_id: str
