"""The OpenAPI document and the pages that show it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator

from tests.support.ingress_under_test import make_ingress


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    document: dict[str, Any] = make_ingress(api_key="k").http.get("/openapi.json").json()
    return document


@pytest.fixture(scope="module")
def for_gpt() -> dict[str, Any]:
    ingress = make_ingress(api_key="k", public_url="https://memory.example.com")
    document: dict[str, Any] = ingress.http.get("/openapi-gpt.json").json()
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield path, method, operation


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "FAISS Memory API"
    assert document["servers"] == [{"url": "http://localhost:8900"}]


def test_a_custom_gpt_finds_its_operation_ids(document: dict[str, Any]) -> None:
    ids = {op["operationId"]: (method, path) for path, method, op in _operations(document)}
    assert len(ids) == len(list(_operations(document)))
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", operation_id) for operation_id in ids)
    for _, _, operation in _operations(document):
        assert operation.get("description") or operation.get("summary")
    for operation_id, route in {
        "searchMemory": ("post", "/search"),
        "addMemory": ("post", "/memory/add"),
        "isNovel": ("post", "/memory/is-novel"),
        "listMemories": ("get", "/memories"),
        "getStats": ("get", "/stats"),
        "deleteMemory": ("delete", "/memory/{memory_id}"),
    }.items():
        assert ids[operation_id] == route


def test_a_custom_gpt_gets_the_five_operations_as_openapi_3_0(for_gpt: dict[str, Any]) -> None:
    OpenAPIV30SpecValidator(for_gpt).validate()
    assert for_gpt["openapi"].startswith("3.0")
    assert for_gpt["servers"] == [{"url": "https://memory.example.com"}]
    operations = [operation for _, _, operation in _operations(for_gpt)]
    assert {operation["operationId"] for operation in operations} == {
        "searchMemory",
        "addMemory",
        "isNovel",
        "listMemories",
        "getStats",
    }
    assert all(operation["security"] == [{"ApiKey": []}] for operation in operations)
    assert for_gpt["components"]["securitySchemes"] == {
        "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    }


def test_what_a_custom_gpt_cannot_read_is_not_in_its_document(for_gpt: dict[str, Any]) -> None:
    written = json.dumps(for_gpt)
    assert '"null"' not in written
    assert '"in": "header"' not in written.replace(json.dumps(for_gpt["components"]), "")
    answer = for_gpt["components"]["schemas"]["IsNovelAnswer"]["properties"]["most_similar"]
    assert answer == {"allOf": [{"$ref": "#/components/schemas/NearestOut"}], "nullable": True}
    metadata = for_gpt["components"]["schemas"]["AddRequest"]["properties"]["metadata"]
    assert (metadata["properties"], metadata["nullable"]) == ({}, True)


def test_types_are_strict_for_generated_clients(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    search = schemas["SearchRequest"]["properties"]
    assert (search["k"]["type"], search["hybrid"]["type"]) == ("integer", "boolean")
    assert schemas["DeleteBatchRequest"]["properties"]["ids"]["items"]["type"] == "integer"
    lax = {"query": "a", "k": "3", "hybrid": "yes", "vector_weight": "0.5"}
    assert make_ingress().http.post("/search", json=lax).status_code == 200


def test_a_pattern_holds_for_readers_that_look_at_the_beginning_alone(
    document: dict[str, Any],
) -> None:
    pattern = document["components"]["schemas"]["AddRequest"]["properties"]["text"]["pattern"]
    for look in (re.match, re.search):
        assert look(pattern, " \n a\n")
        assert not look(pattern, " \n\u3000")


def test_every_description_is_short_enough_for_a_custom_gpt(document: dict[str, Any]) -> None:
    def descriptions(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("description"), str):
                yield node["description"]
            for value in node.values():
                yield from descriptions(value)
        elif isinstance(node, list):
            for value in node:
                yield from descriptions(value)

    found = list(descriptions(document))
    assert len(found) > 50
    assert max(map(len, found)) <= 300


def test_bodies_are_described_as_json(document: dict[str, Any]) -> None:
    body = document["paths"]["/search"]["post"]["requestBody"]
    reference = body["content"]["application/json"]["schema"]["$ref"]
    properties = document["components"]["schemas"][reference.rsplit("/", 1)[1]]["properties"]
    assert {"query", "k", "hybrid", "threshold", "vector_weight"} <= properties.keys()
    assert properties["k"]["default"] == 5


def test_closed_routes_declare_the_key_and_open_ones_do_not(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"] == {
        "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    }
    for path, _, operation in _operations(document):
        expected: list[dict[str, list[str]]] = (
            [] if path.startswith("/health") else [{"ApiKey": []}]
        )
        assert operation["security"] == expected


def test_without_a_key_the_key_is_optional() -> None:
    document = make_ingress().http.get("/openapi.json").json()
    assert document["paths"]["/search"]["post"]["security"] == [{"ApiKey": []}, {}]


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_a_documentation_page_loads_nothing_from_elsewhere(page: str) -> None:
    http = make_ingress(api_key="k").http

    answer = http.get(page)

    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    links = re.findall(r'(?:src|href|spec-url)="([^"]+)"', answer.text)
    assert len(links) >= 2
    for link in links:
        assert link.startswith("/")
        asset = http.get(link)
        assert asset.status_code == 200
        assert len(asset.content) > 1_000
    assert http.get("/docs/assets/%2e%2e/core.py").status_code == 404
