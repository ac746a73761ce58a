"""What a web page of another origin, and a caller without the key, get from the running service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.service import Service, running_service

pytestmark = pytest.mark.service

KEY = "a-key-of-the-test"
ANYWHERE = "0.0.0.0"
STRANGE_HOST = {"Host": "memory.example"}
UNAUTHORISED = (401, {"detail": "Invalid or missing API key"})
PLANTED = b'{"text":"planted","source":"another page"}'
ROUTES = ["/health", "/memories", "/stats", "/metrics", "/docs", "/openapi.json", "/nowhere"]


@pytest.fixture
def http(shared_service: Service) -> Iterator[httpx.Client]:
    """A client of the service; what is sent with it must change nothing."""
    with httpx.Client(base_url=shared_service.base_url, timeout=60, trust_env=False) as client:
        before = client.get("/stats").json()["lsn"]
        yield client
        assert client.get("/stats").json()["lsn"] == before


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1"]
)
def test_another_origins_page_reads_nothing(http: httpx.Client, origin: str) -> None:
    for path in ROUTES:
        answer = http.get(path, headers={"Origin": origin})
        assert answer.status_code == 403, path
        assert "access-control-allow-origin" not in answer.headers


def test_a_preflight_of_another_origin_is_refused(http: httpx.Client) -> None:
    for path, method in (("/memory/add", "POST"), ("/memory/0", "DELETE"), ("/search", "POST")):
        answer = http.options(
            path,
            headers={
                "Origin": "https://evil.example",
                "Access-Control-Request-Method": method,
                "Access-Control-Request-Headers": "content-type,x-api-key",
            },
        )
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_post_that_needs_no_preflight_writes_nothing(http: httpx.Client) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        for path in ("/memory/add", "/memory/delete-by-source", "/backup", "/index/build"):
            answer = http.post(
                path,
                content=PLANTED,
                headers={"Origin": "http://localhost:3000", "Content-Type": content_type},
            )
            assert answer.status_code == 403


def test_a_name_that_was_pointed_at_this_machine_is_refused(http: httpx.Client) -> None:
    for path in ROUTES:
        rebound = {**STRANGE_HOST, "Origin": "http://memory.example"}
        assert http.get(path, headers=STRANGE_HOST).status_code == 400, path
        assert http.get(path, headers=rebound).status_code == 400, path
    assert http.post("/memory/add", content=PLANTED, headers=STRANGE_HOST).status_code == 400


def test_serves_own_routes_are_not_there(http: httpx.Client) -> None:
    for path in ("/-/routes", "/-/healthz", "/-/HEALTHZ", "/%2d/healthz", "/-%2froutes"):
        assert http.get(path, headers=STRANGE_HOST).status_code in {400, 404}, path
        assert http.get(path).status_code == 404, path


def test_the_services_own_page_may_call(shared_service: Service) -> None:
    for host in ("localhost", "127.0.0.1"):
        own = f"http://{host}:{shared_service.port}"
        headers = {"Origin": own, "Host": f"{host}:{shared_service.port}"}
        answer = httpx.get(f"{shared_service.base_url}/stats", headers=headers, trust_env=False)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == own


def test_beyond_loopback_a_key_is_asked_for_unless_told_otherwise(tmp_path: Path) -> None:
    with running_service(tmp_path, env={"HOST": ANYWHERE, "API_KEY": KEY}) as service:
        listening = {
            connection.laddr.ip
            for process in service.processes()
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == service.port
        }
        assert listening == {ANYWHERE}
        with httpx.Client(base_url=service.base_url, timeout=60, trust_env=False) as http:
            _the_key_opens(http)
        log = service.log_path.read_text()
        assert "API_KEY" in log.upper()
        assert KEY not in log

        service.stop()
        data = (service.data_dir, service.workspace_dir)
        refused = Service(*data, env={"HOST": ANYWHERE})
        refused.launch()
        assert refused.exited_within(60)
        assert refused.stop() == 1
        sentence = refused.log().rpartition("Cannot run:")[2]
        assert "API_KEY" in sentence
        assert "ALLOW_NO_AUTH=true" in sentence
        assert "Traceback" not in sentence

        host = "127.0.0.2"  # stands for one of the machine's outer addresses
        allowed = Service(*data, env={"HOST": host, "ALLOW_NO_AUTH": "true"})
        allowed.start()
        try:
            with pytest.raises(httpx.ConnectError):
                httpx.get(allowed.base_url, trust_env=False)
            url = f"http://{host}:{allowed.port}/memories"
            known = httpx.get(url, headers={"Host": "localhost"}, timeout=60, trust_env=False)
            [memory] = known.json()["memories"]
            assert memory["text"] == "Kept behind a key."
            strange = httpx.get(url, headers=STRANGE_HOST, timeout=60, trust_env=False)
            assert strange.status_code == 400
        finally:
            allowed.stop()


def _the_key_opens(http: httpx.Client) -> None:
    for path in ("/health", "/health/live", "/health/ready", "/docs", "/redoc", "/openapi.json"):
        assert http.get(path).status_code == 200, path
    body = {"text": "Kept behind a key.", "source": "test"}
    wrong: list[dict[str, str]] = [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": KEY + "x"},
        {"X-API-Key": KEY.upper()},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
    ]
    for headers in wrong:
        for method, path in (("POST", "/memory/add"), ("GET", "/metrics"), ("GET", "/nowhere")):
            answer = http.request(method, path, json=body, headers=headers)
            assert (answer.status_code, answer.json()) == UNAUTHORISED, (headers, path)
    # Asked for before the body is parsed.
    assert http.post("/memory/add", content=b"{").status_code == 401

    by_header, by_bearer = {"X-API-Key": KEY}, {"Authorization": f"Bearer {KEY}"}
    assert http.post("/memory/add", json=body, headers=by_header).status_code == 200
    for headers in (by_header, by_bearer):
        assert http.get("/memories", headers={**headers, **STRANGE_HOST}).json()["total"] == 1
        foreign = {**headers, "Origin": "https://evil.example"}
        assert http.get("/memories", headers=foreign).status_code == 403
