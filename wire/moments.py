"""Times in requests: ISO-8601 ones, and for filters days, months and words like `yesterday`."""

from __future__ import annotations

import re
from datetime import datetime, timezone, tzinfo
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from wire.times import microseconds, period_of

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

_YEAR = "[1-9][0-9]{3}"
_LEAP_YEAR = "([1-9][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|[13579][26])00)"
_DAY = (
    f"({_YEAR}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
    f"|{_YEAR}-(0[13-9]|1[0-2])-(29|30)|{_YEAR}-(0[13578]|1[02])-31|{_LEAP_YEAR}-02-29)"
)
_TIME = "([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]{1,6})?)?"
_OFFSET = "([Zz]|[+-](0[0-9]|1[0-4]):?[0-5][0-9])"
_NAMED = "[Tt]oday|[Yy]esterday|[0-9]{1,5}d"
# Told to clients, not asked of them: more is understood. Simple enough for every dialect.
MOMENT_PATTERN = f"^({_DAY}([Tt ]{_TIME}{_OFFSET}?)?|{_YEAR}-(0[1-9]|1[0-2])|{_NAMED})$"
ZONE_PATTERN = "^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$"


def _told(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern})


TimeZone = Annotated[
    Annotated[ZoneInfo, _told(ZONE_PATTERN)] | None,
    Field(description="Whose days since and until name, like Europe/Berlin; null: UTC."),
]

_DATETIME = TypeAdapter(datetime)


def period(name: object, zone: tzinfo | None) -> tuple[int, int]:
    """First and last microsecond, since the epoch, of what since or until names.

    Args:
        name: as `wire.times.period_of` knows them, or an ISO-8601 time.
        zone: whose days those are; None: UTC.

    Raises:
        PydanticCustomError: it names no time.
    """
    zone = zone or timezone.utc
    word = name.strip().lower() if isinstance(name, str) else ""
    try:
        if found := period_of(word, zone=zone, now=datetime.now(timezone.utc)):
            return found
        instant = _DATETIME.validate_python(_iso_8601(name))
    except ValueError:
        raise PydanticCustomError(
            "time",
            "Must be a date, a month or an ISO-8601 time (2026-03-31, 2026-03, "
            "2026-03-31T12:00:00Z), today, yesterday, or so many days ago (7d)",
        ) from None
    at_us = microseconds(_in_utc(instant, zone))
    return at_us, at_us


def _named(value: object, info: ValidationInfo) -> object:
    if value is not None:
        period(value, info.data.get("timezone"))
    return value


Since = Annotated[
    Annotated[str, _told(MOMENT_PATTERN)] | None,
    BeforeValidator(_named),
    Field(description="Created then or later: 2026-03-31, 2026-03, an ISO-8601 time, today, 7d."),
]
Until = Annotated[
    Annotated[str, _told(MOMENT_PATTERN)] | None,
    BeforeValidator(_named),
    Field(description="Created then or before, likewise; a day or a month counts whole."),
]
