"""What readers hand on, and what they are told."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, TypeAlias

from scripts.cli.readers.secrets import Secrets

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_NUMBER = re.compile(r"\d{9,13}(\.\d*)?")
_LEAST_SECONDS = 1e8
"""A smaller number counts something else."""
_LEAST_MILLISECONDS = 1e11
"""In seconds that is the year 5138."""


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
    secrets: Secrets | None = None
    """Takes them out of texts; None leaves texts as they are."""


TEXT_NAMES = ("text", "content", "memory", "note", "body", "document")
"""What programs call the text of a memory; the first one that there is counts."""


def moment(value: object) -> str | None:
    """A time as `POST /import` takes it, from ISO-8601 or from (milli)seconds since the epoch.

    None when it is none.
    """
    try:
        if isinstance(value, str) and not _NUMBER.fullmatch(value):
            return datetime.fromisoformat(value.strip().replace("Z", "+00:00")).isoformat()
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            return None
        seconds = float(value)
        if seconds < _LEAST_SECONDS:
            return None
        if seconds >= _LEAST_MILLISECONDS:
            seconds /= 1000
        return (_EPOCH + timedelta(seconds=seconds)).isoformat()
    except (ValueError, OverflowError):
        return None


def times(row: Mapping[str, object]) -> dict[str, str]:
    """When a memory was made and changed, as `POST /import` takes it, where its row says so."""
    found = {
        "timestamp": moment(row.get("timestamp")) or moment(row.get("created_at")),
        "updated_at": moment(row.get("updated_at")),
    }
    return {name: time for name, time in found.items() if time is not None}


def content_key(kind: str, text: str) -> str:
    """A key of a memory that has no id of its own: the same text, the same memory."""
    return f"{kind}:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"
