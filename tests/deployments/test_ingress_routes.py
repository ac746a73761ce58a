"""Each route's answer, literally as the contract gives it."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from deployments.http import services
from engine.errors import EmbeddingError, RemoteError
from engine.operations.operation import Write
from engine.operations.reads import Search
from engine.records import SearchHits, SearchQuery
from engine.store.layout.remembered_outcomes import CALLERS_KEY
from engine.workspace import planned_builds
from tests.support.fakes import embedding_of, query_of
from tests.support.ingress_under_test import Ingress, make_ingress

START_US = 1_767_225_600_000_000
"""The beginning of 2026."""
FIRST_TIME = "2026-01-01T00:00:00.000001+00:00"


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write comes a microsecond after the one before."""
    ticks = itertools.count(START_US + 1)
    monkeypatch.setattr("engine.writing.writer.now_us", lambda: next(ticks))


@pytest.fixture
def ingress() -> Ingress:
    return make_ingress()


def test_health_says_what_answers_and_how_much_it_remembers(ingress: Ingress) -> None:
    ingress.add("alpha")

    assert ingress.http.get("/health").json() == {
        "status": "ok",
        "service": "faiss-memory",
        "version": "1.2.3",
        "total_memories": 1,
        "dimension": 16,
        "model": "all-MiniLM-L6-v2",
    }
    assert ingress.http.get("/health/live").json() == {"status": "ok"}
    assert ingress.http.get("/health/ready").json() == {"status": "ready"}


def test_stats_describe_the_store(ingress: Ingress) -> None:
    stats = ingress.http.get("/stats").json()

    contract = {
        "total_memories": 0,
        "dimension": 16,
        "model": "hashed-words",
        "last_updated": None,
        "backup_count": 0,
    }
    assert {key: stats[key] for key in contract} == contract
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]{15}\+00:00", stats["created_at"])
    assert stats["index_size_bytes"] > 0


def test_an_added_memory_is_found_with_its_scores(ingress: Ingress) -> None:
    answer = ingress.http.post(
        "/memory/add", json={"text": "naïve café ☕", "source": "s", "metadata": {"id": 99}}
    )
    assert answer.json() == {"success": True, "id": 1, "message": "Memory added successfully"}

    answer = ingress.http.post("/search", json={"query": "café"})

    cosine = float(embedding_of("café") @ embedding_of("naïve café ☕"))
    asked = query_of("café")
    query = SearchQuery(text="café", pieces=asked.pieces)
    [[found]] = ingress.index.index.search(asked.vector[None], [query])
    assert found.score is not None
    assert found.bm25_score is not None
    assert answer.json() == {
        "query": "café",
        "results": [
            {
                "id": 1,
                "text": "naïve café ☕",
                "source": "s",
                "timestamp": FIRST_TIME,
                "metadata": {"id": 99},
                "updated_at": FIRST_TIME,
                "key": None,
                "similarity": round(cosine, 6),
                "score": round(found.score, 6),
                "rrf_score": 0.016667,
                "bm25_score": round(found.bm25_score, 6),
            }
        ],
        "count": 1,
    }
    assert "café ☕".encode() in answer.content
    assert answer.content.find(b"\n") == len(answer.content) - 1
    assert answer.headers["content-type"] == "application/json"


def test_a_vector_search_has_similarity_alone(ingress: Ingress) -> None:
    ingress.add("alpha")

    [hit] = ingress.http.post("/search", json={"query": "alpha", "hybrid": False}).json()["results"]

    assert hit["similarity"] == 1.0
    assert "rrf_score" not in hit
    assert "bm25_score" not in hit


def test_a_search_of_an_empty_store_finds_nothing(ingress: Ingress) -> None:
    answer = ingress.http.post("/search", json={"query": "alpha"}).json()
    assert answer == {"query": "alpha", "results": [], "count": 0}


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"source": "B.md"}, [2]),
        ({"source_prefix": "a"}, [1, 3]),
        ({"source_exact": "a.md"}, [1]),
        ({"source_exact": "b.md"}, []),
        ({"source_exact": ""}, [1, 2, 3]),
        ({"metadata": {"kind": "x", "n": 1}}, [3]),
        ({"since": "2026-01-01T00:00:00.000002Z"}, [2, 3]),
        ({"until": "2026-01-01T01:00:00.000001+01:00"}, [1]),
        ({"since": "2026-01-01T00:00:00.000002", "until": "2026-01-01T00:00:00.000002"}, [2]),
        ({"since": "2026-01-01T01:00:00.000002", "timezone": "Europe/Berlin"}, [2, 3]),
        ({"since": "2026-01-01", "until": "2026-01-01"}, [1, 2, 3]),
        ({"until": "2025-12-31"}, []),
        ({"until": "2025-12-31", "timezone": "America/New_York"}, [1, 2, 3]),
        ({"since": "2026-01", "until": "2026-01", "timezone": None}, [1, 2, 3]),
        ({"since": "2026-01-02"}, []),
        ({"until": "Yesterday"}, [1, 2, 3]),
        ({"until": "7d"}, [1, 2, 3]),
        ({"since": "today"}, []),
    ],
)
def test_a_search_keeps_to_its_conditions(
    ingress: Ingress, conditions: dict[str, object], expected: list[int]
) -> None:
    ingress.add("alpha", "a.md", metadata={"kind": "x"})
    ingress.add("alpha", "B.md")
    ingress.add("alpha", "a/b.md", metadata={"kind": "x", "n": 1})

    answer = ingress.http.post("/search", json={"query": "alpha", **conditions}).json()

    assert [hit["id"] for hit in answer["results"]] == expected


