"""What the OpenAPI document promises, against generated requests, valid and not."""

from __future__ import annotations

from typing import Any, cast

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from starlette.applications import Starlette

from tests.support.ingress_under_test import make_ingress
from tests.support.openapi_checks import checks_for

# The generator calls from a host of its own.
ingress = make_ingress(allowed_hosts=("*",), cloud_sync_prefix="memories/")
ingress.index.put_files(notes="alpha beta")
schema = schemathesis.openapi.from_asgi("/openapi.json", cast(Starlette, ingress.http.app))


@schema.parametrize()
@settings(
    max_examples=3,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_keeps_to_the_openapi_document(case: schemathesis.Case[Any]) -> None:
    response = case.call_and_validate(checks=checks_for(case.path))
    assert response.status_code != 500
