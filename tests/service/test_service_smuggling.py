"""Requests whose end two readers could see in different places: none hides another."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest

from tests.support.service import Service

pytestmark = pytest.mark.service

NAMED = b"Host: localhost"
QUERY = b'{"query":"coffee"}'
TEXT = b'{"text":"smuggled","source":"smuggled","deduplicate":false}'
LENGTH = b"Content-Length: %d" % len(QUERY)
CHUNKED = b"Transfer-Encoding: chunked"
IN_CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(QUERY), QUERY)


def ask(*headers: bytes, body: bytes = QUERY, line: bytes = b"POST /search HTTP/1.1") -> bytes:
    return b"\r\n".join([line, NAMED, *headers, b"", body])


HIDDEN = ask(b"Content-Length: %d" % len(TEXT), body=TEXT, line=b"POST /memory/add HTTP/1.1")
"""A write, where it would be a request of its own to whoever reads the end too early."""

LAST = ask(b"Connection: close", body=b"", line=b"GET /nowhere HTTP/1.1")
"""Ends the connection with a 404, if the request before it has not."""

REFUSED = {
    "two lengths": ask(LENGTH, b"Content-Length: 0"),
    "two lengths in one": ask(b"Content-Length: 18, 0", body=QUERY + HIDDEN),
    "length with a plus": ask(b"Content-Length: +18"),
    "length below nothing": ask(b"Content-Length: -1", body=HIDDEN),
    "length in hexadecimal": ask(b"Content-Length: 0x12", body=QUERY + HIDDEN),
    "length with a space": ask(b"Content-Length: 1 8", body=QUERY + HIDDEN),
    "length with a point": ask(b"Content-Length: 18.0", body=QUERY + HIDDEN),
    "length with an exponent": ask(b"Content-Length: 1e1", body=QUERY + HIDDEN),
    "length of nothing said": ask(b"Content-Length:", body=HIDDEN),
    "length past 64 bits": ask(b"Content-Length: 18446744073709551634", body=QUERY + HIDDEN),
    "length in other digits": ask("Content-Length: ١٨".encode(), body=QUERY + HIDDEN),
    "length with a semicolon": ask(b"Content-Length: 18;", body=QUERY + HIDDEN),
    "length with a vertical tab": ask(b"Content-Length: \x0b18", body=QUERY + HIDDEN),
    "length before a spaced colon": ask(b"Content-Length : 18", body=QUERY + HIDDEN),
    "coding before a spaced colon": ask(b"Transfer-Encoding : chunked", LENGTH, body=IN_CHUNKS),
    "coding nobody knows": ask(b"Transfer-Encoding: xchunked", LENGTH, body=QUERY + HIDDEN),
    "coding with a parameter": ask(b"Transfer-Encoding: chunked;x", body=IN_CHUNKS + HIDDEN),
    "coding that is none": ask(b"Transfer-Encoding: identity", LENGTH),
    "chunks, then packed": ask(b"Transfer-Encoding: chunked, gzip", body=IN_CHUNKS + HIDDEN),
    "chunks of chunks": ask(b"Transfer-Encoding: chunked, chunked", body=IN_CHUNKS),
    "chunks said twice": ask(CHUNKED, CHUNKED, body=IN_CHUNKS),
    "chunks and not": ask(CHUNKED, b"Transfer-Encoding: identity", body=IN_CHUNKS + HIDDEN),
    "coding with a vertical tab": ask(b"Transfer-Encoding: \x0bchunked", LENGTH, body=IN_CHUNKS),
    "coding in quotes": ask(b'Transfer-Encoding: "chunked"', LENGTH, body=IN_CHUNKS + HIDDEN),
    "coding with a NUL": ask(b"Transfer-Encoding: chunked\0", LENGTH, body=IN_CHUNKS + HIDDEN),
    "coding behind a bare CR": ask(b"X: y\rTransfer-Encoding: chunked", LENGTH),
    "head that ends in a bare CR": b"POST /search HTTP/1.1\r\n" + LENGTH + b"\r\r\n" + QUERY,
    "extension with a bare LF": ask(CHUNKED, body=b"12;a\nb\r\n" + QUERY + b"\r\n0\r\n\r\n"),
    "chunk size with 0x": ask(CHUNKED, body=b"0x12\r\n" + QUERY + b"\r\n0\r\n\r\n" + HIDDEN),
    "chunk size with a minus": ask(CHUNKED, body=b"-1\r\n" + QUERY + b"\r\n0\r\n\r\n" + HIDDEN),
    "chunk size with a plus": ask(CHUNKED, body=b"+12\r\n" + QUERY + b"\r\n0\r\n\r\n" + HIDDEN),
    "chunk size after a space": ask(CHUNKED, body=b" 12\r\n" + QUERY + b"\r\n0\r\n\r\n" + HIDDEN),
    "chunk size past 64 bits": ask(CHUNKED, body=b"1%016x\r\n" % 18 + QUERY + b"\r\n0\r\n\r\n"),
    "chunk size with an underscore": ask(CHUNKED, body=b"1_2\r\n" + QUERY + b"\r\n0\r\n\r\n"),
    "chunks that end in bare LFs": ask(CHUNKED, body=b"12\n" + QUERY + b"\n0\n\n" + HIDDEN),
    "chunk without an end": ask(CHUNKED, body=b"12\r\n" + QUERY + b"0\r\n\r\n" + HIDDEN),
    "chunk longer than it says": ask(CHUNKED, body=b"12\r\n" + QUERY + b"XX\r\n0\r\n\r\n" + HIDDEN),
    "length in a trailer": ask(CHUNKED, body=IN_CHUNKS[:-2] + b"Content-Length: 5\r\n\r\n"),
    "trailer that is no header": ask(CHUNKED, body=IN_CHUNKS[:-2] + b"no colon\r\n\r\n" + HIDDEN),
    "trailers without end": ask(CHUNKED, body=IN_CHUNKS[:-2] + b"X: y\r\n" * 3000 + b"\r\n"),
    "name with a space": ask(b"X Y: z", body=HIDDEN),
    "name with a control": ask(b"X\x01Y: z", body=HIDDEN),
    "name of nothing": ask(b": z", body=HIDDEN),
    "value with a NUL": ask(b"X: a\0b", body=HIDDEN),
    "value with a bare CR": ask(b"X: a\rb", body=HIDDEN),
    "first header folded": b"POST /search HTTP/1.1\r\n " + NAMED + b"\r\n\r\n" + HIDDEN,
    "line with more at its end": ask(LENGTH, line=b"POST /search HTTP/1.1 x"),
    "line with a vertical tab": ask(LENGTH, line=b"POST /search\x0bx HTTP/1.1"),
    "version in lower case": ask(LENGTH, line=b"POST /search http/1.1"),
    "version of three numbers": ask(LENGTH, line=b"POST /search HTTP/1.1.1"),
    "two hosts": ask(b"Host: evil.example", LENGTH),
    "hosts in one header": ask(LENGTH).replace(NAMED, b"Host: localhost, evil.example"),
    "another host in the line": ask(LENGTH, line=b"POST http://evil.example/search HTTP/1.1"),
    "no path in the line": ask(LENGTH, line=b"POST localhost:80 HTTP/1.1"),
}
UNREADABLE = {
    # The coding wins, as the standard has it, and nothing after that is read on the connection.
    "length past the chunks": ask(
        b"Content-Length: %d" % (5 + len(HIDDEN)), CHUNKED, body=b"0\r\n\r\n" + HIDDEN
    ),
    "length short of the chunks": ask(
        CHUNKED, b"Content-Length: 4", body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
    ),
    "packed, then chunks": ask(b"Transfer-Encoding: gzip, chunked", body=IN_CHUNKS),
}
ANSWERED = {
    "one length twice": ask(LENGTH, LENGTH),
    "one length twice in one": ask(b"Content-Length: 18, 18"),
    "length with zeros": ask(b"Content-Length: " + b"0" * 30 + b"18"),
    "length after a tab": ask(b"Content-Length:\t18"),
    "length on a folded line": ask(b"Content-Length:\r\n 18"),
    "coding on a folded line": ask(b"Transfer-Encoding:\r\n chunked", LENGTH, body=IN_CHUNKS),
    "coding in the fold of another": ask(b"X: y\r\n Transfer-Encoding: chunked", LENGTH),
    "coding behind a bare LF": ask(
        b"X: y\nTransfer-Encoding: chunked", LENGTH, body=IN_CHUNKS + HIDDEN
    ),
    "coding in capitals": ask(b"tRANSFER-eNCODING: CHUNKED", body=IN_CHUNKS),
    "chunks in an old version": ask(
        CHUNKED, LENGTH, body=IN_CHUNKS + HIDDEN, line=b"POST /search HTTP/1.0"
    ),
    "body of a GET": ask(
        b"Content-Length: %d" % len(HIDDEN), body=HIDDEN, line=b"GET /health HTTP/1.1"
    ),
    "bare LFs": ask(LENGTH).replace(b"\r\n", b"\n"),
    "extension": ask(CHUNKED, body=IN_CHUNKS.replace(b"\r\n", b";a=b\r\n", 1)),
    "extension with an open quote": ask(CHUNKED, body=IN_CHUNKS.replace(b"\r\n", b';a="\r\n', 1)),
    "chunk size with zeros": ask(CHUNKED, body=b"0" * 60 + IN_CHUNKS),
    "host in a trailer": ask(CHUNKED, body=IN_CHUNKS[:-2] + b"Host: evil.example\r\n\r\n"),
    "empty lines first": b"\r\n\r\n" + ask(LENGTH),
    "connection takes its length": ask(b"Connection: Content-Length", LENGTH),
    "connection takes its coding": ask(b"Connection: Transfer-Encoding", CHUNKED, body=IN_CHUNKS),
    "connection takes its host": ask(b"Connection: Host", LENGTH),
    "a method in a header": ask(
        b"X-HTTP-Method-Override: DELETE", body=b"", line=b"GET /health HTTP/1.1"
    ),
}


@pytest.fixture
def http(shared_service: Service) -> Iterator[httpx.Client]:
    """A client of the service, for requests that must change nothing."""
    with httpx.Client(base_url=shared_service.base_url, timeout=60, trust_env=False) as client:
        before = client.get("/stats").json()["lsn"]
        yield client
        assert client.get("/stats").json()["lsn"] == before


def statuses(service: Service, request: bytes) -> list[int]:
    """Of all answers on one connection, where `LAST` follows the request."""
    answers = b""
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(request + LAST)
        with suppress(ConnectionResetError):
            while part := connection.recv(1 << 16):
                answers += part
    return [int(status) for status in re.findall(rb"HTTP/1\.\d (\d{3}) ", answers)]


@pytest.mark.parametrize("shape", REFUSED)
def test_what_could_be_read_in_two_ways_is_refused(
    http: httpx.Client, shared_service: Service, shape: str
) -> None:
    assert statuses(shared_service, REFUSED[shape]) in ([400], [400, 404])


@pytest.mark.parametrize("shape", UNREADABLE)
def test_a_body_in_chunks_is_read_by_them_alone(
    http: httpx.Client, shared_service: Service, shape: str
) -> None:
    first, *others = statuses(shared_service, UNREADABLE[shape])
    assert first == 422
    assert others in ([], [400], [404])


@pytest.mark.parametrize("shape", ANSWERED)
def test_what_can_be_read_in_one_way_alone_is_answered_once(
    http: httpx.Client, shared_service: Service, shape: str
) -> None:
    assert statuses(shared_service, ANSWERED[shape]) in ([200], [200, 404])
