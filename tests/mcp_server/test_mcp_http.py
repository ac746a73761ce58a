"""MCP over streamable HTTP: the standalone bridge, and the endpoint mounted in an application."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import httpx
import pytest
from fastapi import FastAPI
from mcp import Client
from mcp.types import CallToolResult, TextContent
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from deployments.ingress.replica import add_mcp
from tests import ROOT
from tests.support.fake_service import FakeService, serving
from tests.support.ingress_under_test import Ingress, ingress_settings, make_ingress

pytestmark = pytest.mark.anyio

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def text_of(result: CallToolResult) -> str:
    [content] = result.content
    assert isinstance(content, TextContent)
    return content.text


@contextmanager
def bridge(service_url: str, port: int, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """`faiss-memory-mcp --http`, listening."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mcp_server", "--http", "--port", str(port)],
        cwd=ROOT,
        env={**os.environ, "FAISS_URL": service_url, **env},
    )
    try:
        wait_until_listening(port, process)
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError("the bridge ended before it listened")


@pytest.fixture(scope="module")
def service() -> FakeService:
    return FakeService()


@pytest.fixture(scope="module")
def url(service: FakeService) -> Iterator[str]:
    port = free_port()
    with serving(service) as service_url, bridge(service_url, port):
        yield f"http://127.0.0.1:{port}/mcp"


@pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])
async def test_the_sdk_client_adds_and_searches(url: str, mode: str) -> None:
    async with Client(url, mode=mode) as client:
        assert len((await client.list_tools()).tools) == 11
        memory = {"text": f"over http {mode} ☂", "source": "s"}
        added = await client.call_tool("memory_add", memory)
        found = await client.call_tool("memory_search", {"query": memory["text"], "k": 1})
        assert (await client.read_resource("memory://stats")).contents
    assert text_of(added).startswith("Memory added (id: ")
    assert memory["text"] in text_of(found)


@pytest.mark.parametrize("version", HANDSHAKE_PROTOCOL_VERSIONS)
def test_a_request_needs_no_session_in_any_version(url: str, version: str) -> None:
    headers = {**ACCEPT, "MCP-Protocol-Version": version, "Mcp-Session-Id": "of-another-life"}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    answer = httpx.post(url, json=body, headers=headers)
    assert len(answer.json()["result"]["tools"]) == 11
    assert "mcp-session-id" not in answer.headers


def test_the_newest_protocol_needs_no_handshake_and_is_discovered(url: str) -> None:
    def answer(method: str, of: str | None = None, **params: object) -> dict[str, Any]:
        envelope = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        body = {"jsonrpc": "2.0", "id": 1, "method": method}
        headers = {**ACCEPT, "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method}
        if of is not None:
            headers["Mcp-Name"] = of
        sent = {**body, "params": {**params, "_meta": envelope}}
        result = httpx.post(url, json=sent, headers=headers).json()["result"]
        return cast(dict[str, Any], result)

    discovered = answer("server/discover")
    assert "2026-07-28" in discovered["supportedVersions"]
    assert len(answer("tools/list")["tools"]) == 11
    called = answer("tools/call", "memory_stats", name="memory_stats", arguments={})
    assert called["structuredContent"]["model"] == "all-MiniLM-L6-v2"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_there_is_no_stream_to_open_and_no_session_to_end(url: str, method: str) -> None:
    answer = httpx.request(method, url, headers=ACCEPT)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


def test_a_client_of_the_old_transport_is_told_where_to_go(url: str) -> None:
    answer = httpx.get(url.removesuffix("/mcp") + "/sse", headers={"Accept": "text/event-stream"})
    assert answer.status_code == 404
    assert "the URL that ends with /mcp" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 400),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 400),
    ],
)
def test_another_website_is_refused(url: str, headers: dict[str, str], status: int) -> None:
    answer = httpx.post(url, json=INITIALIZE, headers={**ACCEPT, **headers})
    assert answer.status_code == status


def test_with_a_key_callers_present_it_and_may_come_by_another_name() -> None:
    port = free_port()
    service = FakeService(api_key="k3y")

    def status(**headers: str) -> int:
        url = f"http://127.0.0.1:{port}/mcp"
        answer = httpx.post(url, json=call("memory_stats"), headers={**ACCEPT, **headers})
        if answer.is_success:
            assert answer.json()["result"]["isError"] is False
        return answer.status_code

    with serving(service) as service_url, bridge(service_url, port, FAISS_API_KEY="k3y"):
        assert status() == 401
        assert status(**{"X-API-Key": "wrong"}) == 401
        assert status(**{"X-API-Key": "k3y"}) == 200
        assert status(Authorization="Bearer k3y", Host="memory.example") == 200
        assert status(Authorization="bearer  k3y") == 200
        assert status(Authorization="Basic k3y") == 401
        url = f"http://127.0.0.1:{port}"
        refused = httpx.post(f"{url}/mcp", json=INITIALIZE, headers=ACCEPT)
        assert refused.headers["www-authenticate"] == "Bearer"
        for path in ("oauth-protected-resource", "oauth-authorization-server/mcp"):
            assert httpx.get(f"{url}/.well-known/{path}").status_code == 404


