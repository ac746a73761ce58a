"""What readers hand on, and what they are told."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A memory to import."""

    line: dict[str, Any]
    """As `POST /import` takes it."""
    origin: str
    """Where it was read, for messages."""
    header: dict[str, Any] | None = None
    """Of the export that it was read from: it says which model made the embedding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A place where a memory should be and cannot be read."""

    origin: str
    reason: str


Record: TypeAlias = Memory | Unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How files are to be read."""

    source: str | None = None
    """Put before every source in the place of what the file's name gives."""
    text_column: str | None = None
    source_column: str | None = None
    key_column: str | None = None


def content_key(kind: str, text: str) -> str:
    """A key of a memory that has no id of its own: the same text, the same memory."""
    return f"{kind}:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"
