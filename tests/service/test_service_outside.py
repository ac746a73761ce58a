"""What strangers can cost the running service: connections, unfinished bodies, packed bombs."""

from __future__ import annotations

import resource
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import psutil
import pytest
import zstandard

from tests.support.service import Service

pytestmark = pytest.mark.service

N_HALF_OPEN = 1100
N_IDLE = 1024
NAMED = b"Host: localhost\r\n"
ASKED = b"GET /health/live HTTP/1.1\r\n" + NAMED + b"\r\n"
TOO_LARGE = 34_000_000


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as this user may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3 * N_HALF_OPEN:
        pytest.skip("too few open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (3 * N_HALF_OPEN, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def connections(service: Service, n: int, sent: bytes) -> Iterator[list[socket.socket]]:
    with ExitStack() as opened:
        found = []
        for _ in range(n):
            connection = socket.create_connection(("127.0.0.1", service.port), timeout=60)
            opened.enter_context(connection)
            connection.sendall(sent)
            found.append(connection)
        yield found


def assert_answers(service: Service) -> None:
    answer = httpx.get(f"{service.base_url}/health", timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text


@pytest.mark.usefixtures("many_files")
def test_thousands_of_connections_that_say_nothing_keep_nobody_out(shared_service: Service) -> None:
    with connections(shared_service, N_HALF_OPEN, b"GET /health HTTP/1.1\r\nHos") as half_open:
        assert_answers(shared_service)
        with connections(shared_service, N_IDLE, b""):
            assert_answers(shared_service)
        assert half_open[0].recv(12) == b"HTTP/1.1 408"
    with connections(shared_service, N_IDLE, ASKED) as idle:
        assert all(connection.recv(12) == b"HTTP/1.1 200" for connection in idle)
        assert_answers(shared_service)
    unfinished = b"POST /search HTTP/1.1\r\n" + NAMED + b"Content-Length: 9\r\n\r\n{"
    with connections(shared_service, N_HALF_OPEN, unfinished):
        assert_answers(shared_service)


def test_open_paths_hold_no_bodies(shared_service: Service) -> None:
    n_bodies, n_bytes = 20, 16 << 20
    [ingress] = map(psutil.Process, shared_service.replica_pids("Ingress"))
    before = ingress.memory_info().rss
    begun = b"POST /health HTTP/1.1\r\n" + NAMED + b"Content-Length: %d\r\n\r\n" % (n_bytes + 1)
    with connections(shared_service, n_bodies, begun) as opened:
        for connection in opened:
            connection.sendall(b"x" * n_bytes)
        assert_answers(shared_service)
        assert ingress.memory_info().rss - before < n_bodies * n_bytes / 4
        assert all(connection.recv(12) == b"HTTP/1.1 405" for connection in opened)


def test_a_client_that_sends_everything_before_it_reads_sees_the_413(
    shared_service: Service,
) -> None:
    for path in ("/memory/add", "/search", "/mcp"):
        request = urllib.request.Request(
            f"{shared_service.base_url}{path}", data=b"x" * TOO_LARGE, method="POST"
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with pytest.raises(urllib.error.HTTPError) as refusal:
            opener.open(request, timeout=60)
        assert refusal.value.code == 413


def test_a_packed_bomb_is_given_up(shared_service: Service) -> None:
    answer = httpx.post(
        f"{shared_service.base_url}/import",
        content=zstandard.compress(bytes(1 << 30)),
        headers={"Content-Encoding": "zstd"},
        timeout=60,
        trust_env=False,
    )
    assert "200 times its size" in answer.text
    assert_answers(shared_service)


def test_what_has_no_path_or_only_a_head_is_answered_like_the_rest(
    shared_service: Service,
) -> None:
    with connections(shared_service, 1, b"OPTIONS * HTTP/1.1\r\n" + NAMED + b"\r\n") as [asked]:
        assert asked.recv(12) == b"HTTP/1.1 405"
    strange = b"OPTIONS * HTTP/1.1\r\nHost: memory.example\r\n\r\n"
    with connections(shared_service, 1, strange) as [asked]:
        assert asked.recv(12) == b"HTTP/1.1 400"
    answer = httpx.request("BREW", f"{shared_service.base_url}/search", timeout=60, trust_env=False)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json() == {"detail": "Method Not Allowed"}
    answer = httpx.head(f"{shared_service.base_url}/health", timeout=60, trust_env=False)
    assert (answer.status_code, answer.content) == (200, b"")
