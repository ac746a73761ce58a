"""How many writes a key may make in a minute, wherever the minute begins."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.errors import RateLimitedError
from engine.keys.write_rates import WriteRates
from tests.support.keys_under_test import new_key


@given(st.lists(st.floats(0, 50), max_size=60), st.integers(1, 5))
@example([4.522015466846305, 0.0], 1)  # 4.52… + 60 - 4.52… is more than 60
def test_no_minute_has_too_many_and_a_refusal_names_the_wait(pauses: list[float], n: int) -> None:
    now_s = 0.0
    rates = WriteRates(lambda: now_s)
    key, _ = new_key(writes_per_minute=n)
    admitted: list[float] = []
    refusals: list[tuple[int, float]] = []
    for pause in pauses:
        now_s += pause
        recent = sum(1 for at_s in admitted if at_s > now_s - 60)
        try:
            rates.admit(key)
        except RateLimitedError as exc:
            refusals.append((recent, exc.retry_after_s))
            now_s += exc.retry_after_s + 1e-6
            rates.admit(key)
        else:
            assert recent < n
        admitted.append(now_s)
    assert all(recent == n and 0 < wait_s <= 60 for recent, wait_s in refusals)


def test_keys_are_counted_apart_and_without_a_limit_not_at_all() -> None:
    rates = WriteRates(lambda: 0.0)
    one, two, free = (new_key(writes_per_minute=n)[0] for n in (1, 1, None))
    rates.admit(one)
    rates.admit(two)
    for _ in range(100):
        rates.admit(free)
    with pytest.raises(RateLimitedError, match="1 times a minute"):
        rates.admit(one)
    rates.forget(one.id)
    rates.admit(one)
