"""The running service where answers and requests are larger than one message between its parts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.service import Service

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]

SOURCE = "maxima"
N_LONG = 100
LONGEST_TEXT = 50_000
N_SECTIONS = 3_000
"""Their embeddings alone take more than the 4 MiB that Ray allows by itself."""


@pytest.fixture(scope="module")
def http(shared_service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shared_service.base_url, timeout=240, trust_env=False) as client:
        yield client
        for source in (SOURCE, "maxima.md:chunk_"):
            client.post("/memory/delete-by-source", json={"source_pattern": source})


@pytest.fixture(scope="module")
def long_texts(http: httpx.Client) -> list[str]:
    texts = [f"number {n} ".ljust(LONGEST_TEXT, "ä") for n in range(N_LONG)]
    memories = [{"text": text, "source": SOURCE} for text in texts]
    answer = post(http, "/memory/add-batch", {"memories": memories, "deduplicate": False})
    assert answer["count"] == N_LONG
    return texts


def post(http: httpx.Client, path: str, body: Any) -> Any:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text[:500]
    return answer.json()


def test_the_longest_texts_are_listed_a_hundred_at_a_time(
    http: httpx.Client, long_texts: list[str]
) -> None:
    page = http.get("/memories", params={"limit": 100, "source": SOURCE}).json()
    assert [memory["text"] for memory in page["memories"]] == long_texts


def test_a_search_finds_a_hundred_of_the_longest_texts(
    http: httpx.Client, long_texts: list[str]
) -> None:
    search = {"query": "number 7", "k": 100, "source": SOURCE}
    [answer, again] = post(http, "/search/batch", {"queries": [search, search]})["results"]
    assert answer == again == post(http, "/search", search)
    assert sorted(hit["text"] for hit in answer["results"]) == sorted(long_texts)


def test_the_longest_texts_are_exported_to_the_footer(
    http: httpx.Client, long_texts: list[str]
) -> None:
    with http.stream("GET", "/export", params={"source": SOURCE}) as answer:
        header, *memories, footer = map(json.loads, answer.iter_lines())
    assert (header["total"], footer) == (N_LONG, {"type": "footer", "count": N_LONG})
    assert [memory["text"] for memory in memories] == long_texts


def test_a_workspace_of_thousands_of_sections_is_built(
    http: httpx.Client, shared_service: Service
) -> None:
    file = shared_service.workspace_dir / "maxima.md"
    file.write_text("\n\n".join(f"# {n}\n\nsection {n}" for n in range(N_SECTIONS)))
    try:
        built = post(http, "/index/build", {"sources": [file.name]})
        again = post(http, "/index/build", {"sources": [file.name]})
    finally:
        file.unlink()
    assert (built["memories_added"], again["unchanged"]) == (N_SECTIONS, N_SECTIONS)
