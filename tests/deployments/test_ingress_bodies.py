"""Bodies of requests: who may send one, how much of them is held, and what happens to the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from deployments.http.middleware import request_bodies
from deployments.http.middleware.request_bodies import BodyLimit
from deployments.http.needs import OpenPaths
from deployments.ingress_settings import IngressSettings
from tests.support.ingress_under_test import make_ingress

OPEN = ["/health", "/health/live", "/docs", "/redoc", "/openapi.json", "/.well-known/x"]
PART = b" " * 600


def scope_of(method: str, path: str, **headers: str) -> Scope:
    named = {"host": "localhost", **headers}
    return {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": path,
        "query_string": b"",
        "headers": [(n.replace("_", "-").encode(), v.encode()) for n, v in named.items()],
    }


def part(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


class Client:
    """Sends the given messages and then nothing, or that it has gone; keeps what it is sent."""

    def __init__(self, *messages: Message, then_goes: bool = False) -> None:
        self.unsent = list(messages)
        self.received: list[Message] = []
        self.unread_at_answer: int | None = None
        self._then_goes = then_goes

    async def receive(self) -> Message:
        if self.unsent:
            return self.unsent.pop(0)
        if self._then_goes:
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.unread_at_answer = len(self.unsent)
        self.received.append(message)

    @property
    def status(self) -> int:
        return int(self.received[0]["status"])

    def call(self, scope: Scope, **settings: Any) -> None:
        app: Callable[[Scope, Receive, Send], Any] = make_ingress(**settings).http.app
        asyncio.run(app(scope, self.receive, self.send))


@pytest.mark.parametrize("path", OPEN)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_open_path_is_answered_before_anything_of_a_body_is_read(path: str, method: str) -> None:
    client = Client(part(PART), part(PART), then_goes=True)
    client.call(scope_of(method, path, content_length="33000000"), api_key="k")
    assert client.unread_at_answer == 2
    assert client.status in {200, 404, 405}


def test_bodies_that_wait_come_out_of_one_budget_and_go_back_to_it() -> None:
    may_end = asyncio.Event()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        await may_end.wait()

    async def scenario() -> None:
        settings = IngressSettings(version="1", max_body_bytes=1000, max_held_bytes=2000)
        limit = BodyLimit(app, settings, OpenPaths([]))
        search = scope_of("POST", "/search")
        waiting = [Client(part(PART), part(b"", more=False)) for _ in range(3)]
        held = [asyncio.create_task(limit(search, c.receive, c.send)) for c in waiting]
        await asyncio.sleep(0)

        refused = Client(part(PART), part(b"", more=False))
        await limit(search, refused.receive, refused.send)

        assert refused.status == 429
        assert (b"retry-after", b"1") in refused.received[0]["headers"]
        may_end.set()
        await asyncio.gather(*held)
        taken = Client(part(PART), part(b"", more=False))
        await limit(search, taken.receive, taken.send)
        assert taken.received == []

    asyncio.run(scenario())


def test_a_body_that_does_not_go_on_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_bodies, "_PATIENCE_S", 0.01)
    monkeypatch.setattr(request_bodies, "_LINGER_IDLE_S", 0.01)
    client = Client(part(b"{"))
    client.call(scope_of("POST", "/search", content_length="100"))
    assert client.status == 408


def test_a_large_body_has_longer_than_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_bodies, "_PATIENCE_S", 0.01)
    monkeypatch.setattr(request_bodies, "_LEAST_BYTES_PER_S", 1)
    slow = Client(part(b'{"query":"a"'))

    async def receive() -> Message:
        if slow.unsent:
            return await slow.receive()
        await asyncio.sleep(0.05)
        return part(b"}", more=False)

    app: Any = make_ingress().http.app
    asyncio.run(app(scope_of("POST", "/search", content_length="13"), receive, slow.send))
    assert slow.status == 200


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/memory/add", {"content_length": "34000000"}, 413),
        ("/memory/add", {"transfer_encoding": "chunked", "x_api_key": "wrong"}, 401),
        ("/import", {"content_length": "34000000", "content_encoding": "br"}, 415),
    ],
)
def test_who_is_answered_early_may_send_the_rest(
    path: str, headers: dict[str, str], status: int
) -> None:
    key = {"x_api_key": "k", **headers}
    client = Client(*[part(PART)] * 5, part(PART, more=False))
    client.call(scope_of("POST", path, **key), api_key="k", max_body_bytes=2000)
    assert client.status == status
    *_, answer, end = client.received
    assert b"detail" in answer["body"]
    assert answer["more_body"]
    assert not end.get("more_body")
    assert client.unsent == []


def test_who_sends_no_more_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_bodies, "_LINGER_IDLE_S", 0.01)
    client = Client(part(PART))
    client.call(scope_of("POST", "/memory/add", content_length="34000000"), api_key="k")
    assert client.status == 401
    assert not client.received[-1].get("more_body")


def test_who_sends_for_ever_is_not_listened_to_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_bodies, "_LINGER_S", 0.01)

    class Endless(Client):
        async def receive(self) -> Message:
            await asyncio.sleep(0)
            return part(b"x")

    client = Endless()
    client.call(scope_of("POST", "/memory/add", transfer_encoding="chunked"), api_key="k")
    assert client.status == 401


def test_head_is_answered_as_get_is_without_a_body() -> None:
    ingress = make_ingress()
    ingress.add("alpha")
    for path in ("/health", "/health/ready", "/docs", "/openapi.json", "/memories", "/memory/1"):
        got, head = ingress.http.get(path), ingress.http.head(path)
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers["content-length"] == got.headers["content-length"]
    assert ingress.http.head("/memory/9").status_code == 404
    assert ingress.http.head("/search").status_code == 405
    assert make_ingress(api_key="k").http.head("/stats").status_code == 401


def test_head_of_a_stream_does_not_read_it() -> None:
    ingress = make_ingress()
    for n in range(3):
        ingress.add(f"memory {n}")
    answer = ingress.http.head("/export")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "application/x-ndjson"
