"""No route and no tool tells a key of one namespace anything of another, or changes it.

Two services differ in nothing but what the other namespace holds: other texts, sources, keys and
metadata, and another number of memories. Every request that can be made from the schemas of the
routes and tools, asking for what only one of the two holds, is sent to both with a key of the first
namespace, and must be answered alike. New routes and tools join by themselves.

That these checks see something is shown by taking the checks of namespaces out, one by one.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast
from urllib.parse import urlencode

import pytest
from fastapi import FastAPI

from deployments.calls import operations as own
from deployments.http import callers
from deployments.http.middleware import key_guard
from deployments.ingress.replica import add_mcp
from engine.keys.records import Key
from engine.memory_index import MemoryIndex
from engine.operations import builds, exports, reads, writes
from engine.operations.namespaces import MoveMemories
from engine.operations.operation import MemoryOperation, Within
from mcp_server.tools.catalogue import TOOLS
from tests.support.fake_index import FakeIndex
from tests.support.generated_requests import Request, Wanted, objects, requests_of
from tests.support.ingress_under_test import Ingress, ingress_settings, make_ingress

ROOT = {"X-API-Key": "root"}
SECRET = "the vault opens with heliotrope"
SOURCE, KEY = "vault/heliotrope", "heliotrope-key"
THEIRS: list[dict[str, Any]] = [
    {"text": SECRET, "source": SOURCE, "key": KEY, "metadata": {"door": "heliotrope"}},
    {"text": f"{SECRET}, says Zebedee", "source": f"{SOURCE}/2", "key": "second"},
    {"text": "zanzibar is where Zebedee lives", "source": "people/zebedee", "key": "third"},
    {"text": "Zanzibar is where Zebedee lives!", "source": "people/zebedee", "key": "again"},
]
OTHERS: list[dict[str, Any]] = [
    {"text": f"nothing of interest, number {n}", "source": "dull", "key": f"k{n}"} for n in range(4)
]
OURS = [
    {"text": "our deploy day is Tuesday", "source": "ours", "key": "day"},
    {"text": "our host is db-2", "source": "ours", "key": "host", "metadata": {"door": "blue"}},
]
TELL_EVERYBODY = {"getHealth", "getReadiness"}
"""How many memories there are in all, also who has no key."""
OF_THE_WHOLE = ("/backup", "/restore", "/sync/", "/keys", "/metrics", "/namespaces/")
OF_MCP = {
    "Accept": "application/json, text/event-stream",
    "Content-Type": "application/json",
}
CHANGING = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00|[0-9a-f]{32}|_\d{8}_\d{6}(_\d+)?"
    r'|"(workspace_)?id":"[0-9a-f]{16}"|/fake-index-\w+'
)
"""Times, ids that are made for each run, names of backups, and which directory is served."""


@dataclass
class World:
    """A service in which the namespaces `ours` and `theirs` hold something."""

    ingress: Ingress
    headers: dict[str, str]
    """Of a key of `ours`."""
    document: dict[str, Any]

    def theirs(self) -> list[Any]:
        """All that the other namespace holds."""
        answer = self.ingress.http.get("/ns/theirs/export", headers=ROOT)
        lines = [json.loads(line) for line in answer.text.splitlines()]
        return [line for line in lines if "type" not in line]


@contextmanager
def world(theirs: list[dict[str, Any]], *, n_kept: int) -> Iterator[World]:
    """One in which the other namespace was given memories and passages, and keeps all or some."""
    ingress = make_ingress(api_key="root")
    ingress.index.put_files(notes="one passage of a file")
    app = cast(FastAPI, ingress.http.app)
    add_mcp(app, ingress_settings(api_key="root"))
    with ingress.http as http:
        for namespace, memories in (("ours", OURS), ("theirs", theirs)):
            for memory in memories:
                path = f"/ns/{namespace}/memory/upsert"
                assert http.post(path, json=memory, headers=ROOT).status_code == 200
        for number in range(n_kept + len(OURS), len(theirs) + len(OURS)):
            path = f"/ns/theirs/memory/{number + 1}"
            assert http.delete(path, headers=ROOT).status_code == 200
        assert http.post("/ns/theirs/index/build", headers=ROOT).status_code == 200
        if n_kept < len(theirs):
            body = {"source_pattern": "notes.md"}
            http.post("/ns/theirs/memory/delete-by-source", json=body, headers=ROOT)
        made = http.post(
            "/keys",
            json={"name": "ours", "scopes": ["admin"], "namespaces": ["ours"]},
            headers=ROOT,
        ).json()
        headers = {"X-API-Key": made["key"]}
        for _ in range(1000):
            if http.get("/keys/me", headers=headers).status_code == 200:
                break
        yield World(ingress, headers, app.openapi())


def wanted() -> Wanted:
    """What only one of the two worlds holds, wherever a request can ask for it."""
    first = len(OURS) + 1
    line = {"text": SECRET, "source": SOURCE, "key": KEY}
    return Wanted(
        values={
            "text": [SECRET],
            "query": [SECRET],
            "source": [SOURCE, "vault"],
            "source_exact": [SOURCE],
            "source_prefix": ["vault"],
            "source_pattern": ["heliotrope"],
            "key": [KEY],
            "metadata": [{"door": "heliotrope"}],
            "id": [first],
            "memory_id": [first],
            "ids": [[first, first + 1]],
            "to": ["theirs"],
            "name": ["theirs"],
            "namespaces": [["theirs"], ["*"], ["the*"]],
            "confirm": ["theirs", True],
            "cursor": ["0.0"],
            "sources": [["notes.md"]],
            "since": ["2020-01-01"],
            "until": ["today"],
            "timezone": ["UTC"],
            "expires_at": ["2099-01-01T00:00:00Z"],
            "threshold": [0.0, 0.5],
            "min_score": [0.0],
            "backup_name": ["none"],
            "key_id": ["none"],
            "prefix": ["p"],
            "dry_run": [True, False],
            # So slow that no score changes while the two are asked one after the other.
            "recency": [{"half_life_days": 36_500, "weight": 0.2}],
        },
        lines=b"".join(json.dumps(each).encode() + b"\n" for each in (line, {**line, "key": "n"})),
    )


def asked_of(world: World) -> Iterator[tuple[str, Request, dict[str, str]]]:
    """Every request, plain and naming the other namespace; and every tool."""
    for name, request in requests_of(world.document, wanted()):
        if name not in TELL_EVERYBODY:
            yield name, request, {}
    for name, request in requests_of(world.document, wanted()):
        if name not in TELL_EVERYBODY:
            yield name, replace(request, path=f"/ns/theirs{request.path}"), {}
            yield name, request, {"X-Memory-Namespace": "theirs"}
    for name, tool in TOOLS.items():
        schema = tool.arguments.model_json_schema()
        for arguments in objects(schema, schema, wanted()):
            params = {"name": name, "arguments": arguments}
            call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
            body = json.dumps(call).encode()
            yield name, Request("POST", "/mcp", [], body), {}
            yield name, Request("POST", "/mcp/theirs", [], body), {}


def answer_in(world: World, request: Request, more: dict[str, str]) -> tuple[int, str]:
    """What is answered, without what differs from run to run."""
    answer = world.ingress.http.request(
        request.method,
        request.path,
        params=urlencode(request.query),
        content=request.body,
        headers={**world.headers, **OF_MCP, **more},
    )
    return answer.status_code, CHANGING.sub("…", answer.text)


def leaks() -> Iterator[str]:
    """What tells something of another namespace, or changes it, as it is found."""
    with world(THEIRS, n_kept=4) as one, world(OTHERS, n_kept=1) as other:
        before = one.theirs()
        for name, request, more in asked_of(one):
            answers = [answer_in(each, request, more) for each in (one, other)]
            if answers[0] != answers[1]:
                yield f"{name} tells the two apart: {request} {more} {answers}"
        if one.theirs() != before:
            yield "something changed the other namespace"


def test_no_route_and_no_tool_tells_or_changes_anything_of_another_namespace() -> None:
    assert list(leaks()) == []


def test_every_route_and_tool_is_asked_and_those_of_one_namespace_have_an_answer() -> None:
    answered: dict[str, set[int]] = {}
    with world(THEIRS, n_kept=4) as made:
        operations = {
            operation["operationId"]: path
            for path, methods in made.document["paths"].items()
            for operation in methods.values()
        }
        for name, request, more in asked_of(made):
            status, _ = answer_in(made, request, more)
            answered.setdefault(name, set()).add(status)
    assert answered.keys() == (operations.keys() - TELL_EVERYBODY) | set(TOOLS)
    assert not any(500 in statuses for statuses in answered.values())
    unanswered = {name for name, statuses in answered.items() if 200 not in statuses}
    assert {
        name for name in unanswered if not operations.get(name, name).startswith(OF_THE_WHOLE)
    } == {
        "getMemory",
        "updateMemory",
        "deleteMemory",
        "moveMemories",
    }, "they ask for theirs"


# What each check is worth

TOUCHING = [
    found
    for room in (reads, writes, exports, builds, own)
    for _, found in inspect.getmembers(room, inspect.isclass)
    if issubclass(found, MemoryOperation) and found.__module__ == room.__name__
]
NOT_SEEN = {"TextsOfBuild", "PutEmbeddings", "DropBuild", "EndExport", "KnownEmbeddings"}
"""What goes by ids that nobody else is told; and vectors, which a text alone decides."""


@pytest.mark.parametrize(
    "operation",
    [each for each in TOUCHING if each.__name__ not in NOT_SEEN],
    ids=lambda each: each.__name__,
)
def test_an_operation_that_forgets_its_namespace_is_noticed(
    operation: type[MemoryOperation[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = FakeIndex.run

    async def run_elsewhere(index: FakeIndex, asked: Any) -> Any:
        if type(asked) is operation and asked.within.namespace == "ours":
            asked = replace(cast(Any, asked), within=Within("theirs"))
        return await run(index, asked)

    monkeypatch.setattr(FakeIndex, "run", run_elsewhere)
    assert next(leaks(), None) is not None


def _lets_all_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers.Caller, "check_namespace", lambda *_: None)


def _heeds_no_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Key, "binding", None)
    _lets_all_in(monkeypatch)


def _lists_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Key, "may_use", lambda *_: True)


def _searches_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads.Among, "of", lambda among, index: index.several(["ours", "theirs"]))


def _takes_the_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(_key: Key, named: list[tuple[Any, str]]) -> str:
        return named[0][1] if named else "ours"

    monkeypatch.setattr(key_guard, "_chosen", chosen)
    _lets_all_in(monkeypatch)


def _moves_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(asked: MoveMemories, directory: Any) -> Any:
        index: MemoryIndex = directory.index
        return index.move(
            "theirs", "ours", ids=asked.ids, source_prefix=asked.source_prefix, request_id="m"
        )

    monkeypatch.setattr(MoveMemories, "run", run)
    _lets_all_in(monkeypatch)


@pytest.mark.parametrize(
    "mutation",
    [_lets_all_in, _heeds_no_binding, _lists_all, _searches_all, _takes_the_named, _moves_anywhere],
)
def test_a_check_that_is_taken_out_is_noticed(
    mutation: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(monkeypatch)
    assert next(leaks(), None) is not None
