"""Every shape of `Host`, `Origin` and `Sec-Fetch-Site` that a browser or a stranger may send."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import httpx
import pytest

from tests.support.service import Service

pytestmark = pytest.mark.service

PORT = "PORT"
"""Stands for the service's own."""
OWN_HOSTS = [
    "localhost",
    f"localhost:{PORT}",
    "LOCALHOST",
    "localhost.",
    "localhost:1",
    "127.0.0.1",
    f"127.0.0.1:{PORT}",
    "[::1]",
    f"[::1]:{PORT}",
]
STRANGE_HOSTS = [
    "",
    "memory.example",
    f"memory.example:{PORT}",
    "localhost.memory.example",
    "memory.example.localhost",
    "localhost@memory.example",
    "memory.example#localhost",
    "127.0.0.1.nip.io",
    "127.0.0.2",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0.0.0.0",
    "[::]",
    "[::ffff:127.0.0.1]",
    "xn--lcalhost-54a",
    "local_host",
]
STRANGE_ORIGINS = [
    "null",
    "https://memory.example",
    "http://localhost",
    "http://localhost:1",
    f"https://localhost:{PORT}",
    f"http://localhost:{PORT}.memory.example",
    f"http://memory.example:{PORT}",
    f"http://localhost:{PORT}/",
    f"http://x@localhost:{PORT}",
    f"http://127.0.0.1:{PORT}",
    f"http://[::1]:{PORT}",
    "file://",
    "chrome-extension://abcdefghijklmnop",
    f"http://localhost:{PORT}, https://memory.example",
    f"http://localhost:{PORT} https://memory.example",
    "*",
    "",
]
PATHS = ["/health", "/stats", "/memories", "/docs", "/nowhere", "/export"]


@pytest.fixture
def http(shared_service: Service) -> Iterator[httpx.Client]:
    """A client of the service; what is sent with it must change nothing."""
    with httpx.Client(base_url=shared_service.base_url, timeout=60, trust_env=False) as client:
        before = client.get("/stats").json()["lsn"]
        yield client
        assert client.get("/stats").json()["lsn"] == before


def seen(http: httpx.Client, headers: Mapping[str, str]) -> set[int]:
    """The statuses of reads and of a write that would be seen."""
    named = {name: value.replace(PORT, str(http.base_url.port)) for name, value in headers.items()}
    answers = [http.get(path, headers=named) for path in PATHS]
    body = {"text": "planted", "source": "another page", "deduplicate": False}
    answers += [http.post("/memory/add", json=body, headers=named)]
    answers += [http.request("DELETE", "/memory/0", headers=named)]
    assert not any("access-control-allow-origin" in answer.headers for answer in answers)
    return {answer.status_code for answer in answers}


@pytest.mark.parametrize("host", OWN_HOSTS)
def test_the_services_own_names_are_answered(http: httpx.Client, host: str) -> None:
    host = host.replace(PORT, str(http.base_url.port))
    assert http.get("/stats", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", STRANGE_HOSTS)
def test_another_name_is_refused_everywhere(http: httpx.Client, host: str) -> None:
    assert seen(http, {"Host": host}) == {400}


@pytest.mark.parametrize("origin", STRANGE_ORIGINS)
def test_another_origin_is_refused_everywhere(http: httpx.Client, origin: str) -> None:
    assert seen(http, {"Host": f"localhost:{PORT}", "Origin": origin}) == {403}


@pytest.mark.parametrize("site", ["cross-site", "same-site", "CROSS-SITE", "nonsense", ""])
def test_a_page_that_names_no_origin_is_refused_everywhere(http: httpx.Client, site: str) -> None:
    assert seen(http, {"Sec-Fetch-Site": site, "Sec-Fetch-Dest": "image"}) == {403}


def test_two_origins_are_as_good_as_the_worse(http: httpx.Client) -> None:
    port = http.base_url.port
    own, other = f"http://localhost:{port}", "https://memory.example"
    for origins in ([own, other], [other, own]):
        headers = [("Host", f"localhost:{port}"), *(("Origin", origin) for origin in origins)]
        assert http.get("/stats", headers=headers).status_code == 403
