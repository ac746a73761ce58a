"""The answers of the service are, byte for byte, those that clients were written against."""

from __future__ import annotations

import re

import pytest

from tests.golden.session import RECORDING, recorded

pytestmark = pytest.mark.service

_SCORE = re.compile(r"(?<=:)\d+\.\d+(?=[,}])")
_DECIMALS = 6
_LAST_DIGITS = 2e-5
"""By which processors differ in a score."""


def test_a_recorded_session_is_answered_with_the_same_bytes() -> None:
    expected, answered = RECORDING.read_text("utf-8"), recorded()
    assert (
        _SCORE.sub("<score>", answered).splitlines() == _SCORE.sub("<score>", expected).splitlines()
    )
    scores = [_SCORE.findall(text) for text in (answered, expected)]
    for one, other in zip(*scores, strict=True):
        assert float(one) == pytest.approx(float(other), abs=_LAST_DIGITS)
        assert len(one.partition(".")[2]) <= _DECIMALS
