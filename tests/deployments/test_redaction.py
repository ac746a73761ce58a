"""`redact: true` at every door that takes a text: what is stored, embedded and answered."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any

import numpy as np
import pytest

from tests.support.fakes import DIM, embedding_of
from tests.support.ingress_under_test import Ingress, make_ingress

TOKEN = "ghp_" + "Ab3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC2"
SAID, STORED = f"deploy with {TOKEN}", "deploy with [redacted:github]"
FOUND = {"github": 1}


@pytest.fixture
def ingress() -> Ingress:
    return make_ingress()


def posted(ingress: Ingress, path: str, **body: Any) -> dict[str, Any]:
    answer = ingress.http.post(path, json={"source": "s", **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def texts(ingress: Ingress) -> list[str]:
    return [memory["text"] for memory in ingress.http.get("/memories").json()["memories"]]


@pytest.mark.parametrize("more", [{"path": "add"}, {"path": "upsert", "key": "k"}])
def test_a_new_memory_is_stored_and_embedded_without_its_secrets(
    ingress: Ingress, more: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    path = more.pop("path")
    answer = posted(ingress, f"/memory/{path}", text=SAID, redact=True, **more)

    assert answer["redacted"] == FOUND
    assert texts(ingress) == [STORED]
    found = posted(ingress, "/search", query=STORED, hybrid=False)["results"]
    assert found[0]["similarity"] == pytest.approx(1)
    assert TOKEN not in caplog.text


def test_without_redact_or_without_secrets_the_answer_says_nothing(ingress: Ingress) -> None:
    assert "redacted" not in posted(ingress, "/memory/add", text=SAID)
    assert "redacted" not in posted(ingress, "/memory/add", text="plain words", redact=True)
    assert texts(ingress) == [SAID, "plain words"]


def test_duplicates_are_told_by_what_is_stored(ingress: Ingress) -> None:
    first = posted(ingress, "/memory/add", text=SAID, redact=True)
    other = SAID.replace("Ab3d", "Zz9y")
    answer = posted(ingress, "/memory/add", text=other, redact=True)
    assert (answer["id"], answer["duplicate_of"]) == (None, first["id"])


def test_in_a_batch_an_items_own_redact_wins(ingress: Ingress) -> None:
    memories = [
        {"text": f"one {TOKEN}", "source": "s"},
        {"text": f"two {TOKEN}", "source": "s", "redact": False},
        {"text": "three", "source": "s"},
    ]
    answer = posted(ingress, "/memory/add-batch", memories=memories, redact=True)
    assert [result.get("redacted") for result in answer["results"]] == [FOUND, None, None]
    assert texts(ingress) == ["one [redacted:github]", f"two {TOKEN}", "three"]


def test_a_changed_text_is_stored_without_its_secrets(ingress: Ingress) -> None:
    memory_id = ingress.add("before")
    answer = ingress.http.patch(f"/memory/{memory_id}", json={"text": SAID, "redact": True}).json()
    assert (answer["text"], answer["redacted"]) == (STORED, FOUND)
    answer = ingress.http.patch(f"/memory/{memory_id}", json={"source": "t", "redact": True})
    assert "redacted" not in answer.json()


def test_a_text_that_grows_too_long_is_refused_and_nothing_is_stored(ingress: Ingress) -> None:
    text = "password=Xk29-fQ7\n".ljust(50_000, "x")
    answer = ingress.http.post("/memory/add", json={"text": text, "source": "s", "redact": True})
    assert (answer.status_code, texts(ingress)) == (400, [])
    assert "Xk29" not in answer.text


def imported(ingress: Ingress, *lines: dict[str, Any], query: str = "") -> list[dict[str, Any]]:
    content = "".join(json.dumps({"source": "s", **line}) + "\n" for line in lines)
    answer = ingress.http.post(f"/import{query}", content=content)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_an_import_redacts_lines_and_sums_up(ingress: Ingress) -> None:
    lines: list[dict[str, Any]] = [
        {"text": f"one {TOKEN}"},
        {"text": f"two {TOKEN}", "redact": False},
        {"text": "three"},
    ]
    *items, summary = imported(ingress, *lines, query="?redact=true")
    assert [item.get("redacted") for item in items if item["type"] == "item"] == [FOUND, None, None]
    assert summary["redacted"] == FOUND
    assert texts(ingress) == ["one [redacted:github]", f"two {TOKEN}", "three"]


def test_an_import_without_secrets_has_no_totals_of_them(ingress: Ingress) -> None:
    *_, summary = imported(ingress, {"text": "plain", "redact": True}, {"text": SAID})
    assert "redacted" not in summary


def test_the_embedding_of_a_text_with_secrets_is_not_taken(ingress: Ingress) -> None:
    other = np.zeros(DIM, "<f4")
    other[0] = 1
    given = base64.b64encode(other.tobytes()).decode()
    lines = [
        {"text": SAID, "embedding": given, "redact": True},
        {"text": "plain", "embedding": given, "redact": True},
    ]
    imported(ingress, *lines)
    exported = ingress.http.get("/export?embeddings=true").text.splitlines()[1:-1]
    vectors = [np.frombuffer(base64.b64decode(json.loads(x)["embedding"]), "<f4") for x in exported]
    assert np.allclose(vectors[0], embedding_of(STORED), atol=1e-6)
    assert np.allclose(vectors[1], other)


def test_a_line_that_grows_too_long_is_named_and_the_others_are_in(ingress: Ingress) -> None:
    text = "password=Xk29-fQ7\n".ljust(50_000, "x")
    answers = imported(ingress, {"text": text}, {"text": "plain"}, query="?redact=true")
    assert [answer.get("status") for answer in answers[:2]] == ["error", "added"]
    assert "Xk29" not in json.dumps(answers)
