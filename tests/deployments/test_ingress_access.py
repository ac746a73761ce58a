"""Who may call: hosts, origins, keys, body sizes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from starlette.types import Message

from tests.support.ingress_under_test import make_ingress

KEY = "sécret"
UNAUTHORISED = {"detail": "Invalid or missing API key"}
DOCUMENTS = ["/openapi.json", "/openapi-gpt.json"]
OPEN = ["/health", "/health/live", "/health/ready", "/docs", "/redoc", *DOCUMENTS]
CLOSED = ["/stats", "/memories", "/memory/0", "/metrics", "/backups", "/nowhere", "/healthy", "/"]


@pytest.mark.parametrize("path", CLOSED)
def test_a_closed_route_wants_the_key(path: str) -> None:
    ingress = make_ingress(api_key=KEY)
    wrong: list[dict[bytes, bytes]] = [
        {},
        {b"X-API-Key": b"secret"},
        {b"X-API-Key": b""},
        {b"X-API-Key": KEY.encode() + b"x"},
        {b"Authorization": KEY.encode()},
        {b"Authorization": b"Basic " + KEY.encode()},
    ]
    for headers in wrong:
        answer = ingress.http.get(path, headers=headers)
        assert (answer.status_code, answer.json()) == (401, UNAUTHORISED), headers
        assert answer.headers["www-authenticate"].startswith("Bearer")

    for headers in (
        {b"X-API-Key": KEY.encode()},
        {b"Authorization": b"Bearer " + KEY.encode()},
        {b"authorization": b"bearer " + KEY.encode()},
        {b"AUTHORIZATION": b"BEARER  " + KEY.encode()},
    ):
        assert ingress.http.get(path, headers=headers).status_code in {200, 404}


@pytest.mark.parametrize("path", OPEN)
def test_an_open_route_needs_no_key(path: str) -> None:
    assert make_ingress(api_key=KEY).http.get(path).status_code == 200


def test_who_looks_for_oauth_finds_none_without_a_key() -> None:
    http = make_ingress(api_key=KEY).http
    for path in ("/.well-known/oauth-protected-resource", "/.well-known/openid-configuration/mcp"):
        answer = http.get(path)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


def test_the_key_is_asked_for_before_the_body_is_looked_at() -> None:
    ingress = make_ingress(api_key=KEY, max_body_bytes=10)
    assert ingress.http.post("/search", content=b"{" * 100).status_code == 401
    assert ingress.http.put("/search").status_code == 401


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://localhost",
        "http://localhost:3000",
        "https://localhost:8900",
        "http://localhost:8900.evil.example",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/search", "/memories", "/health", "/docs", "/nowhere"])
def test_another_origins_page_is_refused_everywhere(origin: str, path: str) -> None:
    ingress = make_ingress()
    ingress.add("alpha")
    for method in ("GET", "POST", "OPTIONS"):
        answer = ingress.http.request(method, path, headers={"Origin": origin})
        assert answer.status_code == 403
        assert "detail" in answer.json()
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site", "", "future-site"])
@pytest.mark.parametrize("mode", ["no-cors", "navigate"])
def test_a_request_of_another_sites_page_that_names_no_origin_is_refused(
    site: str, mode: str
) -> None:
    ingress = make_ingress()
    ingress.add("alpha")
    sent = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode}
    for path in ("/memories", "/stats", "/memory/0", "/nowhere", "/health", "/export"):
        for dest in ("image", "script", "iframe", "empty"):
            answer = ingress.http.get(path, headers={**sent, "Sec-Fetch-Dest": dest})
            assert answer.status_code == 403, (path, dest)
    opened = {**sent, "Sec-Fetch-Dest": "document"}
    assert ingress.http.get("/memories", headers=opened).status_code == 403
    assert ingress.http.post("/memory/add", headers=opened).status_code == 403


def test_links_bookmarks_and_allowed_pages_are_no_strangers() -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
    http = make_ingress().http
    for path in ("/", "/docs", "/redoc", "/health"):
        assert http.get(path, headers=link).status_code == 200, path
    for site in ("same-origin", "none"):
        assert http.get("/memories", headers={"Sec-Fetch-Site": site}).status_code == 200
    http = make_ingress(cors_origins=("https://app.example",)).http
    allowed = {"Sec-Fetch-Site": "cross-site", "Origin": "https://app.example"}
    assert http.get("/memories", headers=allowed).status_code == 200
    everyone = make_ingress(cors_origins=("*",)).http
    assert everyone.get("/memories", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_no_answer_is_for_another_origin_and_json_is_not_kept() -> None:
    http = make_ingress(api_key=KEY).http
    for path in ("/health", "/stats", "/openapi.json", "/nowhere", "/docs"):
        headers = http.get(path).headers
        assert headers["cross-origin-resource-policy"] == "same-origin"
        is_json = headers["content-type"] == "application/json"
        assert headers.get("cache-control") == ("no-store" if is_json else None)


def test_a_simple_post_of_another_page_writes_nothing() -> None:
    ingress = make_ingress()
    answer = ingress.http.post(
        "/memory/add",
        content=b'{"text":"a","source":"s"}',
        headers={"Origin": "https://evil.example", "Content-Type": "text/plain"},
    )
    assert answer.status_code == 403
    assert ingress.index.memories == {}


def test_the_services_own_page_may_call() -> None:
    http = make_ingress().http
    for origin, host in (
        ("http://localhost:8900", "localhost:8900"),
        ("http://127.0.0.1:8900", "127.0.0.1:8900"),
        ("http://[::1]:8900", "[::1]:8900"),
    ):
        answer = http.get("/memories", headers={"Origin": origin, "Host": host})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == origin


def test_a_page_that_rebinds_its_own_name_is_not_the_services_own() -> None:
    rebound = {"Origin": "http://evil.example:8900", "Host": "evil.example:8900"}
    assert make_ingress().http.get("/health", headers=rebound).status_code == 400
    assert make_ingress(api_key=KEY).http.get("/health", headers=rebound).status_code == 403


def test_an_allowed_origin_passes_its_preflight_and_reads_the_answer() -> None:
    http = make_ingress(api_key=KEY, cors_origins=("https://app.example/",)).http
    origin = {"Origin": "https://app.example"}

    preflight = http.options("/search", headers={**origin, "Access-Control-Request-Method": "POST"})

    assert preflight.status_code == 204
    assert "X-API-Key" in preflight.headers["access-control-allow-headers"]
    assert "PATCH" in preflight.headers["access-control-allow-methods"]
    for answer in (preflight, http.get("/stats", headers=origin)):
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert answer.headers["vary"] == "Origin"
        assert answer.headers["x-request-id"]
    plain = http.options("/search", headers=origin)
    assert plain.status_code == 401


def test_the_public_urls_page_may_call() -> None:
    http = make_ingress(api_key=KEY, public_url="https://memory.example").http
    headers = {"Origin": "https://memory.example", "Host": "memory.example"}
    assert http.get("/health", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8900", "localhost.:1", "127.0.0.1:8900", "[::1]", "[::1]:8900"],
)
def test_a_loopback_host_is_answered(host: str) -> None:
    assert make_ingress().http.get("/stats", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8900", "localhost.evil.example", "127.0.0.2", "[::2]:8900", ""],
)
def test_a_strange_host_is_refused_while_there_is_no_key(host: str) -> None:
    answer = make_ingress().http.get("/health", headers={"Host": host})
    assert answer.status_code == 400
    assert make_ingress(api_key=KEY).http.get("/health", headers={"Host": host}).status_code == 200
    anyone = make_ingress(allowed_hosts=("*",)).http
    assert anyone.get("/health", headers={"Host": host}).status_code == 200


def test_a_host_may_be_allowed() -> None:
    http = make_ingress(allowed_hosts=("Memory.LAN",)).http
    assert http.get("/health", headers={"Host": "memory.lan:80"}).status_code == 200
    assert http.get("/health", headers={"Host": "localhost"}).status_code == 400


def test_a_body_may_fill_its_bound_and_no_more() -> None:
    body = b'{"query":"alpha"}'
    assert make_ingress(max_body_bytes=len(body)).http.post("/search", content=body).is_success

    answer = make_ingress(max_body_bytes=len(body) - 1).http.post("/search", content=body)

    assert answer.status_code == 413
    assert "detail" in answer.json()


def test_a_chunked_body_is_cut_off_when_it_grows_too_long() -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(5):
            yield b" " * 10

    assert make_ingress(max_body_bytes=49).http.post("/search", content=chunks()).status_code == 413
    assert make_ingress(max_body_bytes=50).http.post("/search", content=chunks()).status_code == 422


def test_a_body_announced_too_long_is_refused_before_any_of_it_is_read() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        assert b"larger" in b"".join(message.get("body", b"") for message in sent)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": "/memory/add",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-length", str(33 << 20).encode())],
    }
    asyncio.run(make_ingress().http.app(scope, receive, send))  # type: ignore[arg-type]

    assert sent[0]["status"] == 413


def test_unknown_paths_and_methods_have_the_contracts_bodies() -> None:
    http = make_ingress().http
    assert http.get("/", follow_redirects=False).headers["location"] == "/docs"
    for path in ("/nowhere", "/search/", "/memory/1/2"):
        assert (http.get(path).status_code, http.get(path).json()) == (404, {"detail": "Not Found"})
    for method, path, allow in (
        ("GET", "/search", {"POST"}),
        ("GET", "/memory/add", {"POST"}),
        ("PUT", "/memory/0", {"GET", "PATCH", "DELETE"}),
    ):
        answer = http.request(method, path)
        assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})
        assert set(answer.headers["allow"].split(", ")) == allow
