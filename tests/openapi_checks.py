"""What generated requests are checked for, and where a schema cannot say what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import schemathesis
from schemathesis.checks import CHECKS
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance


@schemathesis.serializer("application/x-ndjson")
def _as_it_is(_context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


def checks_for(path: str) -> list[Callable[..., Any]]:
    """Those that hold for every request to a path."""
    checks = [check for check in CHECKS.get_all() if not isinstance(check, type)]
    # A schema cannot say which files exist, that sync is on, or that `confirm` must be true:
    # each is a 400 by contract.
    if path == "/index/build" or path.startswith("/sync/"):
        checks.remove(positive_data_acceptance)
    if path == "/import":  # bad lines are answered line by line, in a 200
        checks.remove(negative_data_rejection)
    return checks
