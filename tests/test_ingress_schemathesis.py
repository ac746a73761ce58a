"""What the OpenAPI document promises, against generated requests, valid and not."""

from __future__ import annotations

from typing import Any, cast

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from starlette.applications import Starlette

from tests.ingress_under_test import make_ingress

# A schema cannot say which files exist, nor that `confirm` must be true: a 400 by contract.
_MAY_REFUSE = ("/index/build", "/sync/download", "/sync/restore/{backup_name}")


@schemathesis.serializer("application/x-ndjson")
def _as_it_is(_context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


# The generator calls from a host of its own.
ingress = make_ingress(allowed_hosts=("*",), cloud_sync_prefix="memories/")
ingress.index.files = {"notes.md": ["alpha beta"]}
schema = schemathesis.openapi.from_asgi("/openapi.json", cast(Starlette, ingress.http.app))


@schema.parametrize()
@settings(
    max_examples=5,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_keeps_to_the_openapi_document(case: schemathesis.Case[Any]) -> None:
    checks = [check for check in CHECKS.get_all() if not isinstance(check, type)]
    if case.path in _MAY_REFUSE:
        checks.remove(positive_data_acceptance)
    if case.path == "/import":  # bad lines are answered line by line, in a 200
        checks.remove(negative_data_rejection)
    response = case.call_and_validate(checks=checks)
    assert response.status_code != 500
