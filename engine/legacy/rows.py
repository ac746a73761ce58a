"""The memories in an original `metadata.json`: each row taken as it is, or refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from engine.records import MemoryId

_MAX_ID = 2**53 - 1
_OWN_KEYS = frozenset({"id", "text", "source", "timestamp"})
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# Wider than what Python 3.10 parses: any number of decimals, `Z`, a date alone.
_TIMESTAMP = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:[T ](?P<minute>\d\d:\d\d)(?P<second>:\d\d)?(?:[.,](?P<fraction>\d{1,9}))?)?"
    r" ?(?:[Zz]|(?P<hours>[+-]\d\d):?(?P<minutes>\d\d))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyMemory:
    """A memory as the original service kept it."""

    id: MemoryId
    text: str
    source: str
    timestamp_us: int
    """Microseconds since the epoch."""
    metadata: dict[str, Any]


class RowRefusedError(Exception):
    """What is wrong with the first bad row, for people; never leaves the engine."""


def read_rows(rows: Iterable[object], *, default_time_us: int) -> list[LegacyMemory]:
    """Check every row and take it over.

    Args:
        rows: decoded JSON.
        default_time_us: for a row whose timestamp is missing or null.

    Raises:
        RowRefusedError: names the first row that is not a memory, or that repeats an id.
    """
    memories: list[LegacyMemory] = []
    row_of: dict[int, int] = {}
    for n, row in enumerate(rows):
        memory = _read_row(n, row, default_time_us)
        if (first := row_of.setdefault(memory.id, n)) != n:
            raise RowRefusedError(f"row {n}: id {memory.id} is that of row {first} too")
        memories.append(memory)
    return memories


def _read_row(n: int, row: object, default_time_us: int) -> LegacyMemory:
    if not isinstance(row, dict):
        raise RowRefusedError(f"row {n} is {type(row).__name__}, expected an object")
    memory_id = row.get("id")
    if type(memory_id) is not int or not 0 <= memory_id <= _MAX_ID:
        raise _odd(n, row, "id", "an integer from 0 to 2^53 - 1")
    for key in ("text", "source"):
        if not isinstance(row.get(key), str):
            raise _odd(n, row, key, "a string")
    try:
        json.dumps(row, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise RowRefusedError(f"row {n} holds a lone surrogate, which is no text") from None
    except RecursionError:
        raise RowRefusedError(f"row {n} is nested too deeply") from None
    except ValueError:
        raise RowRefusedError(f"row {n} holds NaN or Infinity, which JSON has not") from None
    timestamp_us: int | None = default_time_us
    if row.get("timestamp") is not None:
        timestamp_us = _timestamp_us(row["timestamp"])
    if timestamp_us is None:
        raise _odd(n, row, "timestamp", "an ISO-8601 time")
    return LegacyMemory(
        id=MemoryId(memory_id),
        text=row["text"],
        source=row["source"],
        timestamp_us=timestamp_us,
        metadata={key: value for key, value in row.items() if key not in _OWN_KEYS},
    )


def _odd(n: int, row: dict[str, Any], key: str, expected: str) -> RowRefusedError:
    if key not in row:
        found = "is missing"
    elif key == "text":  # someone's memory, whatever its type: not for a log
        found = f"is {type(row[key]).__name__}"
    else:
        found = f"is {row[key]!r:.100}"
    return RowRefusedError(f"row {n}: '{key}' {found}, expected {expected}")


def _timestamp_us(value: object) -> int | None:
    match = _TIMESTAMP.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return None
    time = f"{match['minute'] or '00:00'}{match['second'] or ':00'}"
    micros = (match["fraction"] or "")[:6].ljust(6, "0")
    zone = f"{match['hours']}:{match['minutes']}" if match["hours"] else "+00:00"
    try:
        parsed = datetime.fromisoformat(f"{match['date']}T{time}.{micros}{zone}")
        return (parsed.astimezone(timezone.utc) - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return None
