"""Where the service is when nobody says otherwise. Constants alone, as `wire.limits`."""

from __future__ import annotations

from typing import Final

PORT: Final = 8900
URL: Final = f"http://localhost:{PORT}"
LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names of this very machine, as `urlsplit` gives them."""
