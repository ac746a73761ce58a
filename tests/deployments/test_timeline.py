"""POST /timeline, and what /search says of time and reasons."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.ingress_under_test import Ingress, make_ingress

Json = dict[str, Any]


@pytest.fixture
def ingress() -> Ingress:
    ingress = make_ingress()
    lines = [
        {"text": "the tide rises", "source": "log", "timestamp": "2026-03-01T21:30:00Z"},
        {"text": "the tide falls", "source": "log", "timestamp": "2026-03-01T23:30:00Z"},
        {"text": "ships come in", "source": "log", "timestamp": "2026-03-03T12:00:00Z"},
    ]
    sent = ingress.http.post("/import", content="\n".join(map(json.dumps, lines)))
    assert sent.status_code == 200, sent.text
    return ingress


def posted(ingress: Ingress, path: str, **body: Any) -> Json:
    answer = ingress.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


def days_of(answer: Json) -> dict[str, list[str]]:
    return {day["date"]: [m["text"] for m in day["memories"]] for day in answer["days"]}


def test_a_timeline_is_told_by_the_days_of_a_time_zone(ingress: Ingress) -> None:
    assert days_of(posted(ingress, "/timeline")) == {
        "2026-03-01": ["the tide rises", "the tide falls"],
        "2026-03-03": ["ships come in"],
    }
    in_berlin = posted(ingress, "/timeline", timezone="Europe/Berlin", order="newest")
    assert days_of(in_berlin) == {
        "2026-03-03": ["ships come in"],
        "2026-03-02": ["the tide falls"],
        "2026-03-01": ["the tide rises"],
    }
    assert in_berlin["count"] == 3


def test_a_timeline_has_scores_for_a_query_and_what_stands_beside_each(ingress: Ingress) -> None:
    answer = posted(ingress, "/timeline", query="the tide falls", k=1, until="2026-03")

    [[memory]] = [day["memories"] for day in answer["days"]]
    assert memory["text"] == "the tide falls"
    assert memory["similarity"] == 1.0
    assert 0.9 < memory["score"] <= 1.0
    assert memory["before"]["text"] == "the tide rises"
    assert memory["after"]["text"] == "ships come in"
    [[plain]] = [day["memories"] for day in posted(ingress, "/timeline", k=1)["days"]]
    assert "similarity" not in plain
    assert plain["after"] is None


def test_a_timeline_of_an_empty_store_has_no_days() -> None:
    ingress = make_ingress()

    assert posted(ingress, "/timeline", query="tide") == {"days": [], "count": 0}
    assert posted(ingress, "/timeline", since="7d") == {"days": [], "count": 0}


def test_every_hit_tells_when_it_was_stored_and_hits_are_listed_by_time(ingress: Ingress) -> None:
    newest = posted(ingress, "/search", query="the tide rises", order="newest", k=2)["results"]

    assert [hit["timestamp"][:16] for hit in newest] == ["2026-03-01T23:30", "2026-03-01T21:30"]


def test_a_search_explains_itself_when_asked_alone_and_in_a_batch(ingress: Ingress) -> None:
    asked = {"query": "the tide rises", "source": "log", "k": 2, "explain": True}

    answer = posted(ingress, "/search", **asked)

    dropped = {"threshold": 0, "filter": 0, "expired": 0, "superseded": 0}
    assert answer["explain"] == {"candidates": 3, "dropped": dropped}
    why = answer["results"][0]["explain"]
    assert why["matched"] == ["tide", "rises"]
    assert (why["vector_rank"], why["bm25_rank"]) == (0, 0)
    assert set(why["score"]) == {"meaning", "words", "neighbours", "recency"}
    assert posted(ingress, "/search/batch", queries=[asked])["results"] == [answer]
    plain = posted(ingress, "/search", **{**asked, "explain": False})
    assert "explain" not in plain
    assert "explain" not in plain["results"][0]


def test_recency_lowers_the_scores_of_what_is_old(ingress: Ingress) -> None:
    recency = {"half_life_days": 0.01, "weight": 0.2}

    plain = posted(ingress, "/search", query="tide harbour")["results"][0]
    aged = posted(ingress, "/search", query="tide harbour", recency=recency)["results"][0]

    assert aged["score"] == pytest.approx(0.8 * plain["score"], abs=2e-6)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/search", {"recency": {"half_life_days": 30, "weight": 0.21}}),
        ("/search", {"recency": {"half_life_days": 0}}),
        ("/search", {"recency": {"weight": 0.1}}),
        ("/search", {"order": "random"}),
        ("/timeline", {"order": "best"}),
        ("/timeline", {"k": 101}),
        ("/timeline", {"query": " "}),
        ("/timeline", {"timezone": "Mars/Olympus"}),
    ],
)
def test_what_cannot_be_meant_is_refused(ingress: Ingress, path: str, body: Json) -> None:
    assert ingress.http.post(path, json={"query": "tide", **body}).status_code == 422
