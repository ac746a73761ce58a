"""What requests say of namespaces, and what is answered of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import Self, TypedDict

from wire import limits
from wire.memory import Id, Input

Namespace = Annotated[str, StringConstraints(pattern=limits.NAMESPACE)]


class RenameRequest(Input):
    """What a namespace is to be called."""

    to: Annotated[Namespace, Field(description="A name that no namespace has.")]


class MoveRequest(Input):
    """Which memories go where: those of `ids`, or all whose source begins with `source_prefix`."""

    to: Annotated[Namespace, Field(description="The namespace that they are in then.")]
    ids: list[Id] | None = Field(None, min_length=1, max_length=limits.MAX_DELETED)
    source_prefix: str | None = Field(None, min_length=1, max_length=limits.SOURCE_CHARS)

    @model_validator(mode="after")
    def _names_either(self) -> Self:
        if (self.ids is None) == (self.source_prefix is None):
            raise PydanticCustomError("either", "Give ids or source_prefix, and not both")
        return self


class NamespaceOut(TypedDict):
    """A namespace."""

    name: str
    memories: int
    last_updated: str | None


class NamespacesAnswer(TypedDict):
    """The namespaces that the caller may use, by name."""

    namespaces: list[NamespaceOut]
    count: int


class RenamedAnswer(TypedDict):
    """What a namespace was called, and is."""

    success: bool
    renamed: str
    to: str


class NamespaceDeletedAnswer(TypedDict):
    """Which namespace is gone, and how many memories with it."""

    success: bool
    deleted: str
    deleted_count: int


class MovedAnswer(TypedDict):
    """How many memories were moved, and which ids were not there."""

    success: bool
    moved_count: int
    missing: list[int]