@pytest.mark.parametrize("path", ["/memories", "/export"])
def test_a_day_counts_whole_in_lists_and_exports(ingress: Ingress, path: str) -> None:
    ingress.add("alpha")

    for params, n_found in (
        ({"until": "2026-01-01", "since": "2026-01"}, 1),
        ({"until": "2025-12-31"}, 0),
        ({"until": "2025-12-31", "timezone": "America/New_York"}, 1),
    ):
        answer = ingress.http.get(path, params=params)
        assert answer.text.count('"alpha"') == n_found, params


def test_a_batch_search_answers_each_query_in_order_with_one_embedding_call(
    ingress: Ingress,
) -> None:
    ingress.add("alpha")
    ingress.add("beta")

    answer = ingress.http.post(
        "/search/batch", json={"queries": [{"query": "beta", "k": 1}, {"query": "alpha"}]}
    ).json()

    assert [one["query"] for one in answer["results"]] == ["beta", "alpha"]
    assert [[hit["id"] for hit in one["results"]] for one in answer["results"]] == [[2], [1, 2]]
    assert ingress.embedder.batches == [["beta", "alpha"]]


def test_a_duplicate_is_skipped_and_named(ingress: Ingress) -> None:
    body = {"text": "alpha beta", "source": "s"}
    ingress.http.post("/memory/add", json=body)

    assert ingress.http.post("/memory/add", json=body).json() == {
        "success": True,
        "id": None,
        "message": "Duplicate skipped",
        "duplicate_of": 1,
        "similarity": 1.0,
        "duplicate_text": "alpha beta",
    }


def test_an_added_memory_names_those_it_is_much_like(ingress: Ingress) -> None:
    ingress.add("bob reports to alice")

    answer = ingress.http.post("/memory/add", json={"text": "alice reports to bob", "source": "s"})

    assert answer.json() == {
        "success": True,
        "id": 2,
        "message": "Memory added successfully",
        "similar": [{"id": 1, "similarity": 1.0, "text": "bob reports to alice"}],
    }


def test_in_a_batch_an_items_own_deduplicate_wins(ingress: Ingress) -> None:
    same = {"text": "alpha", "source": "s"}
    memories = [same, same, {**same, "deduplicate": False}]

    answer = ingress.http.post("/memory/add-batch", json={"memories": memories}).json()

    assert answer == {
        "success": True,
        "ids": [1, 2],
        "count": 2,
        "message": "Added 2 memories",
        "results": [
            {"id": 1, "duplicate_of": None},
            {"id": None, "duplicate_of": 1, "similarity": 1.0, "duplicate_text": "alpha"},
            {"id": 2, "duplicate_of": None},
        ],
    }
    answer = ingress.http.post(
        "/memory/add-batch",
        json={"memories": [same, {**same, "deduplicate": True}], "deduplicate": False},
    ).json()
    assert [result["id"] for result in answer["results"]] == [3, None]


def test_an_upsert_replaces_the_memory_with_its_source_and_key(ingress: Ingress) -> None:
    body = {"text": "alpha", "source": "s", "key": "k"}
    assert ingress.http.post("/memory/upsert", json=body).json() == {
        "success": True,
        "id": 1,
        "created": True,
    }

    answer = ingress.http.post("/memory/upsert", json={**body, "text": "beta"}).json()

    assert answer == {"success": True, "id": 1, "created": False}
    assert ingress.http.get("/memory/1").json()["text"] == "beta"


