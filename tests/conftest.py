"""Fixtures that several test files share."""

import signal

from tests.support.service import mortal_service, shared_service

__all__ = ["mortal_service", "shared_service"]

# What a shell starts in its background is deaf to Ctrl-C, and so would be what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
