"""Keys over HTTP: who may do what, in which namespace, how often, and until when."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from deployments.calls.operations import ReadExport
from deployments.http.json_route import json_router
from deployments.http.needs import Needs, OpenPaths, declared_needs
from deployments.ingress.application import create_app
from deployments.transfer import export_stream
from engine.errors import NotReadyError
from engine.keys.key_text import new_key_text
from engine.operations.builds import DropBuild, PutEmbeddings
from engine.operations.exports import EndExport
from engine.operations.keys import FollowKeys
from engine.operations.writes import IngestLines
from tests import ROOT as REPOSITORY
from tests.support.fake_index import FakeIndex
from tests.support.fakes import FakeEmbedder
from tests.support.ingress_under_test import (
    BASE_URL,
    Ingress,
    ingress_settings,
    make_ingress,
)

ROOT_KEY = "the root key"
ROOT = {"X-API-Key": ROOT_KEY}
UNAUTHORISED = (401, {"detail": "Invalid or missing API key"})


@pytest.fixture
def ingress() -> Iterator[Ingress]:
    made = make_ingress(api_key=ROOT_KEY, cloud_sync_prefix="p/")
    with made.http:
        yield made


def made_key(http: TestClient, **fields: Any) -> dict[str, Any]:
    """A key, as the route that makes it answers."""
    answer = http.post("/keys", json={"name": "a key", **fields}, headers=ROOT)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


def with_key(made: dict[str, Any], **more: str) -> dict[str, str]:
    return {"X-API-Key": made["key"], **more}


def seen(answer: Any) -> tuple[int, Any]:
    return answer.status_code, answer.json()


def in_time(ask: Any, expected: int) -> Any:
    """The answer once it has a status: other ingresses hear of a change a moment later."""
    for _ in range(500):
        answer: Any = ask()
        if answer.status_code == expected:
            return answer
        time.sleep(0.01)
    raise AssertionError((answer.status_code, answer.text))


def test_a_key_is_shown_once_and_used(ingress: Ingress) -> None:
    made = made_key(ingress.http, scopes=["read"], namespaces=["default"], max_memories=5)
    assert made["key"].startswith(f"fm_{made['id']}_")
    assert made["last_used_at"] is None
    in_time(lambda: ingress.http.get("/stats", headers=with_key(made)), 200)
    bearer = {"Authorization": f"Bearer {made['key']}"}
    assert ingress.http.get("/memories", headers=bearer).status_code == 200
    listed = ingress.http.get("/keys", headers=ROOT).json()
    assert listed["count"] == 1
    [shown] = listed["keys"]
    assert "key" not in shown
    assert {name: made[name] for name in shown if name != "last_used_at"}.items() <= shown.items()


def test_what_is_not_quite_a_key_is_refused(ingress: Ingress) -> None:
    made = made_key(ingress.http)
    in_time(lambda: ingress.http.get("/stats", headers=with_key(made)), 200)
    text: str = made["key"]
    for wrong in ("", text[:-1], text + "0", text.upper(), text[3:], new_key_text(), made["id"]):
        assert seen(ingress.http.get("/stats", headers={"X-API-Key": wrong})) == UNAUTHORISED


def test_a_revoked_key_is_refused_at_every_ingress_and_for_good(ingress: Ingress) -> None:
    other = TestClient(
        create_app(ingress_settings(api_key=ROOT_KEY), ingress.embedder, ingress.index),
        base_url=BASE_URL,
    )
    made = made_key(ingress.http)
    in_time(lambda: ingress.http.get("/stats", headers=with_key(made)), 200)
    revoked = ingress.http.delete(f"/keys/{made['id']}", headers=ROOT)
    assert seen(revoked) == (200, {"success": True, "revoked_id": made["id"]})
    began_s = time.monotonic()
    in_time(lambda: ingress.http.get("/stats", headers=with_key(made)), 401)
    assert time.monotonic() - began_s < 60
    again = ingress.http.delete(f"/keys/{made['id']}", headers=ROOT)
    assert again.status_code == 200
    assert ingress.http.get("/keys", headers=ROOT).json()["keys"] == []
    assert ingress.http.patch(f"/keys/{made['id']}", json={}, headers=ROOT).status_code == 404
    with other:
        in_time(lambda: other.get("/stats", headers=with_key(made)), 401)


async def revoke(ingress: Ingress, key_id: str) -> None:
    """Revoke a key in the midst of a request, and wait until the ingress has heard of it."""
    index = ingress.index
    index.keys.revoke(key_id)
    while not any(
        isinstance(each, FollowKeys) and index.keys.changes_since(each.version) is None
        for each in index.asked
    ):
        await asyncio.sleep(0.01)


def test_an_import_under_way_stops_when_its_key_is_revoked(ingress: Ingress) -> None:
    made = made_key(ingress.http, scopes=["write"])
    in_time(lambda: ingress.http.get("/stats", headers=with_key(made)), 200)

    async def write_and_revoke(operation: IngestLines) -> Any:
        outcomes = await ingress.index.run(operation)
        await revoke(ingress, made["id"])
        return outcomes

    ingress.index.answers[IngestLines] = write_and_revoke
    lines = [{"text": f"{n}", "source": "s", "deduplicate": False} for n in range(300)]
    body = "".join(json.dumps(line) + "\n" for line in lines)
    answer = ingress.http.post("/import", content=body, headers=with_key(made))
    summary = json.loads(answer.text.splitlines()[-1])
    n_stored = len(ingress.index.memories)
    assert 0 < n_stored < 300
    assert (summary["ok"], summary["stopped_at"], summary["added"]) == (
        False,
        n_stored + 1,
        n_stored,
    )
    assert "revoked" in summary["message"]


def test_an_export_under_way_ends_when_its_key_is_revoked(
    ingress: Ingress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_stream, "_PAGE_BYTES", 1)
    for n in range(3):
        ingress.http.post("/memory/add", json={"text": f"{n}", "source": "s"}, headers=ROOT)
    made = made_key(ingress.http, scopes=["read"])
    in_time(lambda: ingress.http.get("/stats", headers=with_key(made)), 200)
    n_read = 0

    async def read_and_revoke(operation: ReadExport) -> bytes:
        nonlocal n_read
        n_read += 1
        if n_read == 2:
            await revoke(ingress, made["id"])
        return await ingress.index.run(operation)

    ingress.index.answers[ReadExport] = read_and_revoke
    answer = ingress.http.get("/export", headers=with_key(made))
    header, first, last = map(json.loads, answer.text.splitlines())
    assert (header["total"], first["text"], last["type"]) == (3, "0", "error")
    assert "revoked" in last["message"]
    assert any(isinstance(each, EndExport) for each in ingress.index.asked)


def test_a_build_whose_key_is_revoked_meanwhile_changes_nothing(ingress: Ingress) -> None:
    made = made_key(ingress.http, scopes=["write"])
    in_time(lambda: ingress.http.get("/stats", headers=with_key(made)), 200)
    ingress.index.put_files(a="the lighthouse was built in 1871")

    async def put_and_revoke(operation: PutEmbeddings) -> None:
        await ingress.index.run(operation)
        await revoke(ingress, made["id"])

    ingress.index.answers[PutEmbeddings] = put_and_revoke
    answer = ingress.http.post("/index/build", json={}, headers=with_key(made))
    assert (answer.status_code, "revoked" in answer.text) == (403, True)
    assert ingress.index.memories == {}
    assert any(isinstance(each, DropBuild) for each in ingress.index.asked)


def test_before_the_keys_are_known_a_key_gets_503_and_the_root_key_an_answer() -> None:
    async def deaf(_: FollowKeys) -> None:
        raise NotReadyError("starting")

    index = FakeIndex()
    index.answers[FollowKeys] = deaf
    app = create_app(ingress_settings(api_key=ROOT_KEY), FakeEmbedder(), index)
    with TestClient(app, base_url=BASE_URL) as http:
        made = made_key(http)
        refused = http.get("/stats", headers=with_key(made))
        assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        assert http.get("/stats", headers=ROOT).status_code == 200
        assert seen(http.get("/stats", headers={"X-API-Key": "wrong"})) == UNAUTHORISED
        assert http.get("/health", headers=with_key(made)).status_code == 200


def test_an_expired_key_is_refused_and_a_later_end_lets_it_in_again(ingress: Ingress) -> None:
    past, future = (
        (datetime.now(timezone.utc) + timedelta(hours=hours)).isoformat() for hours in (-1, 1)
    )
    made = made_key(ingress.http, expires_at=past)
    assert seen(ingress.http.get("/stats", headers=with_key(made))) == UNAUTHORISED
    for expires_at, status in ((future, 200), (past, 401), (None, 200)):
        path = f"/keys/{made['id']}"
        changed = ingress.http.patch(path, json={"expires_at": expires_at}, headers=ROOT)
        assert changed.status_code == 200
        in_time(lambda: ingress.http.get("/stats", headers=with_key(made)), status)


def test_a_request_with_the_same_idempotency_key_makes_one_key(ingress: Ingress) -> None:
    body = {"name": "once"}
    headers = {**ROOT, "Idempotency-Key": "k"}
    first, second = (ingress.http.post("/keys", json=body, headers=headers) for _ in range(2))
    assert first.json()["key"]
    assert second.json() == {**first.json(), "key": None}
    assert ingress.http.get("/keys", headers=ROOT).json()["count"] == 1


# Scopes, by route


def routes(app: FastAPI) -> dict[str, tuple[Any, Needs]]:
    return {
        f"{method} {route.path_format}": (route, what)
        for route, what in declared_needs(app.routes)
        for method in sorted(getattr(route, "methods", None) or {"GET"})
        if method != "HEAD" and hasattr(route, "path_format")
    }


ROUTES = routes(make_ingress(api_key=ROOT_KEY).http.app)  # type: ignore[arg-type]
RANK = {"read": 0, "write": 1, "admin": 2}


def called(http: TestClient, route: str, headers: dict[str, str]) -> Any:
    method, path = route.split(" ")
    for parameter in ("memory_id", "key_id", "backup_name", "rest", "name"):
        path = path.replace(f"{{{parameter}}}", "7")
    return http.request(method, path, headers=headers, content=b"no json", follow_redirects=False)


@pytest.mark.parametrize("route", ROUTES)
def test_a_route_answers_who_has_what_it_declares_and_nobody_else(route: str) -> None:
    _, what = ROUTES[route]
    made = make_ingress(api_key=ROOT_KEY, cloud_sync_prefix="p/")
    with made.http as http:
        keys = {
            (scope, globs): made_key(http, scopes=[scope], namespaces=[globs])
            for scope in RANK
            for globs in ("default", "team.*", "*")
        }
        last = keys["admin", "*"]
        in_time(lambda: http.get("/stats", headers=with_key(last)), 200)
        nobody = called(http, route, {})
        assert (nobody.status_code == 401) == (not what.is_open), nobody.text
        for (scope, globs), key in keys.items():
            answer = called(http, route, with_key(key))
            has_scope = what.scope is None or RANK[scope] >= RANK[what.scope]
            if has_scope and "named" in what.of and globs != "*":
                continue  # the route itself looks at what is named: see test_namespaces_apart
            is_there = globs == "*" or (globs == "default" and what.of != "all")
            is_let_in = what.is_open or (has_scope and (what.of == "named" or is_there))
            assert (answer.status_code != 403) == is_let_in, (scope, globs, answer.text)
            if not is_let_in and has_scope and what.of == "call":
                assert seen(answer) == (
                    403,
                    {"detail": "This key may not use namespace 'default'"},
                )


def test_the_page_lists_each_route_beside_what_it_needs() -> None:
    page = (REPOSITORY / "docs" / "namespaces.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| (.+?) \| (`[A-Z]+ /.*`) \|$", page, re.M))
    shown = {route: row for row, listed in rows.items() for route in re.findall("`(.+?)`", listed)}
    documented = make_ingress().http.get("/openapi.json").json()["paths"]
    offered = {f"{method.upper()} {path}" for path in documented for method in documented[path]}
    assert shown.keys() == offered
    where = {
        "call": "in the call's namespace",
        "call or named": "in the call's namespace, or in those named",
        "named": "in those named",
        "all": "in all, `*`",
    }
    for route, row in shown.items():
        _, what = ROUTES[route]
        nothing = "no key" if what.is_open else "any key"
        assert row == (f"`{what.scope}` {where[what.of]}" if what.scope else nothing), route


def test_each_scope_has_routes_and_a_few_are_open() -> None:
    opened = {route for route, (_, what) in ROUTES.items() if what.is_open}
    assert {f"GET /health{part}" for part in ("", "/live", "/ready")} < opened
    assert len(opened) == 8
    assert {what.scope for _, what in ROUTES.values()} == {None, "read", "write", "admin"}


def test_a_route_that_declares_nothing_does_not_start() -> None:
    async def undeclared() -> None: ...

    with pytest.raises(TypeError, match="/new does not declare what it needs"):
        json_router(tag="t").get("/new")(undeclared)
    app = make_ingress().http.app
    assert isinstance(app, FastAPI)
    app.add_api_route("/new", undeclared)
    with pytest.raises(TypeError, match="/new does not declare"):
        OpenPaths(app.routes)


# Namespaces


@pytest.fixture
def echo(ingress: Ingress) -> Any:
    """What `/keys/me` says of a call, with a key of globs; the status where it refuses."""

    def ask(globs: list[str], path: str = "", headers: list[str] | None = None) -> Any:
        made = made_key(ingress.http, namespaces=globs)
        in_time(lambda: ingress.http.get("/docs", headers=ROOT), 200)
        sent: list[tuple[str, str]] = [("X-API-Key", made["key"])]
        sent += [("X-Memory-Namespace", name) for name in headers or []]
        for _ in range(500):
            answer = ingress.http.get(f"{path}/keys/me", headers=sent)
            if answer.status_code != 401:
                break
            time.sleep(0.01)
        return answer.json()["namespace"] if answer.status_code == 200 else seen(answer)

    return ask


def test_a_namespace_is_chosen_by_binding_path_header_and_default(echo: Any) -> None:
    assert echo(["*"]) == "default"
    assert echo(["*"], "/ns/team.a") == "team.a"
    assert echo(["*"], "", ["team.a"]) == "team.a"
    assert echo(["*"], "/ns/team.a", ["team.a", "team.a"]) == "team.a"
    assert echo(["a", "b"], "/ns/b") == "b"
    assert echo(["a"]) == "a"
    assert echo(["a"], "/ns/a") == "a"
    assert echo(["a*"]) == "default"


def test_names_that_disagree_or_are_none_are_refused(echo: Any) -> None:
    differ = (400, {"detail": "Path and header name different namespaces: a, b"})
    assert echo(["*"], "/ns/a", ["b"]) == differ
    assert echo(["*"], "", ["a", "b"]) == differ
    assert echo(["a"], "", ["b"]) == (403, {"detail": "This key may not use namespace 'b'"})
    assert echo(["a"], "/ns/b")[0] == 403
    for name in ("A", "-a", "a%20b", "a" * 101, "%C3%A4", "*", "team.*"):
        status, body = echo(["*"], f"/ns/{name}")
        assert (status, body["detail"][0]["loc"]) == (422, ["path", "namespace"]), name
    for name in ("", "A", "a b", "*", "a,b"):
        status, body = echo(["*"], "", [name])
        assert (status, body["detail"][0]["loc"]) == (422, ["header", "X-Memory-Namespace"]), name


def test_a_refused_namespace_is_refused_alike_whether_or_not_it_is_there(ingress: Ingress) -> None:
    made = made_key(ingress.http, namespaces=["team.*"])
    path = "/ns/other/memories"
    in_time(lambda: ingress.http.get("/ns/team.a/memories", headers=with_key(made)), 200)
    assert seen(ingress.http.get(path, headers=with_key(made))) == (
        403,
        {"detail": "This key may not use namespace 'other'"},
    )


def test_paths_below_a_namespace_are_those_without(ingress: Ingress) -> None:
    for path, status in (
        ("/ns/a/health", 200),
        ("/ns/a/docs", 200),
        ("/ns/a/memories", 200),
        ("/ns/a/memory/0", 404),
        ("/ns/a/search", 405),
        ("/ns/a", 404),
        ("/ns/a/ns/a/memories", 404),
        ("/ns/a%2Fmemories", 200),
    ):
        answer = ingress.http.get(path, headers=ROOT)
        assert answer.status_code == status, (path, answer.text)
    assert ingress.http.get("/ns/a/memories").status_code == 401
    assert ingress.http.get("/ns/A/health").status_code == 200


def test_an_idempotency_key_is_each_namespaces_own(ingress: Ingress) -> None:
    body = {"text": "alpha", "source": "s", "deduplicate": False}
    headers = {**ROOT, "Idempotency-Key": "k"}
    ids = [
        ingress.http.post(f"{path}/memory/add", json=body, headers=headers).json()["id"]
        for path in ("", "/ns/a", "/ns/b", "", "/ns/a", "/ns/default")
    ]
    assert ids == [1, 2, 3, 1, 2, 1]


def test_a_move_with_the_idempotency_key_of_another_namespaces_move_is_done(
    ingress: Ingress,
) -> None:
    headers = {**ROOT, "Idempotency-Key": "k"}
    for path in ("/ns/a", "/ns/b"):
        body = {"text": f"of {path}", "source": "s", "deduplicate": False}
        ingress.http.post(f"{path}/memory/add", json=body, headers=ROOT)
    for path in ("/ns/a", "/ns/b", "/ns/a", "/ns/b"):
        body = {"source_prefix": "s", "to": "c"}
        answer = ingress.http.post(f"{path}/memory/move", json=body, headers=headers)
        assert answer.json()["moved_count"] == 1, path
    totals = [
        ingress.http.get(f"/ns/{name}/memories", headers=ROOT).json()["total"] for name in "abc"
    ]
    assert totals == [0, 0, 2]


# Limits


def test_a_key_that_writes_too_often_is_told_when_to_come_back(ingress: Ingress) -> None:
    made = made_key(ingress.http, writes_per_minute=2)
    headers = with_key(made)
    in_time(lambda: ingress.http.get("/stats", headers=headers), 200)
    body = {"text": "alpha", "source": "s", "deduplicate": False}
    for status in (200, 200, 429, 429):
        answer = ingress.http.post("/memory/add", json=body, headers=headers)
        assert answer.status_code == status
    assert answer.json() == {"detail": "this key may write 2 times a minute"}
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert len(ingress.index.memories) == 2
    assert ingress.http.post("/search", json={"query": "alpha"}, headers=headers).status_code == 200
    assert ingress.http.post("/memory/add", json=body, headers=ROOT).status_code == 200


# Without a root key


def test_without_a_root_key_whoever_presents_no_key_may_do_everything() -> None:
    made = make_ingress()
    with made.http as http:
        key = http.post("/keys", json={"name": "a", "scopes": ["read"]}).json()
        me = http.get("/keys/me").json()
        assert (me["id"], me["namespaces"], me["created_at"]) == ("root", ["*"], None)
        assert http.get("/keys/me", headers={"X-API-Key": "whatever"}).json()["id"] == "root"
        own = in_time(lambda: http.get("/keys/me", headers=with_key(key)), 200).json()
        assert own["id"] == key["id"]
        assert http.get("/keys", headers=with_key(key)).status_code == 403
        http.delete(f"/keys/{key['id']}")
        in_time(lambda: http.get("/keys/me", headers=with_key(key)), 401)


# What is said and kept of keys


def test_a_request_is_logged_with_the_keys_id_and_namespace_and_no_secret(ingress: Ingress) -> None:
    made = made_key(ingress.http, namespaces=["a"])
    in_time(lambda: ingress.http.get("/stats", headers=with_key(made)), 200)
    with capture_logs() as logs:
        ingress.http.get("/stats", headers=with_key(made))
        ingress.http.get("/stats", headers=ROOT)
        ingress.http.get("/stats", headers={"X-API-Key": made["key"] + "x"})
        ingress.http.post("/keys", json={"name": "b"}, headers=ROOT)
        ingress.http.get(f"/mcp/{made['key']}/x", headers=ROOT)
        ingress.http.get("/ns/b/stats", headers=with_key(made))
    lines = [line for line in logs if line["event"] == "request"]
    assert [(line.get("key"), line.get("namespace")) for line in lines] == [
        (made["id"], "a"),
        ("root", "default"),
        (None, None),
        ("root", "default"),
        ("root", "default"),
        (made["id"], None),
    ]
    assert made["key"].rpartition("_")[2] not in json.dumps(logs)
    assert ROOT_KEY not in json.dumps(logs)


def test_when_a_key_was_used_is_reported_without_delaying_any_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deployments.ingress.followed_keys._REPORT_EVERY_S", 0.0)
    monkeypatch.setattr("deployments.ingress.followed_keys._WAIT_S", 0.05)
    made = make_ingress(api_key=ROOT_KEY)
    with made.http as http:
        key = made_key(http)
        in_time(lambda: http.get("/stats", headers=with_key(key)), 200)
        for _ in range(500):
            used = http.get("/keys", headers=ROOT).json()["keys"][0]["last_used_at"]
            if used is not None:
                break
            time.sleep(0.01)
        assert datetime.fromisoformat(used) > datetime.now(timezone.utc) - timedelta(minutes=5)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "a" * 101},
        {"name": "a", "scopes": []},
        {"name": "a", "scopes": ["root"]},
        {"name": "a", "scopes": ["read", "read"]},
        {"name": "a", "namespaces": []},
        {"name": "a", "namespaces": ["A"]},
        {"name": "a", "namespaces": ["*a"]},
        {"name": "a", "namespaces": ["a b"]},
        {"name": "a", "namespaces": ["a", "a"]},
        {"name": "a", "namespaces": [f"n{n}" for n in range(21)]},
        {"name": "a", "expires_at": "soon"},
        {"name": "a", "max_memories": -1},
        {"name": "a", "writes_per_minute": 0},
    ],
)
def test_a_key_that_makes_no_sense_is_refused(ingress: Ingress, body: dict[str, Any]) -> None:
    assert ingress.http.post("/keys", json=body, headers=ROOT).status_code == 422
    assert ingress.http.get("/keys", headers=ROOT).json()["count"] == 0


def test_a_change_leaves_what_it_does_not_name_and_null_takes_a_limit_away(
    ingress: Ingress,
) -> None:
    made = made_key(ingress.http, max_memories=5, writes_per_minute=7, namespaces=["a"])
    changes = {"max_memories": None, "name": None, "namespaces": ["b", "c.*"]}
    changed = ingress.http.patch(f"/keys/{made['id']}", json=changes, headers=ROOT).json()
    expected = {**made, "max_memories": None, "namespaces": ["b", "c.*"]}
    expected.pop("key")
    assert changed == expected
    assert ingress.http.patch("/keys/nothing", json={}, headers=ROOT).status_code == 404
    assert ingress.http.delete("/keys/nothing", headers=ROOT).status_code == 404
    assert ingress.http.delete("/keys/me", headers=ROOT).status_code == 405
