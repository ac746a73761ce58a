"""Malformed requests get the contract's status, and the store stays as it was."""

from __future__ import annotations

import json

import pytest

from tests.support.ingress_under_test import Ingress, make_ingress

DEEP = b"[" * 10_000 + b"]" * 10_000


@pytest.fixture
def ingress() -> Ingress:
    ingress = make_ingress()
    ingress.add("alpha")
    return ingress


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b'{"text":"a","source":"s"',
        b'{"text":"a","source":"s"} trailing',
        b"\xff\xfe",
        b'{"text":"\xff","source":"s"}',
        b'{"text":"\xed\xa0\x80","source":"s"}',
        b'{"text":"\\ud800","source":"s"}',
        b'{"text":"a","source":"\\udfff"}',
        b'{"text":"a","source":"s","metadata":{"a":"\\ud800"}}',
        b'{"text":"a","source":"s","metadata":{"\\ud800":1}}',
        b'{"text":"a","source":"s","metadata":{"a":NaN}}',
        b'{"text":"a","source":"s","metadata":{"a":[-Infinity]}}',
        b'{"text":"a","source":"s","metadata":{"a":1e999}}',
        b'{"text":"a","source":"s","metadata":{"a":' + b"9" * 5000 + b"}}",
        b'{"text":"a","source":"s","metadata":{"a":' + DEEP + b"}}",
        b'{"text":"a","source":"s","metadata":[1]}',
        b'{"text":"a","source":"s","metadata":"x"}',
        b'{"text":"a","source":"s","metadata":{"a":"' + b"x" * 65_600 + b'"}}',
        b'{"text":"","source":"s"}',
        b'{"text":" \\n\\t\\u00a0\\u3000\\ufeff","source":"s"}',
        b'{"text":"a","source":""}',
        b'{"text":7,"source":"s"}',
        b'{"text":null,"source":"s"}',
        b'{"text":"a"}',
        b'{"text":"a","source":"s","deduplicate":"maybe"}',
        b'{"text":"' + b"x" * 50_001 + b'","source":"s"}',
        b'{"text":"a","source":"' + b"x" * 501 + b'"}',
        DEEP,
    ],
    ids=lambda body: body[:40].decode("latin-1") + f"#{len(body)}",
)
def test_a_malformed_add_is_422_and_changes_nothing(ingress: Ingress, body: bytes) -> None:
    before = dict(ingress.index.memories)

    answer = ingress.http.post("/memory/add", content=body)

    assert answer.status_code == 422, answer.text
    for error in answer.json()["detail"]:
        assert {"type", "loc", "msg"} <= error.keys()
        assert error["loc"][0] == "body"
    assert len(answer.content) < 2_000
    assert ingress.index.memories == before


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/search", {"query": "a", "k": 0}),
        ("/search", {"query": "a", "k": 101}),
        ("/search", {"query": "a", "k": 2.5}),
        ("/search", {"query": "a", "k": "x"}),
        ("/search", {"query": "a", "threshold": 1.01}),
        ("/search", {"query": "a", "threshold": "NaN"}),
        ("/search", {"query": "a", "vector_weight": -0.1}),
        ("/search", {"query": "a", "vector_weight": "inf"}),
        ("/search", {"query": "  "}),
        ("/search", {"query": "x" * 10_001}),
        ("/search", {"query": "a", "since": "last week"}),
        ("/search", {"query": "a", "since": "7x"}),
        ("/search", {"query": "a", "since": ""}),
        ("/search", {"query": "a", "until": "2026-02-30"}),
        ("/search", {"query": "a", "until": "2026-13"}),
        ("/search", {"query": "a", "until": "2026"}),
        ("/search", {"query": "a", "timezone": "Mars/Phobos"}),
        ("/search/batch", {"queries": [{"query": "a", "since": "soon"}]}),
        ("/search", {"query": "a", "since": 1767225600}),
        ("/search", {"query": "a", "until": "1767225600"}),
        ("/search", {"query": "a", "until": "2026-13-01T00:00:00Z"}),
        ("/search", {"query": "a", "since": "0001-01-01T00:00:00+14:00"}),
        ("/search", {"query": "a", "until": "9999-12-31T23:59:59-14:00"}),
        ("/search/batch", {"queries": []}),
        ("/search/batch", {"queries": [{"query": "a"}] * 101}),
        ("/memory/add-batch", {"memories": []}),
        ("/memory/add-batch", {"memories": [{"text": "a", "source": "s"}] * 501}),
        ("/memory/add-batch", {"memories": [{"text": "a", "source": "s"}, {"text": " "}]}),
        ("/memory/upsert", {"text": "a", "source": "s"}),
        ("/memory/upsert", {"text": "a", "source": "s", "key": ""}),
        ("/memory/delete-batch", {"ids": []}),
        ("/memory/delete-batch", {"ids": [-1]}),
        ("/memory/delete-batch", {"ids": [2**53]}),
        ("/memory/delete-batch", {"ids": list(range(1001))}),
        ("/memory/delete-by-source", {}),
        ("/memory/delete-by-source", {"source_pattern": ""}),
        ("/memory/delete-by-source", {"source_exact": ""}),
        ("/memory/delete-by-source", {"source_pattern": None, "source_exact": None}),
        ("/memory/is-novel", {"text": "a", "threshold": 2}),
        ("/memory/deduplicate", {"threshold": 0.4}),
        ("/index/build", {"sources": ["a\0b"]}),
        ("/index/build", {"sources": "a.md"}),
        ("/restore", {}),
        ("/restore", {"backup_name": "x" * 201}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_value_out_of_bounds_is_422(ingress: Ingress, path: str, body: object) -> None:
    before = dict(ingress.index.memories)
    answer = ingress.http.post(path, json=body)
    assert answer.status_code == 422, answer.text
    assert ingress.index.memories == before


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=x",
        "offset=-1",
        "order=up",
        "since=now",
        "until=tomorrow",
        "timezone=Berlin",
        "timezone=../UTC",
        "since=0001-01-01T00:00:00%2B14:00",
        "limit=" + "9" * 5000,
    ],
)
def test_a_query_parameter_out_of_bounds_is_422(ingress: Ingress, query: str) -> None:
    answer = ingress.http.get(f"/memories?{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", query.partition("=")[0]]


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("number", [9, -1, 2**53, 10**30])
def test_a_number_no_memory_has_is_not_found(ingress: Ingress, method: str, number: int) -> None:
    answer = ingress.http.request(method, f"/memory/{number}", content=b'{"source":"t"}')
    assert answer.status_code == 404
    assert answer.json() == {"detail": f"Memory ID {number} not found"}


