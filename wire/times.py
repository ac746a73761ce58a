"""Times as people name them: a day, a month, `today`, `7d`. Each is a stretch of time."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_DAYS_AGO: Final = re.compile(r"([0-9]{1,5})d")
_MONTH: Final = re.compile(r"[0-9]{4}-[0-9]{2}")
_DAY: Final = re.compile(rf"{_MONTH.pattern}-[0-9]{{2}}")


def microseconds(instant: datetime) -> int:
    """Microseconds from the epoch to a time with a zone."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def day_of(timestamp: str, zone: tzinfo) -> str:
    """The day of a zone, `2026-03-31`, that a time with an offset falls on."""
    instant = datetime.fromisoformat(timestamp)
    try:
        return instant.astimezone(zone).date().isoformat()
    except OverflowError:  # within a day of the first or the last year there is
        return instant.date().isoformat()


def period_of(name: str, *, zone: tzinfo, now: datetime) -> tuple[int, int] | None:
    """The first and the last microsecond, since the epoch, of a named time.

    Args:
        name: `2026-03-31` and `today`, `yesterday`: the whole day; `2026-03`: the whole month;
            `7d`: so many times 24 hours ago.
        zone: whose days they are.
        now: with a zone, whichever.

    Returns:
        None for what is no such name, like a time of day.

    Raises:
        ValueError: there is no such day or month.
    """
    if ago := _DAYS_AGO.fullmatch(name):
        instant = microseconds(now) - int(ago[1]) * 24 * 3600 * 1_000_000
        return instant, instant
    days = _days_of(name, now.astimezone(zone).date())
    if days is None:
        return None
    first, last = days
    start = datetime.combine(first, time.min, zone)
    end = datetime.combine(last, time.max, zone).replace(fold=1)  # the later of two, in autumn
    return microseconds(start), microseconds(end)


def _days_of(name: str, today: date) -> tuple[date, date] | None:
    """The first and the last day."""
    if name == "today":
        return today, today
    if name == "yesterday":
        yesterday = today - timedelta(days=1)
        return yesterday, yesterday
    if _DAY.fullmatch(name):
        day = date.fromisoformat(name)
        return day, day
    if _MONTH.fullmatch(name):
        first = date.fromisoformat(f"{name}-01")
        return first, _end_of_month(first)
    return None


def _end_of_month(first: date) -> date:
    if first.month == 12:
        return first.replace(day=31)
    return first.replace(month=first.month + 1) - timedelta(days=1)
