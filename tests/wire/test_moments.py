"""What the documents tell of times and zones is understood."""

from __future__ import annotations

import re
import zoneinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.moments import MOMENT_PATTERN, ZONE_PATTERN, period


@given(st.from_regex(MOMENT_PATTERN.replace("$", r"\Z")), st.sampled_from(["UTC", "Asia/Tokyo"]))
def test_whatever_the_pattern_allows_is_a_time(name: str, zone: str) -> None:
    first, last = period(name, zoneinfo.ZoneInfo(zone))
    assert first <= last


@pytest.mark.parametrize(
    ("name", "is_told"),
    [
        ("2024-02-29", True),
        ("2000-02-29", True),
        ("2026-03", True),
        ("2026-03-31T12:00:00Z", True),
        ("2026-03-31 12:00:00.5+02:00", True),
        ("yesterday", True),
        ("7d", True),
        ("2023-02-29", False),
        ("1900-02-29", False),
        ("2026-04-31", False),
        ("2026-13", False),
        ("2026-03-31T24:00:00Z", False),
        ("1767225600", False),
        ("last week", False),
        ("", False),
    ],
)
def test_the_pattern_tells_times_from_what_is_none(name: str, is_told: bool) -> None:
    assert bool(re.match(MOMENT_PATTERN, name)) is is_told


def test_the_pattern_allows_every_zone_there_is() -> None:
    assert [z for z in zoneinfo.available_timezones() if not re.match(ZONE_PATTERN, z)] == []
