"""Fixtures that several test files share."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.fake_index import closed_at_the_end
from tests.support.service import mortal_service, shared_service

__all__ = ["mortal_service", "shared_service"]

# A busy machine makes no test fail.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# What a shell starts in its background is deaf to Ctrl-C, and so would be what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _fake_indexes_are_closed() -> Iterator[None]:
    with closed_at_the_end():
        yield
