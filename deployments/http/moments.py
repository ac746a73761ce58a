"""Times in requests: ISO-8601 ones, and for filters days, months and words like `yesterday`."""

from __future__ import annotations

import re
from datetime import datetime, timezone, tzinfo
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationInfo
from pydantic_core import PydanticCustomError

from engine.times import microseconds, period_of

_ISO_8601 = re.compile(r"\d{4}-\d\d-\d\d([T ]|$)", re.IGNORECASE)
_PLUS_LOST = re.compile(r"(?<=\d[T ]\d\d:\d\d)(.*) (?=\d\d:?\d\d$)", re.IGNORECASE)


def _iso_8601(value: object) -> object:
    """Refuse epoch numbers, which pydantic would take; forgive a `+` that a URL made a space."""
    if not isinstance(value, str) or not _ISO_8601.match(value):
        raise PydanticCustomError("iso_8601", "Must be an ISO-8601 time, like 2026-01-31T12:00:00Z")
    return _PLUS_LOST.sub(r"\1+", value)


def _in_utc(value: datetime, zone: tzinfo = timezone.utc) -> datetime:
    try:
        return (value if value.tzinfo else value.replace(tzinfo=zone)).astimezone(timezone.utc)
    except OverflowError:
        raise PydanticCustomError(
            "iso_8601_range", "Must be within the years 1 to 9999 in UTC"
        ) from None


Instant = Annotated[
    datetime,
    BeforeValidator(_iso_8601, json_schema_input_type=datetime),
    AfterValidator(_in_utc),
    Field(description="ISO-8601; UTC when it names no zone."),
]

TimeZone = Annotated[
    ZoneInfo | None,
    Field(description="Whose days since and until name, like Europe/Berlin; null: UTC."),
]

_DATETIME = TypeAdapter(datetime)


def _period(value: object, info: ValidationInfo) -> tuple[int, int]:
    """First and last microsecond of what since or until names, in the request's zone."""
    zone = info.data.get("timezone") or timezone.utc
    name = value.strip().lower() if isinstance(value, str) else ""
    try:
        if period := period_of(name, zone=zone, now=datetime.now(timezone.utc)):
            return period
        instant = _DATETIME.validate_python(_iso_8601(value))
    except ValueError:
        raise PydanticCustomError(
            "time",
            "Must be a date, a month or an ISO-8601 time (2026-03-31, 2026-03, "
            "2026-03-31T12:00:00Z), today, yesterday, or so many days ago (7d)",
        ) from None
    at_us = microseconds(_in_utc(instant, zone))
    return at_us, at_us


def _first(value: object, info: ValidationInfo) -> int | None:
    return None if value is None else _period(value, info)[0]


def _last(value: object, info: ValidationInfo) -> int | None:
    return None if value is None else _period(value, info)[1]


Since = Annotated[
    int | None,
    BeforeValidator(_first, json_schema_input_type=str | None),
    Field(description="Created then or later: 2026-03-31, 2026-03, an ISO-8601 time, today, 7d."),
]
"""Microseconds since the epoch."""
Until = Annotated[
    int | None,
    BeforeValidator(_last, json_schema_input_type=str | None),
    Field(description="Created then or before, likewise; a day or a month counts whole."),
]
"""Likewise."""
