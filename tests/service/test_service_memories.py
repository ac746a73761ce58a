"""Every memory route of the running service, with the real model, on real files, over HTTP."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.service import Service, running_service

pytestmark = pytest.mark.service

MEMORY_KEYS = {"id", "text", "source", "timestamp", "metadata", "updated_at", "key"}
SCORE_KEYS = {"similarity", "score", "rrf_score", "bm25_score"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")
ADDED = "Memory added successfully"

DEPLOYS = "The backend goes to production every Friday after the standup."
BIRTHDAY = "My sister's birthday is on the third of March."
DATABASE = "The staging database listens on port 5433 of host db_staging_02."
COFFEE = "Anna drinks her coffee without sugar."

Json = dict[str, Any]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("memories")) as service:
        yield service


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    """A client of the service, which has forgotten everything."""
    with httpx.Client(base_url=service.base_url, timeout=120, trust_env=False) as client:
        while memories := client.get("/memories", params={"limit": 100}).json()["memories"]:
            ids = [memory["id"] for memory in memories]
            assert client.post("/memory/delete-batch", json={"ids": ids}).is_success
        yield client


def post(http: httpx.Client, path: str, body: Json | None = None, **more: Any) -> Json:
    answer = http.post(path, json=body, **more)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


def get(http: httpx.Client, path: str, **params: Any) -> Json:
    answer = http.get(path, params=params)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


def add(http: httpx.Client, text: str, source: str = "notes.md", **more: Any) -> int:
    body = {"text": text, "source": source, "deduplicate": False, **more}
    answer = post(http, "/memory/add", body)
    new_id = answer.pop("id")
    assert answer == {"success": True, "message": ADDED}
    assert isinstance(new_id, int)
    return new_id


def found_ids(http: httpx.Client, query: str, **more: Any) -> list[int]:
    answer = post(http, "/search", {"query": query, **more})
    return [hit["id"] for hit in answer["results"]]


def listed(http: httpx.Client, **params: Any) -> list[Json]:
    memories: list[Json] = get(http, "/memories", limit=100, **params)["memories"]
    return memories


def samples(http: httpx.Client) -> dict[str, float]:
    """Each metric without its labels, summed over them."""
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(http.get("/metrics").text):
        for sample in family.samples:
            totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    return totals


def test_an_empty_service_is_healthy_and_finds_nothing(http: httpx.Client) -> None:
    health = get(http, "/health")
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", health.pop("version"))
    assert health == {
        "status": "ok",
        "service": "faiss-memory",
        "total_memories": 0,
        "dimension": 384,
        "model": "all-MiniLM-L6-v2",
    }
    assert get(http, "/health/live") == {"status": "ok"}
    assert get(http, "/health/ready") == {"status": "ready"}
    empty = {"query": "anything", "results": [], "count": 0}
    assert post(http, "/search", {"query": "anything"}) == empty
    assert post(http, "/search", {"query": "anything", "hybrid": False}) == empty
    novel = {
        "is_novel": True,
        "threshold": 0.88,
        "most_similar": None,
        "says_the_same": False,
    }
    assert post(http, "/memory/is-novel", {"text": "anything"}) == novel
    assert get(http, "/memories")["memories"] == []
    none = {"duplicate_pairs": 0, "removed": 0, "dry_run": True}
    assert post(http, "/memory/deduplicate") == none


def test_what_is_added_is_found_by_its_meaning_and_by_its_words(http: httpx.Client) -> None:
    deploys, _, database, _ = (add(http, text) for text in (DEPLOYS, BIRTHDAY, DATABASE, COFFEE))

    meant = post(http, "/search", {"query": "When do we release the server?", "hybrid": False})
    assert meant["results"][0]["id"] == deploys
    assert meant["results"][0].keys() == MEMORY_KEYS | {"similarity"}
    assert meant["count"] == 4

    worded = post(http, "/search", {"query": "db_staging_02", "vector_weight": 0, "k": 1})
    [hit] = worded["results"]
    assert hit.keys() == MEMORY_KEYS | SCORE_KEYS
    assert (hit["id"], hit["text"], hit["source"]) == (database, DATABASE, "notes.md")
    assert (hit["metadata"], hit["key"]) == ({}, None)
    assert TIME.fullmatch(hit["timestamp"])
    assert hit["rrf_score"] == round(1 / 60, 6)
    assert hit["bm25_score"] > 0
    assert found_ids(http, DEPLOYS, threshold=0.95) == [deploys]
    assert found_ids(http, "Anna coffee sugar", k=2)[0] == deploys + 3


def test_words_past_the_models_reach_are_still_found(http: httpx.Client) -> None:
    add(http, COFFEE)
    long = add(http, "The quarterly report goes on and on. " * 200 + "It ends with zygomorphic.")
    assert found_ids(http, "zygomorphic", k=1) == [long]


def test_the_longest_text_comes_back_as_it_was_sent(http: httpx.Client) -> None:
    text = ("Grüße, 世界 😀\0\x1f\n" * 5_000)[:50_000]
    memory_id = add(http, text, metadata={"\0": ["😀", None, 2**60, 1.5]})
    memory = get(http, f"/memory/{memory_id}")
    assert memory["text"] == text
    assert memory["metadata"] == {"\0": ["😀", None, 2**60, 1.5]}


def test_the_same_words_in_another_case_and_spacing_are_a_duplicate(http: httpx.Client) -> None:
    first = add(http, COFFEE)
    same = {"text": f"  {COFFEE.upper()}\n", "source": "other.md"}
    answer = post(http, "/memory/add", same)
    assert answer.pop("similarity") == pytest.approx(1, abs=1e-5)
    assert answer == {
        "success": True,
        "id": None,
        "message": "Duplicate skipped",
        "duplicate_of": first,
        "duplicate_text": COFFEE,
    }
    assert get(http, "/health")["total_memories"] == 1


def test_a_batch_skips_what_is_stored_and_what_it_holds_twice(http: httpx.Client) -> None:
    stored = add(http, COFFEE)
    texts = [DEPLOYS, COFFEE, BIRTHDAY, DEPLOYS]
    items: list[Json] = [{"text": text, "source": "batch.md"} for text in texts]
    items.append({**items[0], "deduplicate": False})

    answer = post(http, "/memory/add-batch", {"memories": items})

    ids = answer["ids"]
    assert ids == sorted(ids)
    quoted = [answer["results"][at].pop("duplicate_text") for at in (1, 3)]
    assert quoted == [COFFEE, DEPLOYS]
    for at in (1, 3):
        assert answer["results"][at].pop("similarity") == pytest.approx(1, abs=1e-5)
    assert answer == {
        "success": True,
        "ids": ids,
        "count": 3,
        "message": "Added 3 memories",
        "results": [
            {"id": ids[0], "duplicate_of": None},
            {"id": None, "duplicate_of": stored},
            {"id": ids[1], "duplicate_of": None},
            {"id": None, "duplicate_of": ids[0]},
            {"id": ids[2], "duplicate_of": None},
        ],
    }
    assert [memory["id"] for memory in listed(http, source="batch.md")] == ids


def test_filters_choose_among_memories_of_the_same_text(http: httpx.Client) -> None:
    first = add(http, COFFEE, "a/notes.md", metadata={"kind": "habit", "n": 1})
    second = add(http, COFFEE, "a/diary.md", metadata={"kind": "habit", "n": 2})
    third = add(http, COFFEE, "b/notes.md")
    since = get(http, f"/memory/{second}")["timestamp"]
    cases: list[tuple[Json, set[int]]] = [
        ({}, {first, second, third}),
        ({"source": "notes"}, {first, third}),
        ({"source": "NOTES"}, set()),
        ({"source_prefix": "a/"}, {first, second}),
        ({"metadata": {"kind": "habit"}}, {first, second}),
        ({"metadata": {"kind": "habit", "n": 2}}, {second}),
        ({"since": since}, {second, third}),
        ({"since": since, "until": since, "source": "diary"}, {second}),
    ]
    for filters, expected in cases:
        for hybrid in (True, False):
            found = found_ids(http, "coffee", hybrid=hybrid, **filters)
            assert set(found) == expected, (filters, hybrid)


@pytest.mark.parametrize(
    ("stored", "query"),
    [
        ("The laptop was $1,299.99 with the dock.", "1299"),
        ("Die Frist endet am 5. März 2026.", "2026-03-05"),
        ("Le thé vert est prêt.", "thé"),
        ("Spotkanie w Łodzi o ósmej.", "lodzi"),
        ("الاجتماع في مستشفى المدينة سنة ٢٠٢٦", "مستشفي 2026"),
        ("งานวันนี้คือซื้อแมวสี่ตัว", "สี่"),
        ("Trip to 🇩🇪 with 👨\u200d👩\u200d👧", "🇩🇪"),
    ],
)
def test_words_are_found_however_they_are_written(
    http: httpx.Client, stored: str, query: str
) -> None:
    for text in ("The 1 and the 299, 05 and 03; 🇪🇸 🇩🇰 สวัสดี", DEPLOYS, DATABASE, COFFEE):
        add(http, text)
    wanted = add(http, stored)

    assert found_ids(http, query, vector_weight=0)[:1] == [wanted]


def test_a_source_is_found_in_either_unicode_form(http: httpx.Client) -> None:
    wanted = add(http, COFFEE, unicodedata.normalize("NFD", "Café/Übersicht.md"))

    assert found_ids(http, "coffee", source_prefix="Café/Ü") == [wanted]
    assert [memory["id"] for memory in listed(http, source="Übersicht")] == [wanted]


def test_days_and_months_count_whole_wherever_memories_are_chosen(http: httpx.Client) -> None:
    times = ["2026-03-31T23:59:59.999999Z", "2026-03-30T23:30:00Z", "2026-04-01T00:00:00Z"]
    lines = [{"text": COFFEE, "source": f"{n}", "timestamp": t} for n, t in enumerate(times)]
    content = "".join(json.dumps(line) + "\n" for line in lines)
    assert http.post("/import?deduplicate=false", content=content).is_success

    def found_by(**where: str) -> list[set[str]]:
        query = {"query": "coffee", **where}
        hits = post(http, "/search", query)["results"]
        [batched] = post(http, "/search/batch", {"queries": [query]})["results"]
        lines = http.get("/export", params=where).text.splitlines()[1:-1]
        found = [hits, batched["results"], listed(http, **where), map(json.loads, lines)]
        return [{memory["source"] for memory in memories} for memories in found]

    assert found_by(until="2026-03-31") == [{"0", "1"}] * 4
    assert found_by(since="2026-03-31", until="2026-03-31") == [{"0"}] * 4
    assert found_by(since="2026-03-31", until="2026-03", timezone="Europe/Berlin") == [{"1"}] * 4
    assert found_by(since="2026-04") == [{"2"}] * 4
    assert found_by(until="7d") == [{"0", "1", "2"}] * 4
    assert found_by(since="yesterday") == [set()] * 4
    for where in ({"since": "last week"}, {"until": "2026-02-30"}, {"timezone": "Berlin"}):
        assert http.get("/memories", params=where).status_code == 422
        assert http.get("/export", params=where).status_code == 422
        assert http.post("/search", json={"query": "coffee", **where}).status_code == 422
    assert [memory["source"] for memory in listed(http, order="desc")] == ["2", "0", "1"]


def test_a_batch_of_searches_answers_as_each_alone(http: httpx.Client) -> None:
    for text in (DEPLOYS, BIRTHDAY, DATABASE, COFFEE):
        add(http, text)
    queries: list[Json] = [
        {"query": "production release"},
        {"query": "who likes coffee", "k": 1, "hybrid": False},
        {"query": "port of the database", "threshold": 0.3},
        {"query": "sister", "source": "no such source"},
    ]
    alone = [post(http, "/search", query) for query in queries]
    assert post(http, "/search/batch", {"queries": queries}) == {"results": alone}


def test_hits_are_listed_by_time_explained_and_shown_by_day(http: httpx.Client) -> None:
    lines = [
        {"text": COFFEE, "source": "diary", "timestamp": "2026-03-01T23:30:00Z"},
        {"text": DEPLOYS, "source": "diary", "timestamp": "2026-03-03T08:00:00Z"},
        {
            "text": "Anna has switched to tea.",
            "source": "diary",
            "timestamp": "2026-04-01T08:00:00Z",
        },
    ]
    assert http.post("/import", content="\n".join(map(json.dumps, lines))).is_success
    asked = {"query": "what does Anna drink?", "k": 2, "order": "newest", "explain": True}

    answer = post(http, "/search", asked)

    assert [hit["text"] for hit in answer["results"]] == [lines[2]["text"], COFFEE]
    assert answer["explain"]["candidates"] == 3
    for hit in answer["results"]:
        parts = hit["explain"]["score"]
        assert "Anna" in hit["explain"]["matched"]
        total = parts["meaning"] + parts["words"] + parts["neighbours"]
        assert min(total, 0.99) * parts["recency"] == pytest.approx(hit["score"], abs=1e-5)
    aged = post(http, "/search", {**asked, "recency": {"half_life_days": 1, "weight": 0.2}})
    for hit, plain in zip(aged["results"], answer["results"], strict=True):
        assert hit["score"] == pytest.approx(0.8 * plain["score"], abs=1e-4)
    assert post(http, "/search/batch", {"queries": [asked]}) == {"results": [answer]}

    shown = post(http, "/timeline", {"query": "Anna", "k": 2, "timezone": "Europe/Berlin"})
    assert [day["date"] for day in shown["days"]] == ["2026-03-02", "2026-04-01"]
    [coffee] = shown["days"][0]["memories"]
    assert coffee["before"] is None
    assert coffee["after"]["text"] == DEPLOYS
    assert {*SCORE_KEYS, "before", "after"} <= coffee.keys()
    newest = post(http, "/timeline", {"k": 1, "until": "2026-03"})["days"]
    assert [[m["text"] for m in day["memories"]] for day in newest] == [[DEPLOYS]]


def test_a_memory_is_upserted_read_changed_and_deleted(http: httpx.Client) -> None:
    body = {"text": COFFEE, "source": "notes.md", "key": "anna/coffee", "metadata": {"id": 7}}
    created = post(http, "/memory/upsert", body)
    memory_id = created["id"]
    assert created == {"success": True, "id": memory_id, "created": True}
    replaced = post(http, "/memory/upsert", {**body, "text": DATABASE})
    assert replaced == {"success": True, "id": memory_id, "created": False}

    memory = get(http, f"/memory/{memory_id}")
    assert memory.keys() == MEMORY_KEYS
    assert (memory["text"], memory["metadata"]) == (DATABASE, {"id": 7})

    changed = http.patch(f"/memory/{memory_id}", json={"text": BIRTHDAY})
    assert changed.status_code == 200
    assert changed.json() == {
        **memory,
        "text": BIRTHDAY,
        "updated_at": changed.json()["updated_at"],
    }
    assert changed.json()["updated_at"] > memory["updated_at"]
    # The new text is what is searched, by meaning and by words; the old one is gone.
    assert found_ids(http, BIRTHDAY, threshold=0.99) == [memory_id]
    assert found_ids(http, DATABASE, threshold=0.9) == []

    deleted = http.delete(f"/memory/{memory_id}")
    assert deleted.json() == {
        "success": True,
        "deleted_id": memory_id,
        "deleted_text": BIRTHDAY,
    }
    for method in ("GET", "PATCH", "DELETE"):
        gone = http.request(method, f"/memory/{memory_id}", content=b'{"source":"x"}')
        assert gone.status_code == 404
        assert gone.json() == {"detail": f"Memory ID {memory_id} not found"}
    assert add(http, BIRTHDAY) > memory_id


def test_a_source_can_be_named_exactly(http: httpx.Client) -> None:
    meant, *others = [
        add(http, f"Fact of {source}.", source)
        for source in ("project-1", "project-10", "project-1/a", "Project-1")
    ]
    exact = {"source_exact": "project-1"}
    found = post(http, "/search", {"query": "fact", **exact})
    batch = post(http, "/search/batch", {"queries": [{"query": "fact", "hybrid": False, **exact}]})
    for results in (found["results"], batch["results"][0]["results"]):
        assert [hit["id"] for hit in results] == [meant]
    assert get(http, "/memories", **exact)["total"] == 1
    assert f'"id":{meant},' in http.get("/export", params=exact).text.splitlines()[1]
    assert post(http, "/memory/delete-by-source", exact)["deleted_count"] == 1
    assert [memory["id"] for memory in listed(http)] == others


def test_memories_are_deleted_by_source_and_by_ids(http: httpx.Client) -> None:
    ids = [add(http, f"Fact number {n}.", f"{'ab'[n % 2]}/facts.md") for n in range(6)]
    by_source = post(http, "/memory/delete-by-source", {"source_pattern": "a/fac"})
    assert by_source == {"success": True, "deleted_count": 3}
    wrong_case = post(http, "/memory/delete-by-source", {"source_pattern": "FACTS"})
    assert wrong_case == {"success": True, "deleted_count": 0}
    by_ids = post(http, "/memory/delete-batch", {"ids": [ids[0], ids[1], ids[3], ids[3]]})
    assert by_ids == {"success": True, "deleted_count": 2, "missing": [ids[0]]}
    assert [memory["id"] for memory in listed(http)] == [ids[5]]
    assert found_ids(http, "Fact number 1.") == [ids[5]]


def test_novel_is_what_is_less_similar_than_the_threshold(http: httpx.Client) -> None:
    stored = add(http, COFFEE)
    known = post(http, "/memory/is-novel", {"text": "Anna takes no sugar in her coffee."})
    similarity = known["most_similar"].pop("similarity")
    assert known["most_similar"] == get(http, f"/memory/{stored}")
    for threshold, novel in ((similarity, False), (min(1, similarity + 1e-4), True)):
        body = {"text": "Anna takes no sugar in her coffee.", "threshold": threshold}
        answer = post(http, "/memory/is-novel", body)
        assert (answer["is_novel"], answer["threshold"]) == (novel, threshold)
    unrelated = post(http, "/memory/is-novel", {"text": DATABASE})
    assert unrelated["is_novel"] is True
    assert unrelated["most_similar"]["similarity"] < 0.5


def test_pages_hold_every_memory_once_oldest_first(http: httpx.Client) -> None:
    batch = [{"text": f"Fact number {n}.", "source": f"{n % 2}.md"} for n in range(25)]
    ids = post(http, "/memory/add-batch", {"memories": batch, "deduplicate": False})["ids"]

    first = get(http, "/memories")
    assert [memory["id"] for memory in first["memories"]] == ids[:20]
    assert first["memories"][0].keys() == MEMORY_KEYS
    assert {name: first[name] for name in ("total", "offset", "limit")} == {
        "total": 25,
        "offset": 0,
        "limit": 20,
    }
    last = get(http, "/memories", offset=20, limit=7)
    assert [memory["id"] for memory in last["memories"]] == ids[20:]
    assert get(http, "/memories", offset=25)["memories"] == []

    query: Json = {"limit": 4, "source": "1.md", "order": "desc"}
    page = get(http, "/memories", **query)
    newest_first = page["memories"]
    while page["next_cursor"]:
        page = get(http, "/memories", **query, cursor=page["next_cursor"])
        newest_first += page["memories"]
    assert [memory["id"] for memory in newest_first] == ids[1::2][::-1]


def test_deduplication_reports_then_keeps_the_earliest_of_each_group(http: httpx.Client) -> None:
    long = COFFEE + " She has done so since the year when she lived in the north of Italy. " * 2
    earliest = add(http, long)
    other = add(http, DATABASE)
    copies = [add(http, long), add(http, long.lower())]

    dry = post(http, "/memory/deduplicate", {"threshold": 0.95})
    assert dry.keys() == {"duplicate_pairs", "would_remove", "dry_run", "pairs"}
    assert (dry["duplicate_pairs"], dry["would_remove"], dry["dry_run"]) == (3, 2, True)
    assert {(pair["id_a"], pair["id_b"]) for pair in dry["pairs"]} == {
        (earliest, copies[0]),
        (earliest, copies[1]),
        (copies[0], copies[1]),
    }
    for pair in dry["pairs"]:
        assert pair.keys() == {"id_a", "id_b", "similarity", "text_a", "text_b"}
        assert pair["similarity"] == 1.0
        assert pair["text_a"] == long[:120]
    assert get(http, "/health")["total_memories"] == 4

    real = post(http, "/memory/deduplicate", {"threshold": 0.95, "dry_run": False})
    assert real == {"duplicate_pairs": 3, "removed": 2, "remaining": 2, "dry_run": False}
    assert [memory["id"] for memory in listed(http)] == [earliest, other]


@pytest.fixture
def workspace(service: Service, tmp_path: Path) -> Path:
    files = {
        "guide.md": f"# Guide\n\n{DEPLOYS}\n\n## Data\n\n{DATABASE}\n",
        "people/anna.txt": COFFEE,
        "people/family.rst": f"Family\n======\n\n{BIRTHDAY}\n",
        "paper.pdf": "%PDF-1.7",
    }
    for path, text in files.items():
        target = service.workspace_dir / path
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)
    (tmp_path / "secret.md").write_text("The secret outside.")
    (service.workspace_dir / "way_out.md").unlink(missing_ok=True)
    (service.workspace_dir / "way_out.md").symlink_to(tmp_path / "secret.md")
    return service.workspace_dir


def test_a_workspace_is_read_and_read_again_after_a_change(
    http: httpx.Client, workspace: Path
) -> None:
    mine = add(http, "Said in a conversation.", "chat")
    sources = ["guide.md", "people", "*.pdf"]

    built = post(http, "/index/build", {"sources": sources})

    chunks = {m["id"]: (m["source"], m["text"]) for m in listed(http) if m["id"] != mine}
    location = Path(built.pop("backup_location"))
    [skipped] = built.pop("skipped")
    assert built == {
        "success": True,
        "files_processed": 3,
        "memories_added": len(chunks),
        "message": "Index rebuilt successfully",
        "memories_removed": 0,
        "unchanged": 0,
    }
    assert location.is_dir()
    assert skipped.keys() == {"path", "reason"}
    assert skipped["path"] == "paper.pdf"
    files = {source.rsplit(":chunk_", 1)[0] for source, _ in chunks.values()}
    assert files == {"guide.md", "people/anna.txt", "people/family.rst"}
    for text in (DEPLOYS, DATABASE, COFFEE, BIRTHDAY):
        assert text in get(http, f"/memory/{found_ids(http, text, k=1)[0]}")["text"]

    anna = next(i for i, (source, _) in chunks.items() if source.startswith("people/anna"))
    (workspace / "people/anna.txt").write_text("Anna switched to green tea.")
    rebuilt = post(http, "/index/build", {"sources": sources})
    assert rebuilt["memories_added"] == rebuilt["memories_removed"] == 1
    assert rebuilt["unchanged"] == len(chunks) - 1
    after = {memory["id"] for memory in listed(http)}
    assert after > chunks.keys() - {anna} | {mine}
    assert anna not in after
    assert "green tea" in get(http, f"/memory/{max(after)}")["text"]

    everything = post(http, "/index/build", {"sources": ["people"], "replace_all": True})
    assert everything["memories_removed"] == len(after) - 2
    assert {memory["source"].partition(":")[0] for memory in listed(http)} == {
        "people/anna.txt",
        "people/family.rst",
    }


def test_a_build_never_leaves_the_workspace(
    http: httpx.Client, workspace: Path, tmp_path: Path
) -> None:
    add(http, COFFEE)
    (workspace / "way").unlink(missing_ok=True)
    (workspace / "way").symlink_to(tmp_path, target_is_directory=True)
    before = get(http, "/memories?limit=100")
    for source in (
        str(tmp_path / "secret.md"),
        "../../secret.md",
        "/etc/passwd",
        "way_out.md",
        "way",
        "way/secret.md",
        "no_such_file.md",
        "paper.pdf",
    ):
        for sources in ([source], ["guide.md", source]):
            if source == "paper.pdf" and len(sources) == 2:
                continue  # the guide is read, the paper is skipped
            answer = http.post("/index/build", json={"sources": sources, "replace_all": True})
            assert answer.status_code == 400, (sources, answer.text)
            assert isinstance(answer.json()["detail"], str)
            assert "secret outside" not in answer.text
    assert get(http, "/memories?limit=100") == before

    all_of_it = post(http, "/index/build")
    assert "way_out.md" in {skipped["path"] for skipped in all_of_it["skipped"]}
    assert not any("secret outside" in memory["text"] for memory in listed(http))
    (workspace / "way").unlink()


def test_backups_are_listed_verified_and_restored(http: httpx.Client) -> None:
    kept = add(http, COFFEE)
    before = {backup["name"] for backup in get(http, "/backups")["backups"]}

    made = post(http, "/backup", params={"prefix": "before lunch/é"})
    location = Path(made.pop("backup_path"))
    assert made == {"success": True, "message": "Backup created successfully"}
    assert re.fullmatch(r"before_lunch___\d{8}_\d{6}(_\d+)?", location.name)
    assert location.is_dir()

    backups = get(http, "/backups")
    assert backups["count"] == len(backups["backups"])
    newest = backups["backups"][0]
    assert newest.keys() >= {"name", "created", "total_memories", "size_bytes", "verified_at"}
    assert (newest["name"], newest["total_memories"]) == (location.name, 1)
    created = [backup["created"] for backup in backups["backups"]]
    assert created == sorted(created, reverse=True)
    verified = post(http, "/backup/verify", {"backup_name": location.name})
    assert verified == {"backup_name": location.name, "ok": True, "problems": []}

    http.delete(f"/memory/{kept}")
    later = add(http, DATABASE)
    restored = post(http, "/restore", {"backup_name": location.name})
    assert restored == {
        "success": True,
        "restored_from": location.name,
        "total_memories": 1,
        "message": "Restored successfully",
    }
    assert found_ids(http, "coffee") == [kept]
    # An id that was given out once is never given to another memory.
    assert add(http, DATABASE) > later
    names = {backup["name"] for backup in get(http, "/backups")["backups"]} - before
    [state_before] = [name for name in names if name.startswith("pre_restore_")]
    post(http, "/restore", {"backup_name": state_before})
    assert [memory["id"] for memory in listed(http)] == [later]

    for path in ("/restore", "/backup/verify"):
        for name in ("../backups", f"{location.name}/", "nothing_20260101_000000", "."):
            answer = http.post(path, json={"backup_name": name})
            assert answer.status_code == 404
            assert answer.json() == {"detail": f"Backup '{name}' not found"}


def test_a_damaged_backup_is_not_restored(http: httpx.Client) -> None:
    kept = add(http, COFFEE)
    backup = Path(post(http, "/backup")["backup_path"])
    largest = max(backup.iterdir(), key=lambda path: path.stat().st_size)
    damaged = bytearray(largest.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    largest.unlink()  # other backups may share the file
    largest.write_bytes(damaged)

    verified = post(http, "/backup/verify", {"backup_name": backup.name})
    assert (verified["ok"], len(verified["problems"]) > 0) == (False, True)
    assert http.post("/restore", json={"backup_name": backup.name}).status_code == 409
    assert found_ids(http, "coffee") == [kept]


def test_stats_and_metrics_tell_the_same(http: httpx.Client) -> None:
    before = samples(http)
    add(http, COFFEE)
    post(http, "/search", {"query": "a query that no other test asks"})
    stats, after = get(http, "/stats"), samples(http)

    contract = {"total_memories", "dimension", "model", "created_at", "last_updated"}
    assert stats.keys() >= contract | {"index_size_bytes", "backup_count"}
    assert (stats["total_memories"], stats["dimension"]) == (1, 384)
    assert TIME.fullmatch(stats["created_at"])
    assert datetime.fromisoformat(stats["last_updated"]) > datetime.fromisoformat(
        stats["created_at"]
    )
    assert stats["index_size_bytes"] > 0
    assert after["faiss_memory_memories"] == 1
    assert after["faiss_memory_lsn"] == stats["lsn"]
    assert after["faiss_memory_index_up"] == 1
    assert (
        after["faiss_memory_embedder_batches_total"] > before["faiss_memory_embedder_batches_total"]
    )
    assert after["faiss_memory_embedder_texts_total"] > before["faiss_memory_embedder_texts_total"]
    assert after["faiss_memory_requests_total"] > before["faiss_memory_requests_total"]
    assert "faiss_memory_request_seconds_bucket" in after
    assert "faiss_memory_embedder_queue_depth" in after


def test_the_documentation_needs_nothing_from_elsewhere(http: httpx.Client) -> None:
    for page in ("/docs", "/redoc"):
        html = http.get(page).text
        references = re.findall(r'(?:src|href|spec-url)="([^"]*)"', html)
        assert references
        for reference in references:
            assert reference.startswith("/"), "a page of this service asks another server"
            assert http.get(reference).status_code == 200, reference
    spec = get(http, "/openapi.json")
    assert spec["openapi"].startswith("3.1")
    assert spec["info"]["title"] == "FAISS Memory API"
    assert spec["components"]["securitySchemes"]["ApiKey"]["name"] == "X-API-Key"
    operations = {
        operation["operationId"] for path in spec["paths"].values() for operation in path.values()
    }
    assert operations >= {"searchMemory", "addMemory", "isNovel", "listMemories", "getStats"}


def test_a_restart_keeps_everything_and_embeds_nothing(
    service: Service, http: httpx.Client
) -> None:
    for text in (DEPLOYS, BIRTHDAY, DATABASE):
        add(http, text, metadata={"text": text})
    http.delete(f"/memory/{add(http, COFFEE)}")
    queries: list[Json] = [
        {"query": query, "hybrid": hybrid, "metadata": filters}
        for query in ("When do we release?", "port 5433", COFFEE)
        for hybrid in (True, False)
        for filters in (None, {"text": DATABASE})
    ]
    answers = post(http, "/search/batch", {"queries": queries})
    memories, backups, stats = listed(http), get(http, "/backups"), get(http, "/stats")

    service.restart()

    with httpx.Client(base_url=service.base_url, timeout=120, trust_env=False) as http_after:
        assert listed(http_after) == memories
        assert get(http_after, "/backups")["count"] >= backups["count"]
        stats_after = get(http_after, "/stats")
        for name in ("total_memories", "lsn", "created_at", "last_updated"):
            assert stats_after[name] == stats[name]
        # One is what readiness asks for.
        assert samples(http_after)["faiss_memory_embedder_texts_total"] <= 1 < len(memories)
        assert post(http_after, "/search/batch", {"queries": queries}) == answers


def test_another_fact_is_stored_however_similar(http: httpx.Client) -> None:
    facts = [
        ("Production deployment is allowed", "Production deployment is not allowed"),
        ("Alice reports to Bob", "Bob reports to Alice"),
        ("ฉันชอบแมว", "ฉันชอบหมา"),
        ("👍", "👎"),
    ]
    for stored, opposite in facts:
        first = add(http, stored)
        answer = post(http, "/memory/add", {"text": opposite, "source": "s"})
        assert answer["id"] == first + 1, opposite
        if stored.isascii():
            assert first in [like["id"] for like in answer["similar"]]
        novelty = post(http, "/memory/is-novel", {"text": f"{opposite}!"})
        assert novelty["says_the_same"] is True
    none = {"duplicate_pairs": 0, "removed": 0, "dry_run": True}
    assert post(http, "/memory/deduplicate") == none
    alike = post(http, "/memory/deduplicate", {"by": "similarity"})
    assert alike["would_remove"] >= 2