def test_a_patch_embeds_only_a_new_text(ingress: Ingress) -> None:
    ingress.add("alpha", metadata={"a": 1})
    ingress.embedder.queries.clear()

    answer = ingress.http.patch("/memory/1", json={"source": "t", "metadata": {}}).json()

    assert (answer["text"], answer["source"], answer["metadata"]) == ("alpha", "t", {})
    assert ingress.embedder.queries == []
    assert ingress.http.patch("/memory/1", json={"text": "beta"}).json()["text"] == "beta"
    assert ingress.embedder.queries == ["beta"]
    assert ingress.http.patch("/memory/1", json={}).json()["text"] == "beta"


def test_a_delete_says_what_is_gone(ingress: Ingress) -> None:
    ingress.add("é" * 150)

    answer = ingress.http.delete("/memory/1")

    assert answer.json() == {"success": True, "deleted_id": 1, "deleted_text": "é" * 100}
    assert ingress.http.delete("/memory/1").status_code == 404


def test_memories_are_deleted_by_source_and_in_batches(ingress: Ingress) -> None:
    for source in ("a.md", "b.md", "A.md", "c.md"):
        ingress.add("alpha", source)

    by_source = ingress.http.post("/memory/delete-by-source", json={"source_pattern": "a.m"})
    assert by_source.json() == {"success": True, "deleted_count": 1}
    none = ingress.http.post("/memory/delete-by-source", json={"source_pattern": "zzz"})
    assert none.json() == {"success": True, "deleted_count": 0}
    exact = {"source_pattern": "c", "source_exact": "c"}
    neither = ingress.http.post("/memory/delete-by-source", json=exact)
    assert neither.json() == {"success": True, "deleted_count": 0}
    batch = ingress.http.post("/memory/delete-batch", json={"ids": [2, 7, 2, 1]})
    assert batch.json() == {"success": True, "deleted_count": 1, "missing": [7, 1]}
    assert sorted(ingress.index.memories) == [3, 4]


def test_a_text_is_novel_below_the_threshold_only(ingress: Ingress) -> None:
    assert ingress.http.post("/memory/is-novel", json={"text": "alpha"}).json() == {
        "is_novel": True,
        "threshold": 0.88,
        "most_similar": None,
        "says_the_same": False,
    }
    ingress.add("alpha")

    answer = ingress.http.post("/memory/is-novel", json={"text": "alpha", "threshold": 1}).json()

    assert answer["is_novel"] is False
    assert answer["says_the_same"] is True
    assert answer["most_similar"]["id"] == 1
    assert answer["most_similar"]["similarity"] == 1.0


def test_memories_are_listed_in_pages(ingress: Ingress) -> None:
    for name in ("a", "b", "c"):
        ingress.add("alpha", f"{name}.md")

    page = ingress.http.get("/memories", params={"offset": 1, "limit": 1}).json()
    assert [memory["id"] for memory in page.pop("memories")] == [2]
    cursor = page.pop("next_cursor")
    assert page == {"total": 3, "offset": 1, "limit": 1}
    after = ingress.http.get("/memories", params={"cursor": cursor}).json()
    assert [memory["id"] for memory in after["memories"]] == [3]
    assert after["next_cursor"] is None
    newest = ingress.http.get("/memories", params={"order": "desc", "source": ".md"}).json()
    assert [memory["id"] for memory in newest["memories"]] == [3, 2, 1]


def test_a_timestamp_works_as_since_with_its_plus_unescaped(ingress: Ingress) -> None:
    ingress.add("alpha")
    ingress.add("beta")
    since = ingress.http.get("/memory/2").json()["timestamp"]

    assert since.endswith("+00:00")
    assert ingress.http.get(f"/memories?since={since}").json()["total"] == 1


def test_deduplication_reports_then_removes_all_but_the_earliest(ingress: Ingress) -> None:
    empty = ingress.http.post("/memory/deduplicate", json={})
    assert empty.json() == {"duplicate_pairs": 0, "removed": 0, "dry_run": True}
    for text in ("alpha " * 40, "beta", "alpha " * 40):
        ingress.add(text)

    dry = ingress.http.post("/memory/deduplicate")
    shown = ("alpha " * 40)[:120]
    pair = {"id_a": 1, "id_b": 3, "similarity": 1.0, "text_a": shown, "text_b": shown}
    assert dry.json() == {
        "duplicate_pairs": 1,
        "would_remove": 1,
        "dry_run": True,
        "pairs": [pair],
    }
    real = ingress.http.post("/memory/deduplicate", json={"dry_run": False})
    assert real.json() == {"duplicate_pairs": 1, "removed": 1, "remaining": 2, "dry_run": False}
    assert sorted(ingress.index.memories) == [1, 2]


