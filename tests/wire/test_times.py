from __future__ import annotations

from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.times import microseconds, period_of

NOW = datetime(2026, 3, 5, 23, 30, tzinfo=timezone.utc)


def us(text: str) -> int:
    return microseconds(datetime.fromisoformat(text))


@pytest.mark.parametrize(
    ("name", "zone", "start", "end"),
    [
        ("2026-03-31", "UTC", "2026-03-31T00:00+00:00", "2026-04-01T00:00+00:00"),
        ("2026-03-31", "Asia/Tokyo", "2026-03-30T15:00+00:00", "2026-03-31T15:00+00:00"),
        ("2026-02", "UTC", "2026-02-01T00:00+00:00", "2026-03-01T00:00+00:00"),
        ("2025-12", "UTC", "2025-12-01T00:00+00:00", "2026-01-01T00:00+00:00"),
        ("today", "UTC", "2026-03-05T00:00+00:00", "2026-03-06T00:00+00:00"),
        ("today", "Asia/Tokyo", "2026-03-05T15:00+00:00", "2026-03-06T15:00+00:00"),
        ("yesterday", "UTC", "2026-03-04T00:00+00:00", "2026-03-05T00:00+00:00"),
        # The days on which the clock is put forward and back, and one that begins at 1 o'clock.
        ("2026-03-29", "Europe/Berlin", "2026-03-28T23:00+00:00", "2026-03-29T22:00+00:00"),
        ("2026-10-25", "Europe/Berlin", "2026-10-24T22:00+00:00", "2026-10-25T23:00+00:00"),
        ("2026-03-08", "America/Havana", "2026-03-08T05:00+00:00", "2026-03-09T04:00+00:00"),
    ],
)
def test_a_name_means_the_whole_of_its_time(name: str, zone: str, start: str, end: str) -> None:
    assert period_of(name, zone=ZoneInfo(zone), now=NOW) == (us(start), us(end) - 1)


def test_days_ago_are_a_moment() -> None:
    week_ago = us("2026-02-26T23:30+00:00")

    assert period_of("7d", zone=ZoneInfo("Asia/Tokyo"), now=NOW) == (week_ago, week_ago)


def test_the_last_day_of_all_has_an_end() -> None:
    assert period_of("9999-12-31", zone=timezone.utc, now=NOW) is not None


@pytest.mark.parametrize("name", ["", "tomorrow", "7", "d", "7x", "2026", "2026-3-1", "next week"])
def test_any_other_word_names_no_time(name: str) -> None:
    assert period_of(name, zone=timezone.utc, now=NOW) is None


@pytest.mark.parametrize("name", ["2026-02-30", "2026-13", "2026-00-01", "0000-01-01"])
def test_a_day_that_is_not_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=r"day|month|year|date|format"):
        period_of(name, zone=timezone.utc, now=NOW)


@given(
    st.dates(),
    st.sampled_from(["UTC", "Europe/Berlin", "America/Havana", "Asia/Tehran", "Pacific/Apia"]),
)
def test_a_moment_of_a_day_is_within_it(day: object, zone: str) -> None:
    period = period_of(str(day), zone=ZoneInfo(zone), now=NOW)
    noon = datetime.fromisoformat(f"{day}T12:00:00").replace(tzinfo=ZoneInfo(zone))

    assert period is not None
    assert period[0] <= microseconds(noon) <= period[1]
