"""Keys of the real service: revoked at once and for good, and nowhere in its files or logs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests import ROOT
from tests.support.service import Service, running_service

pytestmark = pytest.mark.service

ROOT_KEY = "a root key of a service under test"
PATIENCE_S = 180


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    env = {"API_KEY": ROOT_KEY, "REQUEST_TIMEOUT_S": "120"}
    with running_service(tmp_path_factory.mktemp("keys"), env=env) as service:
        yield service


def asked(service: Service, method: str, path: str, key: str = ROOT_KEY, **more: Any) -> Any:
    headers = {"X-API-Key": key}
    return httpx.request(
        method,
        f"{service.base_url}{path}",
        headers=headers,
        timeout=PATIENCE_S,
        trust_env=False,
        **more,
    )


def answered(service: Service, method: str, path: str, key: str = ROOT_KEY, **more: Any) -> Any:
    answer = asked(service, method, path, key, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def new_key(service: Service, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = answered(service, "POST", "/keys", json={"name": "a key", **fields})
    return made


def until(status: int, ask: Callable[[], httpx.Response]) -> float:
    """How long it took until it was answered so."""
    began_s = time.monotonic()
    while time.monotonic() - began_s < PATIENCE_S:
        try:
            found = ask().status_code
        except httpx.TransportError:
            found = 0
        if found == status:
            return time.monotonic() - began_s
        time.sleep(0.005)
    raise AssertionError(f"not {status} but {found}")


def test_a_revoked_key_stays_refused_whatever_dies_or_is_restored(service: Service) -> None:
    kept, revoked = new_key(service), new_key(service)
    backup = answered(service, "POST", "/backup")["backup_path"].rpartition("/")[2]
    until(200, lambda: asked(service, "GET", "/stats", kept["key"]))
    until(200, lambda: asked(service, "GET", "/stats", revoked["key"]))

    answered(service, "DELETE", f"/keys/{revoked['id']}")
    took_s = until(401, lambda: asked(service, "GET", "/stats", revoked["key"]))
    print(f"refused {took_s * 1000:.0f} ms after the revocation")

    def check() -> None:
        until(200, lambda: asked(service, "GET", "/stats", kept["key"]))
        assert asked(service, "GET", "/stats", revoked["key"]).status_code == 401
        listed = answered(service, "GET", "/keys")["keys"]
        assert {key["id"] for key in listed} >= {kept["id"]}
        assert revoked["id"] not in {key["id"] for key in listed}

    check()
    answered(service, "POST", "/restore", json={"backup_name": backup})
    check()
    for part in ("Index", "Ingress"):
        service.kill(part)
        check()
    service.restart()
    check()


def test_a_key_made_by_the_command_line_is_bound_to_its_namespace(service: Service) -> None:
    def faiss_memory(*words: str, **env: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "scripts.cli.app", *words],
            cwd=ROOT,
            env={**os.environ, "FAISS_URL": service.base_url, **env},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    text = faiss_memory("keys", "create", "a b", "--in", "team.a", FAISS_API_KEY=ROOT_KEY).strip()
    until(200, lambda: asked(service, "GET", "/keys/me", text))
    shown = faiss_memory("keys", "show", FAISS_API_KEY=text)
    assert ("a b" in shown, "team.a" in shown, text in shown) == (True, True, False)
    listed = faiss_memory("keys", "list", FAISS_API_KEY=ROOT_KEY)
    assert ("read+write in team.a" in listed, text in listed) == (True, False)
    refused = asked(service, "GET", "/ns/team.b/stats", text)
    assert refused.json() == {"detail": "This key may not use namespace 'team.b'"}
    assert asked(service, "GET", "/backups", text).status_code == 403


def test_tools_of_mcp_have_the_key_of_whoever_calls_them(service: Service) -> None:
    reader = new_key(service, scopes=["read"])["key"]
    until(200, lambda: asked(service, "GET", "/keys/me", reader))

    def called(tool: str, key: str, path: str = "/mcp", **arguments: object) -> Any:
        params = {"name": tool, "arguments": arguments}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        accept = "application/json, text/event-stream"
        answer = httpx.post(
            f"{service.base_url}{path}",
            json=body,
            headers={"X-API-Key": key, "Accept": accept},
            timeout=PATIENCE_S,
            trust_env=False,
        )
        return answer.json()["result"]

    memory = {"text": "a fact", "source": "s"}
    refused = called("memory_add", reader, **memory)
    assert refused["isError"]
    assert "403" in refused["content"][0]["text"]
    assert not called("memory_search", reader, query="a fact")["isError"]
    assert not called("memory_add", ROOT_KEY, **memory)["isError"]
    bound = new_key(service, namespaces=["team.a"])["key"]
    until(200, lambda: asked(service, "GET", "/keys/me", bound))
    assert not called("memory_stats", bound, "/mcp/team.a")["isError"]
    elsewhere = httpx.post(
        f"{service.base_url}/mcp/team.b", headers={"X-API-Key": bound}, json={}, trust_env=False
    )
    assert elsewhere.status_code == 403


def test_no_secret_is_in_any_file_or_log(service: Service) -> None:
    made = new_key(service)
    until(200, lambda: asked(service, "GET", "/stats", made["key"]))
    asked(service, "GET", "/stats", made["key"] + "x")
    answered(service, "POST", "/backup")
    secret = made["key"].rpartition("_")[2].encode()
    found = [
        path
        for directory in (service.data_dir, service.runtime_dir)
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink()
    ]
    assert any(path.name == "keys.db" for path in found)
    for path in [*found, service.log_path]:
        content = path.read_bytes()
        assert secret not in content, path
        assert path.name == "keys.db" or b"fm_" + made["id"].encode() not in content, path
    assert made["id"].encode() in service.log_path.read_bytes()
    assert (service.data_dir / "keys.db").stat().st_mode & 0o777 == 0o600
    backups = [path for path in (service.data_dir / "backups").rglob("*") if path.is_file()]
    assert backups
    assert all(made["id"].encode() not in path.read_bytes() for path in backups)