def test_a_build_embeds_its_chunks_in_slices_and_in_order() -> None:
    ingress = make_ingress(embed_slice=2)
    ingress.index.put_files(a="one", b="two", c="three", d="four", e="five")
    (ingress.index.path / "workspace" / "photo.png").touch()

    answer = ingress.http.post("/index/build").json()

    backup = answer.pop("backup_location")
    assert re.fullmatch(r".+/backups/pre_build_\d{8}_\d{6}", backup)
    assert answer == {
        "success": True,
        "files_processed": 5,
        "memories_added": 5,
        "message": "Index rebuilt successfully",
        "memories_removed": 0,
        "unchanged": 0,
        "skipped": [{"path": "photo.png", "reason": "unsupported type .png"}],
    }
    assert sorted(map(len, ingress.embedder.batches)) == [1, 2, 2]


def test_slices_and_pages_are_bounded_by_their_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_SLICE_CHARS", 10)
    monkeypatch.setattr(planned_builds, "PAGE_CHARS", 15)
    ingress = make_ingress(embed_slice=4)
    texts = ["sixsix", "abcde", "fghij", "x" * 30, "a", "b", "c", "d", "e"]
    # Names that say nothing stand above no passage.
    ingress.index.put_files(**{"_" * at: text for at, text in enumerate(texts, start=1)})

    answer = ingress.http.post("/index/build").json()

    assert answer["memories_added"] == 9
    assert list(map("|".join, ingress.embedder.batches)) == [
        "sixsix",
        "abcde|fghij",
        "x" * 30,
        "a|b|c|d",
        "e",
    ]


def test_a_batch_of_searches_that_is_answered_in_parts_arrives_whole() -> None:
    ingress = make_ingress()
    ids = [ingress.add(text) for text in ("alpha", "beta", "gamma")]

    async def search_two(operation: Search) -> list[SearchHits]:
        two = Search(operation.embeddings[:2], operation.queries[:2], within=operation.within)
        return await ingress.index.run(two)

    ingress.index.answers[Search] = search_two
    queries = [{"query": text, "k": 1} for text in ("beta", "gamma", "alpha", "beta", "gamma")]

    answer = ingress.http.post("/search/batch", json={"queries": queries}).json()

    assert [one["query"] for one in answer["results"]] == [one["query"] for one in queries]
    hits = [one["results"][0]["id"] for one in answer["results"]]
    assert hits == [ids[1], ids[2], ids[0], ids[1], ids[2]]


@pytest.mark.parametrize("sources", [["/etc/passwd"], ["../x"], ["nothing.md"]])
def test_a_build_of_what_cannot_be_read_is_refused(ingress: Ingress, sources: list[str]) -> None:
    answer = ingress.http.post("/index/build", json={"sources": sources})
    assert answer.status_code == 400
    assert ingress.index.memories == {}


def test_a_backup_is_made_listed_verified_and_restored(ingress: Ingress) -> None:
    ingress.add("alpha")
    made = ingress.http.post("/backup", params={"prefix": "evening"}).json()
    path = Path(made.pop("backup_path"))
    name = path.name
    assert re.fullmatch(r"evening_\d{8}_\d{6}", name)
    assert path.parent.name == "backups"
    assert made == {"success": True, "message": "Backup created successfully"}
    [backup] = ingress.index.index.backups()
    assert ingress.http.get("/backups").json() == {
        "backups": [
            {
                "name": name,
                "created": backup.created_s,
                "total_memories": 1,
                "size_bytes": backup.size_bytes,
                "verified_at": None,
            }
        ],
        "count": 1,
    }
    check = ingress.http.post("/backup/verify", json={"backup_name": name})
    assert check.json() == {"backup_name": name, "ok": True, "problems": []}
    ingress.add("beta")
    restored = ingress.http.post("/restore", json={"backup_name": name})
    assert restored.json() == {
        "success": True,
        "restored_from": name,
        "total_memories": 1,
        "message": "Restored successfully",
    }
    for route in ("/backup", "/backup?prefix="):
        assert "/backups/manual_" in ingress.http.post(route).json()["backup_path"]


@pytest.mark.parametrize("path", ["/restore", "/backup/verify"])
def test_an_unknown_backup_is_not_found(ingress: Ingress, path: str) -> None:
    answer = ingress.http.post(path, json={"backup_name": "../x"})
    assert answer.status_code == 404
    assert answer.json() == {"detail": "Backup '../x' not found"}


