"""Import and export on the real service: streamed both ways, bounded, resumed after kills."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest

from tests.support.service import Service

pytestmark = pytest.mark.service

PATIENCE_S = 120
N_LINES = 3_000
MOST_BYTES_UNREAD = 48 << 20
"""Sockets, HAProxy and the pipeline of one import hold far less."""


@pytest.fixture
def service(mortal_service: Service) -> Service:
    return mortal_service


class Stream:
    """An import whose lines are sent and answers read as the test likes."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        assert connection.sock is not None
        self.socket: socket.socket = connection.sock
        self._connection = connection
        self._response: http.client.HTTPResponse | None = None

    def send(self, content: bytes) -> None:
        self.socket.sendall(b"%x\r\n%s\r\n" % (len(content), content))

    def end(self) -> None:
        self.socket.sendall(b"0\r\n\r\n")

    def answer(self) -> dict[str, Any]:
        """The next line but progress; raises when the stream is cut off."""
        if self._response is None:
            self._response = self._connection.getresponse()
            assert self._response.status == 200
        while line := self._response.readline():
            answer: dict[str, Any] = json.loads(line)
            if answer["type"] != "progress":
                return answer
        raise ConnectionError("the answer ended without a summary")


@contextmanager
def importing(service: Service, query: str = "", **headers: str) -> Iterator[Stream]:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE_S)
    connection.putrequest("POST", f"/import{query}")
    for name, value in {**headers, "Transfer-Encoding": "chunked"}.items():
        connection.putheader(name, value)
    connection.endheaders()
    try:
        yield Stream(connection)
    finally:
        connection.close()


def line(text: str, source: str) -> bytes:
    return json.dumps({"text": text, "source": source}).encode() + b"\n"


def exported(service: Service, **query: Any) -> list[dict[str, Any]]:
    answer = httpx.get(
        f"{service.base_url}/export", params=query, timeout=PATIENCE_S, trust_env=False
    )
    header, *memories, footer = [json.loads(row) for row in answer.text.splitlines()]
    assert (header["type"], footer) == ("header", {"type": "footer", "count": len(memories)})
    return memories


def test_lines_are_answered_while_the_body_is_still_being_sent(service: Service) -> None:
    with importing(service) as stream:
        for n in range(3):
            stream.send(line(f"The lighthouse number {n} stands on island {n * 7}.", "duplex"))
            assert stream.answer()["line"] == n + 1
        stream.end()
        assert stream.answer()["ok"]


def test_an_export_imported_under_another_source_is_the_same(service: Service) -> None:
    texts = ["Ümlaut and\nnewline", "Plain words", "Plain words"]
    body = b"".join(
        json.dumps(
            {
                "text": text,
                "source": "original",
                "metadata": {"n": n},
                "key": f"k{n}",
                "timestamp": f"2020-01-0{n + 1}T00:00:00Z",
                "updated_at": "2021-01-01T00:00:00Z",
            }
        ).encode()
        + b"\n"
        for n, text in enumerate(texts)
    )
    url = f"{service.base_url}/import?deduplicate=false"
    httpx.post(url, content=body, timeout=PATIENCE_S, trust_env=False)
    before = exported(service, source_prefix="original", embeddings=True)

    moved = "".join(json.dumps({**memory, "source": "moved"}) + "\n" for memory in before)
    answer = httpx.post(url, content=moved, timeout=PATIENCE_S, trust_env=False)
    after = exported(service, source_prefix="moved", embeddings=True)

    assert json.loads(answer.text.splitlines()[-1])["ok"]
    assert len(before) == len(texts)
    assert [{**m, "id": 0, "source": ""} for m in after] == [
        {**m, "id": 0, "source": ""} for m in before
    ]


def test_an_export_brings_back_every_missing_copy_once(service: Service) -> None:
    row = json.dumps({"text": "it rained", "source": "merge", "timestamp": "2020-01-01T00:00:00Z"})
    url, n_rows = f"{service.base_url}/import", 700

    def imported(body: str, **query: str) -> dict[str, int]:
        answer = httpx.post(
            url, params=query, content=body, timeout=PATIENCE_S, trust_env=False
        ).text
        summary = json.loads(answer.splitlines()[-1])
        return {name: summary[name] for name in ("added", "unchanged", "duplicates", "errors")}

    imported(f"{row}\n" * n_rows, deduplicate="false")
    query = {"source_prefix": "merge"}
    export = httpx.get(f"{service.base_url}/export", params=query, trust_env=False).text
    ids = [memory["id"] for memory in exported(service, **query)]
    assert len(ids) == n_rows
    gone = {"ids": ids[100:400]}
    httpx.post(f"{service.base_url}/memory/delete-batch", json=gone, trust_env=False)

    nothing = {"duplicates": 0, "errors": 0}
    assert imported(export) == {"added": 300, "unchanged": n_rows - 300, **nothing}
    assert imported(export, deduplicate="false") == {"added": 0, "unchanged": n_rows, **nothing}
    assert len(exported(service, **query)) == n_rows


def test_a_client_that_sends_without_reading_is_held_back(service: Service) -> None:
    block = b"".join(line(f"word {n}", "unread") for n in range(2_000)) * 10
    with importing(service, "?deduplicate=false") as stream:
        stream.socket.settimeout(2)
        n_sent = 0
        try:
            while n_sent <= MOST_BYTES_UNREAD:
                stream.send(block)
                n_sent += len(block)
        except TimeoutError:
            pass
    assert n_sent <= MOST_BYTES_UNREAD


def test_an_import_resumed_after_kills_has_every_line_once(service: Service) -> None:
    lines = [line(f"Entry {n} of the log.", "resumed") for n in range(N_LINES)]
    for victim in ("Index", "Ingress", None):
        with importing(service, "?deduplicate=false", **{"Idempotency-Key": "resumed"}) as stream:
            try:
                stream.send(b"".join(lines))
                stream.end()
                answers = [stream.answer()]
                if victim is not None:
                    service.kill(victim)
                while answers[-1]["type"] != "summary":
                    answers.append(stream.answer())
            except (OSError, http.client.HTTPException):
                assert victim == "Ingress"
                wait_until_ready(service)
    assert answers[-1]["ok"]
    assert [memory["text"] for memory in exported(service, source_prefix="resumed")] == [
        f"Entry {n} of the log." for n in range(N_LINES)
    ]


def wait_until_ready(service: Service) -> None:
    with httpx.Client(base_url=service.base_url, timeout=PATIENCE_S, trust_env=False) as client:
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            with suppress(httpx.TransportError):
                if client.get("/health/ready").status_code == 200:
                    return
            time.sleep(0.2)
    pytest.fail("the service did not come back")
