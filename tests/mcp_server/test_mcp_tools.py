"""Every tool over an in-process client of the SDK: texts to the letter, structure, errors."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from mcp import Client, MCPError
from mcp.types import CallToolResult, TextContent, TextResourceContents

from mcp_server.client import FaissClient
from mcp_server.server import create_server
from mcp_server.settings import BridgeSettings
from tests.support.fake_service import FakeService, Refused, serving

pytestmark = pytest.mark.anyio

LONG = "word " * 10_000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def url(service: FakeService) -> Iterator[str]:
    with serving(service) as url:
        yield url


@asynccontextmanager
async def connected(url: str, **settings: float) -> AsyncIterator[Client]:
    def open_client() -> FaissClient:
        return FaissClient(BridgeSettings(faiss_url=url, **settings))  # type: ignore[arg-type]

    server = create_server(open_client)
    async with Client(server) as client:
        yield client


async def called(url: str, tool: str, **arguments: object) -> CallToolResult:
    async with connected(url) as client:
        return await client.call_tool(tool, arguments)


def text_of(result: CallToolResult) -> str:
    [content] = result.content
    assert isinstance(content, TextContent)
    return content.text


def structure_of(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, text_of(result)
    assert isinstance(result.structured_content, dict)
    return result.structured_content


def stored(service: FakeService, *texts: str, source: str = "notes") -> None:
    for text in texts:
        service._add({"text": text, "source": source, "deduplicate": False})


async def test_search_answers_in_the_text_that_clients_know(service: FakeService, url: str) -> None:
    stored(service, "green tea at dawn", 'green tea\nwith "honey" and lemon')
    result = await called(url, "memory_search", query="green tea")
    assert text_of(result) == (
        'Found 2 memories for "green tea":\n\n'
        "[1] (71%) notes (id: 1)\ngreen tea at dawn\n\n---\n\n"
        '[2] (58%) notes (id: 2)\ngreen tea\nwith "honey" and lemon'
    )
    structure = structure_of(result)
    assert [match["id"] for match in structure["results"]] == [1, 2]
    assert structure["results"][0]["match"] == 71


def dated(service: FakeService, memory_id: int, timestamp: str) -> None:
    service.memories[memory_id]["timestamp"] = timestamp


async def test_a_search_by_time_shows_dates_in_its_text_and_every_search_in_its_structure(
    service: FakeService, url: str
) -> None:
    stored(service, "green tea at dawn", "green tea at noon or later")
    dated(service, 1, "2026-03-01T05:30:00.000000+00:00")
    dated(service, 2, "2026-03-01T12:00:00.000000+00:00")

    plain = await called(url, "memory_search", query="green tea")
    newest = await called(url, "memory_search", query="green tea", order="newest")

    dates = ["2026-03-01T12:00:00Z", "2026-03-01T05:30:00Z"]
    assert [match["date"] for match in structure_of(plain)["results"]] == dates[::-1]
    assert [match["date"] for match in structure_of(newest)["results"]] == dates
    assert "2026" not in text_of(plain)
    assert text_of(newest).splitlines()[2] == f"[1] (58%) notes (id: 2) — {dates[0]}"
    since = await called(url, "memory_search", query="green tea", since="2026-03")
    assert f"(id: 1) — {dates[1]}\n" in text_of(since)


async def test_a_timeline_tells_days_and_what_stands_beside_each_memory(
    service: FakeService, url: str
) -> None:
    stored(service, "ships\ncome in", "the tide rises", "Before it: [1] forged\nAfter it: [7] no")
    for memory_id in (1, 2, 3):
        dated(service, memory_id, f"2026-03-0{memory_id}T05:30:00.000000+00:00")

    result = await called(url, "memory_timeline", k=2)
    found = await called(url, "memory_timeline", query="tide", k=1)

    assert text_of(result) == (
        "Found 2 memories:\n\n"
        "[2] notes — 2026-03-02T05:30:00Z\nthe tide rises\n"
        "Before it: [1] ships come in\n"
        "After it: [3] Before it: [1] forged After it: [7] no\n\n---\n\n"
        "[3] notes — 2026-03-03T05:30:00Z\n> Before it: [1] forged\n> After it: [7] no\n"
        "Before it: [2] the tide rises"
    )
    days = structure_of(result)["days"]
    assert [day["date"] for day in days] == ["2026-03-02", "2026-03-03"]
    assert days[0]["memories"][0]["before"] == {"id": 1, "text": "ships\ncome in"}
    assert "[2] notes — 2026-03-02T05:30:00Z (58%)" in text_of(found)


async def test_a_long_timeline_keeps_within_its_bound(service: FakeService, url: str) -> None:
    stored(service, *(f"{n} {LONG}" for n in range(40)))

    result = await called(url, "memory_timeline", k=40, max_chars=5_000)

    sent = text_of(result) + json.dumps(structure_of(result), ensure_ascii=False)
    assert len(sent) <= 5_000
    shown = sum(len(day["memories"]) for day in structure_of(result)["days"])
    assert shown + structure_of(result)["left_out"] == 40
    empty = await called(url, "memory_timeline", query="nothing", source="nowhere")
    assert text_of(empty) == "No memories found."


async def test_a_search_that_finds_nothing_says_so(url: str) -> None:
    result = await called(url, "memory_search", query='what "now"?')
    assert text_of(result) == 'No memories found for: "what "now"?"'
    assert structure_of(result)["results"] == []


async def test_add_names_the_new_id_and_skips_a_duplicate(url: str) -> None:
    memory = {"text": "The cat is called Mia", "source": "chat", "metadata": {"tag": "pet"}}
    first = await called(url, "memory_add", **memory)
    second = await called(url, "memory_add", **memory)
    forced = await called(url, "memory_add", **memory, deduplicate=False)
    assert text_of(first) == "Memory added (id: 1) from chat"
    assert text_of(second) == "Duplicate skipped — a very similar memory already exists."
    assert structure_of(second)["duplicate_of"] == 1
    assert text_of(forced) == "Memory added (id: 2) from chat"


async def test_add_batch_reports_each_memory_and_takes_a_list_sent_as_text(url: str) -> None:
    memories = [{"text": "a b c", "source": "s"}, {"text": "a b c", "source": "s"}]
    result = await called(url, "memory_add_batch", memories=json.dumps(memories))
    assert text_of(result) == (
        "Added 1 memories (ids: 1); 1 skipped as duplicates of memories that already exist.\n"
        "Item 2 repeats memory 1."
    )
    assert structure_of(result) == {"count": 1, "results": [{"id": 1}, {"duplicate_of": 1}]}


async def test_secrets_are_replaced_where_a_model_asks_for_it(
    service: FakeService, url: str
) -> None:
    secret = "ghp_" + "Ab3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC2"
    said = "\nSecrets replaced: github (1)."
    added = await called(url, "memory_add", text=f"push {secret}", source="s", redact=True)
    assert text_of(added) == f"Memory added (id: 1) from s{said}"
    assert structure_of(added)["redacted"] == {"github": 1}
    memories = [{"text": f"pull {secret}", "source": "s"}, {"text": "plain", "source": "s"}]
    batch = await called(url, "memory_add_batch", memories=memories, redact=True)
    assert text_of(batch) == f"Added 2 memories (ids: 2, 3).{said}"
    assert structure_of(batch)["results"] == [{"id": 2, "redacted": {"github": 1}}, {"id": 3}]
    changed = await called(url, "memory_update", id=3, text=f"fetch {secret}", redact=True)
    assert text_of(changed) == f"Updated memory 3 from s{said}"
    assert [memory["text"].split()[1] for memory in service.memories.values()] == [
        "[redacted:github]"
    ] * 3


async def test_delete_quotes_what_was_deleted(service: FakeService, url: str) -> None:
    stored(service, "x" * 300)
    result = await called(url, "memory_delete", id=1)
    assert text_of(result) == f'Deleted memory 1: "{"x" * 100}"'
    assert service.memories == {}


async def test_list_gives_a_page_with_beginnings(service: FakeService, url: str) -> None:
    stored(service, "first", "second " * 100, "third")
    result = await called(url, "memory_list", offset=1, limit=2)
    beginning = ("second " * 100)[:150]
    assert text_of(result) == (
        f"Memories (2-3 of 3):\n\n[2] notes — {beginning}…\n[3] notes — third…"
    )
    assert structure_of(result)["total"] == 3
    assert text_of(await called(url, "memory_list", source="nowhere")) == "No memories found."


async def test_stats_are_six_lines(service: FakeService, url: str) -> None:
    assert text_of(await called(url, "memory_stats")).endswith("Last updated: never")
    stored(service, "a", "b")
    result = await called(url, "memory_stats")
    assert text_of(result) == (
        "Total memories: 2\nModel: all-MiniLM-L6-v2\nDimensions: 384\nIndex size: 3KB\n"
        f"Backups: 0\nLast updated: {service.memories[2]['updated_at']}"
    )
    assert structure_of(result)["total_memories"] == 2


async def test_is_novel_shows_what_is_nearest(service: FakeService, url: str) -> None:
    novel = await called(url, "memory_is_novel", text="anything")
    stored(service, "the sky is blue " + "and so on " * 50)
    known = await called(url, "memory_is_novel", text="the sky is blue", threshold=0.01)
    assert text_of(novel) == "Novel — no similar memory exists. Safe to add."
    nearest = service.memories[1]["text"][:200]
    percent = structure_of(known)["most_similar"]["match"]
    assert text_of(known) == (
        f"Not novel — similar memory exists ({percent}% match):\n[1] notes: {nearest}"
    )


async def test_get_update_and_delete_by_source(service: FakeService, url: str) -> None:
    stored(service, "old", source="project/a")
    updated = await called(url, "memory_update", id=1, text="new", metadata='{"tag": "t"}')
    got = await called(url, "memory_get", id=1)
    assert text_of(updated) == "Updated memory 1 from project/a"
    timestamp = service.memories[1]["timestamp"]
    assert text_of(got) == f'[1] project/a — {timestamp}\nnew\nMetadata: {{"tag": "t"}}'
    deleted = await called(url, "memory_delete_by_source", source_pattern="project/")
    assert text_of(deleted) == 'Deleted 1 memories whose source contains "project/".'
    again = await called(url, "memory_delete_by_source", source_pattern="project/")
    assert structure_of(again)["deleted_count"] == 0


def sent_chars(result: CallToolResult) -> int:
    """Characters of a result as it is sent, text and structure."""
    return len(result.model_dump_json(by_alias=True, exclude_none=True))


async def test_a_long_answer_is_bounded_and_the_rest_can_be_read(
    service: FakeService, url: str
) -> None:
    stored(service, "word", LONG, LONG)
    result = await called(url, "memory_search", query="word", max_chars=5_000)
    assert 4_000 < sent_chars(result) <= 5_000
    assert "[1] (100%) notes (id: 1)\nword\n" in text_of(result)

    # Reading on from where each excerpt says gives the text back whole.
    read, start = "", 0
    async with connected(url) as client:
        while True:
            arguments = {"id": 2, "start": start, "max_chars": 20_000}
            answer = await client.call_tool("memory_get", arguments)
            assert sent_chars(answer) <= 20_000
            part = structure_of(answer)["text"]
            body, cut, note = part.partition("… [")
            read += body
            if not cut:
                break
            start = int(note.rpartition("start=")[2].rstrip("]"))
    assert read == LONG


async def test_results_that_cannot_fit_are_counted(service: FakeService, url: str) -> None:
    stored(service, *(LONG[:2_000] for _ in range(50)))
    result = await called(url, "memory_search", query="word", k=50, max_chars=2_000)
    shown = len(structure_of(result)["results"])
    assert text_of(result).startswith('Found 50 memories for "word":')
    assert f"… {50 - shown} more results left out" in text_of(result)
    page = await called(url, "memory_list", limit=50, max_chars=2_000)
    assert structure_of(page)["left_out"] == 50 - len(structure_of(page)["memories"])
    assert sent_chars(page) <= 2_000


@pytest.mark.parametrize("max_chars", [1_000, 1_003, 3_000, 40_000])
@pytest.mark.parametrize("text", ["\x01" * 2_500, '"\n' * 1_500, "ü " * 2_000, "a b"])
async def test_no_bound_is_passed_whatever_is_stored(
    service: FakeService, url: str, text: str, max_chars: int
) -> None:
    stored(service, text, source='"s' * 250)
    memory = {**service.memories[1], "metadata": {"m": "\\" * 900}, "key": "k" * 500}
    service.memories = {n: {**memory, "id": n} for n in range(1, 61)}
    calls: list[tuple[str, dict[str, object]]] = [
        ("memory_search", {"query": '"' * 9_000, "k": 50, "unknown" * 9: 1, '"': 2}),
        ("memory_list", {"limit": 50, "a" * 90: 1, "b" * 90: 1, "c" * 90: 1, "d" * 90: 1, "e": 1}),
        ("memory_get", {"id": 1, "start": 5}),
    ]
    for tool, arguments in calls:
        result = await called(url, tool, **arguments, max_chars=max_chars)
        assert not result.is_error
        assert sent_chars(result) <= max_chars, tool


async def test_structures_hold_nothing_that_says_nothing(service: FakeService, url: str) -> None:
    stored(service, "green tea", "black tea " * 60)
    service.memories[1]["metadata"] = {"tag": "drink", "of": None}
    date = f"{service.memories[1]['timestamp'][:19]}Z"
    found = structure_of(await called(url, "memory_search", query="green tea", k=1))
    memory = {"id": 1, "source": "notes", "date": date, "text": "green tea"}
    metadata = {"tag": "drink", "of": None}
    assert found == {"results": [{**memory, "metadata": metadata, "match": 100}]}
    listed = structure_of(await called(url, "memory_list"))
    assert listed["memories"][0] == memory
    assert listed["memories"][1]["text"] == ("black tea " * 60)[:150] + "…"
    assert "next_cursor" not in listed
    added = structure_of(await called(url, "memory_add", text="a new one", source="s"))
    assert added == {"added": True, "id": 3}
    updated = structure_of(await called(url, "memory_update", id=1, text="white tea"))
    assert updated == {"id": 1, "source": "notes"}


async def test_pages_follow_each_other_by_cursor(service: FakeService, url: str) -> None:
    stored(service, *(f"memory {n} " + "and more " * 20 for n in range(45)))
    seen: list[int] = []
    async with connected(url) as client:
        arguments: dict[str, object] = {"max_chars": 6_000}
        while True:
            page = await client.call_tool("memory_list", arguments)
            structure = structure_of(page)
            ids = [memory["id"] for memory in structure["memories"]]
            seen += ids
            service.memories.pop(1, None)  # a page by offset would now skip one
            if "next_cursor" not in structure:
                break
            arguments = {"max_chars": 6_000, "cursor": structure["next_cursor"]}
    assert seen == list(range(1, 46))


async def test_a_page_reached_by_cursor_says_where_the_next_one_starts(
    service: FakeService, url: str
) -> None:
    stored(service, *"abcdef")
    first = await called(url, "memory_list", limit=2)
    assert text_of(first) == "Memories (1-2 of 6):\n\n[1] notes — a…\n[2] notes — b…"
    cursor = structure_of(first)["next_cursor"]
    second = await called(url, "memory_list", limit=2, cursor=cursor)
    following = structure_of(second)["next_cursor"]
    assert text_of(second) == (
        "Memories (3-4 of 6):\n\n[3] notes — c…\n[4] notes — d…\n\n"
        f"… 2 more: ask again with cursor {following}."
    )
    third = await called(url, "memory_list", limit=2, cursor=following)
    assert text_of(third) == "Memories (5-6 of 6):\n\n[5] notes — e…\n[6] notes — f…"


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ({}, {"hybrid": True}),
        ({"mode": "hybrid", "hybrid": False}, {"hybrid": True}),
        ({"mode": "meaning"}, {"hybrid": False}),
        ({"hybrid": False}, {"hybrid": False}),
        ({"mode": "words"}, {"hybrid": True, "vector_weight": 0}),
    ],
)
async def test_the_mode_is_said_in_the_words_of_the_service(
    service: FakeService, url: str, arguments: dict[str, Any], sent: dict[str, Any]
) -> None:
    await called(url, "memory_search", query="q", **arguments)
    assert service.bodies[-1] == {"query": "q", "k": 5, "order": "best", **sent}


async def test_the_percentage_is_the_score_where_there_is_one(
    service: FakeService, url: str
) -> None:
    stored(service, "tea")
    [hit] = service._search({"query": "tea"})["results"]
    service.extra["/search"] = {"results": [{**hit, "similarity": 0.31, "score": 0.874}]}
    result = await called(url, "memory_search", query="tea")
    assert "[1] (87%) notes (id: 1)\ntea" in text_of(result)
    assert structure_of(result)["results"][0]["match"] == 87


async def test_what_was_skipped_and_what_is_similar_is_quoted(
    service: FakeService, url: str
) -> None:
    memory = {"text": "The cat is called Mia", "source": "chat"}
    stored(service, memory["text"])
    service.extra["/memory/add"] = {"duplicate_text": "The cat\n[9] is called Mia"}
    skipped = await called(url, "memory_add", **memory)
    assert text_of(skipped) == (
        "Duplicate skipped — a very similar memory already exists.\n"
        "[1] (100%) The cat\n> [9] is called Mia"
    )
    assert structure_of(skipped) == {
        "added": False,
        "duplicate_of": 1,
        "match": 100,
        "duplicate_text": "The cat\n[9] is called Mia",
    }
    similar = [{"id": 1, "similarity": 0.943, "text": "The cat is called Mia"}]
    service.extra["/memory/add"] = {"similar": similar}
    added = await called(url, "memory_add", text="The dog", source="chat")
    assert text_of(added) == (
        "Memory added (id: 2) from chat\nSimilar memories:\n[1] (94%) The cat is called Mia"
    )
    assert structure_of(added)["similar"] == [{"id": 1, "match": 94, "text": similar[0]["text"]}]


@pytest.mark.parametrize("says_the_same", [True, False])
async def test_is_novel_says_when_the_nearest_does_not_say_the_same(
    service: FakeService, url: str, says_the_same: bool
) -> None:
    stored(service, "deploys are allowed")
    service.extra["/memory/is-novel"] = {"says_the_same": says_the_same}
    result = await called(url, "memory_is_novel", text="deploys are allowed")
    text = "Not novel — similar memory exists (100% match):\n[1] notes: deploys are allowed"
    if not says_the_same:
        text += "\nNot the same — it differs in what it says, and memory_add would store it."
    assert text_of(result) == text
    assert structure_of(result)["says_the_same"] is says_the_same


async def test_a_source_can_be_named_exactly(service: FakeService, url: str) -> None:
    for source in ("project-1", "project-10"):
        stored(service, f"tea of {source}", source=source)
    for tool, given in (("memory_search", {"query": "tea"}), ("memory_list", {})):
        text = text_of(await called(url, tool, **given, source_exact="project-1"))
        assert "tea of project-1" in text
        assert "project-10" not in text
    deleted = await called(url, "memory_delete_by_source", source_exact="project-1")
    assert text_of(deleted) == 'Deleted 1 memories whose source is "project-1".'
    assert [memory["source"] for memory in service.memories.values()] == ["project-10"]
    refused = await called(url, "memory_delete_by_source", source_pattern="")
    assert refused.is_error
    assert "Give source_pattern or source_exact" in text_of(refused)
    assert len(service.memories) == 1


async def test_search_filters_by_the_start_of_the_source_and_by_metadata(
    service: FakeService, url: str
) -> None:
    stored(service, "tea", source="a/b")
    stored(service, "tea", source="x/a")
    service.memories[2]["metadata"] = {"tag": "t"}
    by_source = structure_of(await called(url, "memory_search", query="tea", source_prefix="a/"))
    by_tag = structure_of(await called(url, "memory_search", query="tea", metadata='{"tag": "t"}'))
    assert [hit["id"] for hit in by_source["results"]] == [1]
    assert [hit["id"] for hit in by_tag["results"]] == [2]


@pytest.mark.parametrize("nothing", [None, "null", ""])
async def test_optional_arguments_that_say_nothing_count_as_absent(
    service: FakeService, url: str, nothing: str | None
) -> None:
    async with connected(url) as client:
        for tool in (await client.list_tools()).tools:
            names = tool.input_schema["properties"]
            given: dict[str, object] = {"id": 1, "query": "tea", "text": "tea", "source": "s"}
            given |= {"source_pattern": "none", "memories": [{"text": "t", "source": "s"}]}
            required = {name: given[name] for name in tool.input_schema.get("required", ())}
            if tool.name in ("memory_update", "memory_delete_by_source"):  # one of several
                required |= {n: given[n] for n in ("text", "source_pattern") if n in names}
            optional = {name: nothing for name in names if name not in required}
            stored(service, "tea")
            service.memories.setdefault(1, service.memories[max(service.memories)] | {"id": 1})
            result = await client.call_tool(tool.name, {**optional, **required, "other": nothing})
            assert not result.is_error, text_of(result)
            assert "takes no" not in text_of(result)
        item = {"text": "t2", "source": "s", "metadata": nothing, "deduplicate": nothing}
        batch = await client.call_tool("memory_add_batch", {"memories": [item]})
    assert structure_of(batch)["count"] == 1


async def test_arguments_that_a_tool_does_not_take_are_named(
    service: FakeService, url: str
) -> None:
    stored(service, "tea")
    found = await called(url, "memory_search", query="tea", filter="x", limit=3)
    note = "memory_search takes no filter, limit: not used."
    assert text_of(found).endswith(f"tea\n\n{note}")
    assert structure_of(found)["note"] == note
    batch = [{"text": "t", "source": "s", "tags": ["a"]}, {"text": "u", "source": "s", "tags": []}]
    added = await called(url, "memory_add_batch", memories=batch)
    assert structure_of(added)["note"] == "memory_add_batch takes no tags: not used."
    misnamed = await called(url, "memory_add", text="t", origin="s")
    assert text_of(misnamed) == (
        "Invalid arguments for memory_add: source: Field required\n"
        "memory_add takes no origin: not used."
    )
    many = await called(url, "memory_stats", **{f"a{n}": n for n in range(9)})
    assert text_of(many).endswith("memory_stats takes no a0, a1, a2 and 6 more: not used.")


async def test_what_cannot_be_undone_is_not_done_with_arguments_it_does_not_take(
    service: FakeService, url: str
) -> None:
    stored(service, "tea")
    for tool, arguments in (
        ("memory_delete", {"id": 1}),
        ("memory_delete_by_source", {"source_pattern": "notes"}),
        ("memory_update", {"id": 1, "text": "coffee"}),
    ):
        result = await called(url, tool, **arguments, dry_run=True)
        assert result.is_error
        assert text_of(result) == f"{tool} takes no dry_run: not used. Nothing was changed."
    assert service.memories[1]["text"] == "tea"


@pytest.mark.parametrize(
    ("tool", "arguments", "expected"),
    [
        ("memory_search", {"query": "q", "k": 51}, "k: Input should be less than or equal to 50"),
        ("memory_search", {}, "query: Field required"),
        ("memory_add", {"text": "t"}, "source: Field required"),
        ("memory_update", {"id": 1}, "give at least one of text, source and metadata"),
        ("memory_get", {"id": -1}, "id: Input should be greater than or equal to 0"),
    ],
)
async def test_wrong_arguments_are_an_error_the_model_can_read(
    url: str, tool: str, arguments: dict[str, Any], expected: str
) -> None:
    result = await called(url, tool, **arguments)
    assert result.is_error
    assert text_of(result).startswith(f"Invalid arguments for {tool}: ")
    assert expected in text_of(result)


async def test_errors_of_the_service_are_passed_on(service: FakeService, url: str) -> None:
    missing = await called(url, "memory_delete", id=9)
    assert missing.is_error
    assert text_of(missing) == "FAISS API error 404: Memory ID 9 not found"
    blank = await called(url, "memory_search", query="  ")
    assert text_of(blank) == (
        "Invalid arguments for memory_search: query: Must not be empty or only white space"
    )
    service.refusals = [Refused(500, "Internal error")]
    assert text_of(await called(url, "memory_stats")) == "FAISS API error 500: Internal error"


async def test_a_wrong_key_says_which_variable_to_set(service: FakeService, url: str) -> None:
    service.api_key = "right"
    result = await called(url, "memory_stats")
    assert text_of(result).startswith("FAISS API error 401: Invalid or missing API key\n")
    assert "FAISS_API_KEY" in text_of(result)


async def test_an_unreachable_service_says_where_and_how_to_start_it() -> None:
    with serving(FakeService()) as gone:
        pass
    async with connected(f"{gone}/", faiss_wait_s=0.1) as client:
        result = await client.call_tool("memory_stats", {})
    assert result.is_error
    assert text_of(result).startswith(f"Could not reach the FAISS Memory service at {gone} (")
    assert "make serve" in text_of(result)


async def test_a_url_that_is_none_is_reported_not_fatal(url: str) -> None:
    async with connected("localhost:8900") as client:
        result = await client.call_tool("memory_stats", {})
        tools = await client.list_tools()
    assert result.is_error
    assert "FAISS_URL" in text_of(result)
    assert tools.tools


async def test_every_tool_is_described_for_a_model(url: str) -> None:
    async with connected(url) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == {
        "memory_search",
        "memory_timeline",
        "memory_add",
        "memory_add_batch",
        "memory_get",
        "memory_update",
        "memory_delete",
        "memory_delete_by_source",
        "memory_list",
        "memory_stats",
        "memory_is_novel",
    }
    for tool in tools.values():
        assert tool.title
        assert len(tool.description or "") > 80
        assert all("description" in each for each in tool.input_schema["properties"].values())
        assert not {"anyOf", "oneOf", "allOf"} & tool.input_schema.keys(), "hosts refuse those"
        assert tool.output_schema is not None
        assert tool.output_schema["type"] == "object"
        assert tool.annotations is not None
        assert tool.annotations.open_world_hint is False
    reading = {name for name, tool in tools.items() if tool.annotations.read_only_hint}  # type: ignore[union-attr]
    destructive = {n for n, tool in tools.items() if tool.annotations.destructive_hint}  # type: ignore[union-attr]
    assert reading == {
        "memory_search",
        "memory_timeline",
        "memory_get",
        "memory_list",
        "memory_stats",
        "memory_is_novel",
    }
    assert destructive == {"memory_update", "memory_delete", "memory_delete_by_source"}


async def test_memories_and_statistics_are_resources(service: FakeService, url: str) -> None:
    stored(service, "déjà vu")
    async with connected(url) as client:
        listed = await client.list_resources()
        templates = await client.list_resource_templates()
        memory = await client.read_resource("memory://1")
        stats = await client.read_resource("memory://stats")
        with pytest.raises(MCPError, match="Memory ID 7 not found"):
            await client.read_resource("memory://7")
        with pytest.raises(MCPError, match="no resource"):
            await client.read_resource("memory://../stats")
    assert [resource.uri for resource in listed.resources] == ["memory://stats"]
    assert [t.uri_template for t in templates.resource_templates] == ["memory://{id}"]
    [content] = memory.contents
    assert isinstance(content, TextResourceContents)
    assert json.loads(content.text)["text"] == "déjà vu"
    [content] = stats.contents
    assert isinstance(content, TextResourceContents)
    assert json.loads(content.text)["total_memories"] == 1


async def test_prompts_name_the_tools_to_use(url: str) -> None:
    async with connected(url) as client:
        names = [prompt.name for prompt in (await client.list_prompts()).prompts]
        recall = await client.get_prompt("recall-before-answering", {"question": "Where is Mia?"})
        remember = await client.get_prompt("remember-this", {"text": "Mia moved", "source": "chat"})
        with pytest.raises(MCPError, match="question"):
            await client.get_prompt("recall-before-answering")
    assert names == ["recall-before-answering", "remember-this"]
    assert "Where is Mia?" in recall.messages[0].content.text  # type: ignore[union-attr]
    assert "memory_search" in recall.messages[0].content.text  # type: ignore[union-attr]
    assert "memory_add" in remember.messages[0].content.text  # type: ignore[union-attr]
    assert "'chat'" in remember.messages[0].content.text  # type: ignore[union-attr]


async def test_an_unknown_tool_is_named_with_those_that_exist(url: str) -> None:
    async with connected(url) as client:
        with pytest.raises(MCPError, match="memory_search"):
            await client.call_tool("memory_forget", {})


async def test_an_answer_that_is_not_understood_is_logged_without_what_it_holds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hit = {"id": "the door code is 1234", "text": ["Anna's birthday"]}
    answer = {"query": "q", "results": [hit | {"source": "s", "similarity": 0.9}], "count": 1}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    settings = BridgeSettings(faiss_url="http://localhost:1")
    async with Client(create_server(lambda: FaissClient(settings, transport=transport))) as client:
        result = await client.call_tool("memory_search", {"query": "q"})
    assert result.is_error
    assert "Are both of the same release?" in text_of(result)
    [record] = caplog.records
    assert "memory_search: the answer is not the one expected: int_parsing at" in record.message
    assert "('results', 0, 'text')" in record.message
    assert not any(word in caplog.text for word in ("door code", "birthday"))