def test_sync_says_that_it_is_off(ingress: Ingress) -> None:
    assert ingress.http.get("/sync/status").json() == {
        "enabled": False,
        "message": "Cloud sync not configured",
    }
    for method, path in (
        ("POST", "/sync/upload"),
        ("POST", "/sync/download"),
        ("GET", "/sync/snapshots"),
        ("POST", "/sync/restore/x"),
        ("GET", "/sync/anything"),
    ):
        answer = ingress.http.request(method, path)
        assert (answer.status_code, answer.json()) == (400, {"detail": "Cloud sync not configured"})
    assert ingress.http.get("/sync/upload").headers["allow"] == "POST"


def test_sync_answers_as_the_contract_says() -> None:
    ingress = make_ingress(cloud_sync_prefix="mine/")
    ingress.add("alpha")
    assert ingress.http.post("/sync/download?confirm=true").status_code == 404
    uploaded = ingress.http.post("/sync/upload").json()
    name = uploaded["backup_name"]
    assert uploaded == {
        "success": True,
        "backup_name": name,
        "message": "Backup created and uploaded to cloud",
    }
    status = ingress.http.get("/sync/status").json()
    assert {**status, "enabled": True, "latest_remote": name, "remote_count": 1} == status
    assert {"latest_local", "local_count", "last_upload_at", "last_error", "pending"} <= set(status)
    snapshots = ingress.http.get("/sync/snapshots").json()
    assert snapshots["count"] == 1
    assert snapshots["snapshots"][0]["name"] == name
    assert snapshots["snapshots"][0]["s3_prefix"].startswith("mine/backups/")
    for path in ("/sync/download", f"/sync/restore/{name}"):
        assert ingress.http.post(path).status_code == 400
    assert ingress.http.post("/sync/restore/nope?confirm=true").status_code == 404
    got = ingress.http.post("/sync/download?confirm=true").json()
    assert set(got) == {
        *("success", "backup_name", "files_downloaded", "local_path", "timestamp", "message")
    }
    restored = ingress.http.post(f"/sync/restore/{name}?confirm=true").json()
    assert restored["downloaded"] == got
    assert restored["restored"] == {"restored_from": name, "total_memories": 1}
    assert ingress.http.get("/sync/anything").status_code == 404


def test_a_bucket_that_fails_is_a_bad_gateway_in_words() -> None:
    ingress = make_ingress(cloud_sync_prefix="mine/")
    ingress.index.fails = RemoteError("cannot list s3://bucket/mine/: no answer")
    answer = ingress.http.post("/sync/upload")
    assert (answer.status_code, answer.json()) == (502, {"detail": str(ingress.index.fails)})


def test_a_restore_repeated_with_its_idempotency_key_happens_once() -> None:
    ingress = make_ingress(cloud_sync_prefix="mine/")
    ingress.add("kept")
    name = ingress.http.post("/sync/upload").json()["backup_name"]
    for path, body in (
        ("/restore", {"backup_name": name}),
        (f"/sync/restore/{name}?confirm=true", None),
    ):
        answers = []
        for text in ("undone", "added since"):
            ingress.add(text)
            answers.append(ingress.http.post(path, json=body, headers={"Idempotency-Key": "r-1"}))
        assert answers[0].json() == answers[1].json()
        assert [m.text for m in ingress.index.memories.values()] == ["kept", "added since"]


def test_a_write_repeated_with_its_idempotency_key_happens_once(ingress: Ingress) -> None:
    body = {"text": "alpha", "source": "s", "deduplicate": False}
    headers = {"Idempotency-Key": "k-1"}

    ids = [
        ingress.http.post("/memory/add", json=body, headers=headers).json()["id"] for _ in range(2)
    ]
    deletes = [ingress.http.delete("/memory/1", headers=headers).status_code for _ in range(2)]

    assert ids == [1, 1]
    assert deletes == [200, 200]
    writes = [asked for asked in ingress.index.asked if isinstance(asked, Write)]
    assert len(writes) == 4
    assert all(write.request_id.startswith(CALLERS_KEY) for write in writes)
    other = ingress.http.post("/memory/add", json={**body, "text": "beta"}, headers=headers)
    assert other.json()["id"] == 2, "the key came with another body"
    bad = ingress.http.post("/memory/add", json=body, headers={"Idempotency-Key": "x" * 201})
    assert bad.status_code == 422


def test_a_build_whose_texts_cannot_be_embedded_leaves_its_place_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ingress = make_ingress()
    ingress.index.put_files(a="one", b="two")

    async def broken(*_: object) -> Any:
        raise EmbeddingError("the model failed")

    with monkeypatch.context() as patched:
        patched.setattr(ingress.embedder, "embed", broken)
        statuses = {ingress.http.post("/index/build").status_code for _ in range(9)}

    assert statuses == {500}
    assert ingress.http.post("/index/build").json()["memories_added"] == 2