@pytest.mark.parametrize("word", ["x", "1.5", "9" * 5000, "%00", "%ed%a0%80"])
def test_an_id_that_is_no_integer_is_422(ingress: Ingress, word: str) -> None:
    assert ingress.http.get(f"/memory/{word}").status_code == 422


def test_the_offending_value_is_echoed_at_most_200_characters_long(ingress: Ingress) -> None:
    secret = "s" * 60_000

    answer = ingress.http.post("/memory/add", json={"text": secret, "source": {"a": secret}})

    long_text, no_string = answer.json()["detail"]
    assert long_text == {
        "type": "string_too_long",
        "loc": ["body", "text"],
        "msg": "String should have at most 50000 characters",
        "input": "s" * 200,
        "ctx": {"max_length": 50000},
    }
    assert "input" not in no_string


@pytest.mark.parametrize(
    "content_type",
    [None, "application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "\xff"],
)
def test_a_body_is_json_whatever_its_content_type(
    ingress: Ingress, content_type: str | None
) -> None:
    headers = {} if content_type is None else {b"Content-Type": content_type.encode("latin-1")}

    answer = ingress.http.post("/search", content=b'{"query":"alpha","k":"3"}', headers=headers)

    assert answer.status_code == 200
    assert answer.json()["count"] == 1


def test_numbers_and_booleans_are_coerced_and_unknown_keys_ignored(ingress: Ingress) -> None:
    body = {"query": "alpha", "k": "3", "hybrid": "false", "threshold": "0.5", "colour": [1]}
    [hit] = ingress.http.post("/search", json=body).json()["results"]
    assert "rrf_score" not in hit


@pytest.mark.parametrize("text", ["a\0b", "😀" * 50_000, "\x1f.", "e\u0301"])
def test_unusual_texts_come_back_as_they_were_sent(ingress: Ingress, text: str) -> None:
    metadata = {"a\0": [text[:10], None, True, 1.5, 2**60, {"id": "x"}], "text": "mine"}

    new_id = ingress.add(text, metadata=metadata)

    stored = ingress.http.get(f"/memory/{new_id}").json()
    assert stored["text"] == text
    assert stored["metadata"] == metadata


def test_metadata_may_fill_its_bound_exactly(ingress: Ingress) -> None:
    padding = 64 * 1024 - len(json.dumps({"a": ""}))
    new_id = ingress.add("beta", metadata={"a": "x" * padding})
    assert len(ingress.index.memories[new_id].metadata["a"]) == padding  # type: ignore[index]