def test_a_host_others_can_reach_needs_a_key() -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "mcp_server", "--http", "--host", "0.0.0.0"],
        cwd=ROOT,
        env={**os.environ, "FAISS_API_KEY": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "FAISS_API_KEY" in refused.stderr


async def test_bridge_and_service_killed_between_two_calls_leave_no_dead_session(
    tmp_path: Path,
) -> None:
    port, service_port = free_port(), free_port()
    fake_service = [sys.executable, "-m", "tests.support.fake_service"]
    command = [*fake_service, str(service_port), str(tmp_path / "s")]

    @contextmanager
    def both() -> Iterator[None]:
        service = subprocess.Popen(command, cwd=ROOT)
        try:
            with bridge(f"http://127.0.0.1:{service_port}", port):
                yield
        finally:
            service.kill()
            service.wait()

    with ExitStack() as processes:
        processes.enter_context(both())
        async with Client(f"http://127.0.0.1:{port}/mcp", mode="legacy") as client:
            added = await client.call_tool("memory_add", {"text": "before", "source": "s"})
            processes.close()
            processes.enter_context(both())
            found = await client.call_tool("memory_search", {"query": "before"})
    assert text_of(added) == "Memory added (id: 1) from s"
    assert "(id: 1)\nbefore" in text_of(found)


async def test_ten_clients_at_once_lose_no_write(service: FakeService, url: str) -> None:
    before = set(service.memories)
    ids: list[int] = []

    async def work(number: int) -> None:
        async with Client(url, mode="legacy") as client:
            for n in range(5):
                memory = {"text": f"client {number} fact {n}", "source": "s", "deduplicate": False}
                result = await client.call_tool("memory_add", memory)
                assert isinstance(result.structured_content, dict)
                ids.append(result.structured_content["id"])

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(work, number)
    assert len(ids) == 50
    assert set(service.memories) - before == set(ids)


def mounted(**settings: str) -> Ingress:
    """The service's own application with MCP beside its routes."""
    ingress = make_ingress(**settings)
    app = cast(FastAPI, ingress.http.app)
    add_mcp(app, ingress_settings(**settings))
    return ingress


def call(tool: str, **arguments: object) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


def test_in_the_service_tools_reach_its_routes_without_the_network() -> None:
    ingress = mounted(api_key="k3y")
    headers = {**ACCEPT, "X-API-Key": "k3y"}
    for n in range(2):  # the application may be started again
        with ingress.http as http:
            add = call("memory_add", text=f"fact {n}", source="s", deduplicate=False)
            result = http.post("/mcp", json=add, headers=headers).json()["result"]
            assert result["isError"] is False, result
            stats = http.post("/mcp", json=call("memory_stats"), headers=headers).json()["result"]
            assert stats["structuredContent"]["total_memories"] == n + 1
            missing = call("memory_get", id=10**6)
            result = http.post("/mcp", json=missing, headers=headers).json()["result"]
            assert result["content"][0]["text"] == (
                "FAISS API error 404: Memory ID 1000000 not found"
            )


def test_in_the_service_the_same_strangers_are_refused_as_on_every_route() -> None:
    with mounted().http as http:
        assert http.post("/mcp", json=INITIALIZE, headers=ACCEPT).status_code == 200
        elsewhere = {**ACCEPT, "Origin": "https://evil.example"}
        assert http.post("/mcp", json=INITIALIZE, headers=elsewhere).status_code == 403
        rebound = {**ACCEPT, "Host": "evil.example"}
        assert http.post("/mcp", json=INITIALIZE, headers=rebound).status_code == 400
        assert http.get("/mcp").status_code == 405
    with mounted(api_key="k3y").http as http:
        assert http.post("/mcp", json=INITIALIZE, headers=ACCEPT).status_code == 401


def test_before_its_start_the_endpoint_says_not_ready() -> None:
    answer = mounted().http.post("/mcp", json=INITIALIZE, headers=ACCEPT)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
