"""What the OpenAPI document promises, against generated requests, valid and not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from starlette.applications import Starlette

from deployments.http.needs import declared_needs
from tests.support.ingress_under_test import make_ingress
from tests.support.openapi_checks import checks_for

# The generator calls from a host of its own.
ingress = make_ingress(allowed_hosts=("*",), cloud_sync_prefix="memories/")
ingress.index.put_files(notes="alpha beta")
schema = schemathesis.openapi.from_asgi("/openapi.json", cast(Starlette, ingress.http.app))

scoped = make_ingress(api_key="root", allowed_hosts=("*",), cloud_sync_prefix="memories/")
scoped.index.put_files(notes="alpha beta")
scoped_schema = schemathesis.openapi.from_asgi("/openapi.json", cast(Starlette, scoped.http.app))
NEEDS = {
    (method, getattr(route, "path_format", "")): what
    for route, what in declared_needs(scoped.http.app.routes)  # type: ignore[attr-defined]
    for method in getattr(route, "methods", None) or ()
}

few = settings(
    max_examples=3,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def writer() -> Iterator[dict[str, str]]:
    """The headers of a key that reads and writes in one namespace."""
    with scoped.http as http:
        body = {"name": "a", "scopes": ["read", "write"], "namespaces": ["a"]}
        made = http.post("/keys", json=body, headers={"X-API-Key": "root"}).json()
        headers = {"X-API-Key": made["key"]}
        for _ in range(1000):
            if http.get("/keys/me", headers=headers).status_code == 200:
                break
        yield headers


@scoped_schema.parametrize()
@few
def test_a_scoped_key_gets_no_answer_outside_its_scope(
    writer: dict[str, str], case: schemathesis.Case[Any]
) -> None:
    response = case.call_and_validate(checks=checks_for(case.path), headers=writer)
    assert response.status_code != 500
    what = NEEDS[case.method.upper(), case.path]
    if what.scope == "admin" or what.of == "all":
        assert response.status_code != 200


@schema.parametrize()
@few
def test_every_answer_keeps_to_the_openapi_document(case: schemathesis.Case[Any]) -> None:
    response = case.call_and_validate(checks=checks_for(case.path))
    assert response.status_code != 500
