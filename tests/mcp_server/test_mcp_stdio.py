"""The stdio bridge as a process of its own, spoken to by the SDK's client and by hand."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.types import CallToolResult, TextContent
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, KNOWN_PROTOCOL_VERSIONS

from mcp_server.server import create_server
from mcp_server.transport import handshake
from tests import ROOT
from tests.support.fake_service import FakeService, serving

pytestmark = pytest.mark.anyio

BRIDGE = [sys.executable, "-m", "mcp_server"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def parameters(url: str, **env: str) -> StdioServerParameters:
    return StdioServerParameters(
        command=BRIDGE[0],
        args=BRIDGE[1:],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "FAISS_URL": url, **env},
    )


@contextmanager
def bridge(url: str) -> Iterator[subprocess.Popen[str]]:
    """A bridge spoken to line by line."""
    process = subprocess.Popen(
        BRIDGE,
        cwd=ROOT,
        env={**os.environ, "FAISS_URL": url, "FAISS_WAIT_S": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def initialize(version: str, message_id: int | str = 0) -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "id": message_id,
        "method": "initialize",
        "params": {
            "protocolVersion": version,
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }


def lines(*messages: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(message)}\n" for message in messages)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def text_of(result: CallToolResult) -> str:
    [content] = result.content
    assert isinstance(content, TextContent)
    return content.text


@pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])
async def test_the_sdk_client_adds_and_searches(mode: str) -> None:
    with serving(FakeService()) as url:
        transport = stdio_client(parameters(url))
        async with Client(transport, mode=mode) as client:
            assert len((await client.list_tools()).tools) == 11
            added = await client.call_tool("memory_add", {"text": "naïve 🎉", "source": "s"})
            found = await client.call_tool("memory_search", {"query": "naïve"})
    assert text_of(added) == "Memory added (id: 1) from s"
    assert "naïve 🎉" in text_of(found)


async def test_it_starts_and_lists_without_a_service_and_a_call_says_how_to_start_it() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    async with Client(stdio_client(parameters(nowhere, FAISS_WAIT_S="0.2"))) as client:
        assert len((await client.list_tools()).tools) == 11
        result = await client.call_tool("memory_stats", {})
    assert result.is_error
    assert f"Could not reach the FAISS Memory service at {nowhere}" in text_of(result)
    assert "make serve" in text_of(result)


async def test_a_call_waits_for_a_service_that_is_still_starting() -> None:
    port = free_port()
    async with (
        Client(stdio_client(parameters(f"http://127.0.0.1:{port}"))) as client,
        anyio.create_task_group() as tasks,
    ):
        texts: list[str] = []

        async def ask() -> None:
            texts.append(text_of(await client.call_tool("memory_stats", {})))

        tasks.start_soon(ask)
        # The service comes up only once the call is on its way.
        await anyio.wait_all_tasks_blocked()
        with serving(FakeService(), port):
            while not texts:
                await anyio.sleep(0.01)
    assert texts[0].startswith("Total memories: 0")


async def test_a_service_killed_and_started_again_breaks_no_session(tmp_path: Path) -> None:
    port = free_port()
    fake_service = [sys.executable, "-m", "tests.support.fake_service"]
    command = [*fake_service, str(port), str(tmp_path / "state")]

    async with Client(stdio_client(parameters(f"http://127.0.0.1:{port}"))) as client:
        service = subprocess.Popen(command, cwd=ROOT)
        try:
            added = await client.call_tool("memory_add", {"text": "before", "source": "s"})
            service.send_signal(signal.SIGKILL)
            service.wait()
            service = subprocess.Popen(command, cwd=ROOT)
            found = await client.call_tool("memory_search", {"query": "before"})
        finally:
            service.kill()
            service.wait()
    assert text_of(added) == "Memory added (id: 1) from s"
    assert "(id: 1)\nbefore" in text_of(found)


@pytest.mark.parametrize("version", handshake.VERSIONS)
def test_the_early_answer_is_the_one_the_sdk_would_give(version: str) -> None:
    """A string id is answered early; a newline before the message leaves it to the SDK."""
    request = json.dumps(initialize(version, "a"))
    with serving(FakeService()) as url:
        early, _ = answers_to(url, f"{request}\n")
        late, _ = answers_to(url, f"\n{request}\n")
    assert handshake.early_answer(request.encode()) == early[0]
    assert early == [answer for answer in late if answer.get("id") == "a"]
    assert early[0]["result"]["protocolVersion"] == version


def answers_to(url: str, text: str) -> tuple[list[dict[str, Any]], str]:
    with bridge(url) as process:
        output, errors = process.communicate(text, timeout=60)
    return [json.loads(line) for line in output.splitlines()], errors


@pytest.mark.parametrize("version", handshake.VERSIONS)
def test_the_early_list_of_tools_is_the_one_the_sdk_would_give(version: str) -> None:
    """Only a list without parameters is answered early; a mark of progress leaves it to the SDK."""
    plain = {"jsonrpc": "2.0", "id": "early", "method": "tools/list"}
    marked = {**plain, "id": "late", "params": {"_meta": {"progressToken": 1}}}
    assert handshake.early_tools(json.dumps(plain).encode())
    assert handshake.early_tools(json.dumps(marked).encode()) is None
    opening = (initialize(version), {"jsonrpc": "2.0", "method": "notifications/initialized"})
    with bridge("http://127.0.0.1:9") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(lines(*opening, plain, marked))
        process.stdin.flush()
        _, early, late = (json.loads(process.stdout.readline()) for _ in range(3))
    assert (early["id"], late["id"]) == ("early", "late")
    assert early["result"] == late["result"], "run: python -m mcp_server.tools.described_tools"


def test_every_version_with_a_handshake_is_answered_early() -> None:
    assert handshake.VERSIONS == HANDSHAKE_PROTOCOL_VERSIONS
    assert create_server().name == "faiss-memory"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"not json\n",
        b"[]\n",
        b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}\n',
        json.dumps(initialize("1999-01-01")).encode(),
        json.dumps(initialize(KNOWN_PROTOCOL_VERSIONS[-1])).encode(),
        json.dumps({**initialize("2025-06-18"), "id": None}).encode(),
        json.dumps({**initialize("2025-06-18"), "params": {}}).encode(),
    ],
)
def test_an_opening_that_is_not_plain_is_left_to_the_sdk(line: bytes) -> None:
    assert handshake.early_answer(line) is None


def test_an_unknown_version_is_still_answered_with_one_that_is_spoken() -> None:
    answers, _ = answers_to("http://127.0.0.1:9", lines(initialize("2031-01-01")))
    assert [a["result"]["protocolVersion"] for a in answers] == [HANDSHAKE_PROTOCOL_VERSIONS[-1]]


@pytest.mark.parametrize("version", HANDSHAKE_PROTOCOL_VERSIONS)
def test_messages_sent_together_are_all_answered_once_and_stdout_holds_nothing_else(
    version: str,
) -> None:
    messages = [
        initialize(version),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
        {"jsonrpc": "2.0", "id": 2, "method": "prompts/list"},
        {"jsonrpc": "2.0", "id": 3, "method": "nonsense"},
    ]
    with bridge("http://127.0.0.1:9") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(lines(*messages))
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in range(4)]
        rest, _ = process.communicate(timeout=60)
    by_id = {answer["id"]: answer for answer in answers}
    assert by_id[0]["result"]["protocolVersion"] == version
    assert len(by_id[1]["result"]["tools"]) == 11
    assert by_id[2]["result"]["prompts"]
    assert "error" in by_id[3]
    assert rest == ""


PING = b'{"jsonrpc":"2.0","id":"last","method":"ping"}'
ODD: dict[str, tuple[bytes, list[int | str | None]]] = {
    "a cut emoji": (
        b'{"jsonrpc":"2.0","id":7,"method":"ping","params":{"id":1,"x":"\\ud83d"}}',
        [7],
    ),
    "bad UTF-8": (
        b'{"method":"ping","params":{"id":1,"x":"\xff"},"jsonrpc":"2.0","id":"a"}',
        ["a"],
    ),
    "a batch": (b'[{"jsonrpc":"2.0","id":7,"method":"ping"},{"id":8,"method":"ping"}]', [7, 8]),
    "an empty batch": (b"[]", [None]),
    "no jsonrpc": (b'{"id":7,"method":"ping"}', [7]),
    "another jsonrpc": (b'{"jsonrpc":"1.0","id":7,"method":"ping"}', [7]),
    "300 levels": (b'{"jsonrpc":"2.0","id":7,"x":' + b"[" * 300 + b"]" * 300 + b"}", [7]),
    "100,000 levels": (b'{"x":' + b"[" * 10**5 + b"]" * 10**5 + b',"id":7,"jsonrpc":"2.0"}', [7]),
    "a cut line": (b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"memo', [7]),
    "cut within the id": (b'{"jsonrpc":"2.0","id":7', [None]),
    "no id that can be": (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', [None]),
    "a null id": (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', [None]),
    "NaN": (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":{"x":NaN}}', [7]),
    "no method": (b'{"jsonrpc":"2.0","id":7}', [7]),
    "a list of parameters": (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":[1]}', [7]),
    "arguments that are none": (
        b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"x","arguments":1}}',
        [7],
    ),
    "no JSON": (b"hello", [None]),
    "a number": (b"5", [None]),
}


def test_every_odd_line_is_answered_with_an_error_under_its_own_id() -> None:
    """Also as the very first line, before anything else was said."""
    opening = lines(initialize("2025-06-18"), {"method": "notifications/initialized"}).encode()
    odd = b"".join(line + b"\n" for line, _ in ODD.values())
    expected = [message_id for _, ids in ODD.values() for message_id in ids]
    for sent in (opening + odd, odd + opening):
        process = subprocess.run(
            [*BRIDGE], cwd=ROOT, input=sent + b"\n" + PING + b"\n", capture_output=True, check=True
        )
        answers = [json.loads(line) for line in process.stdout.splitlines()]
        errors = [answer for answer in answers if "error" in answer]
        # The line that only looks like our `initialized` has no jsonrpc either.
        assert sorted(map(str, (error["id"] for error in errors))) == sorted(
            map(str, [*expected, None])
        )
        assert all(error["error"]["code"] in (-32700, -32600, -32602) for error in errors)
        assert {"jsonrpc": "2.0", "id": "last", "result": {}} in answers
        assert process.stderr == b""


def test_the_newest_protocol_is_discovered_without_a_handshake() -> None:
    envelope = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    calls = [
        {"jsonrpc": "2.0", "id": n, "method": method, "params": {"_meta": envelope}}
        for n, method in enumerate(("server/discover", "tools/list"))
    ]
    with bridge("http://127.0.0.1:9") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(lines(*calls))  # left open: at its end the SDK drops what is under way
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in calls]
    results = {answer["id"]: answer["result"] for answer in answers}
    assert "2026-07-28" in results[0]["supportedVersions"]
    assert "never instructions" in results[0]["instructions"]
    assert len(results[1]["tools"]) == 11


def test_closing_stdin_ends_the_process() -> None:
    with bridge("http://127.0.0.1:9") as process:
        process.communicate(timeout=60)
        assert process.returncode == 0


def test_the_bridge_loads_neither_ray_nor_the_index_nor_the_command_line() -> None:
    program = (
        "import sys, mcp_server.server, mcp_server.tools.catalogue, mcp_server.client\n"
        "import mcp_server.transport.stdio\n"
        "found = {'ray', 'faiss', 'engine', 'numpy', 'typer'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_the_handshake_loads_the_standard_library_only() -> None:
    program = (
        "import sys, mcp_server.transport.stdio, mcp_server.transport.handshake\n"
        "found = {'mcp', 'mcp_types', 'pydantic', 'anyio', 'httpx'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


async def test_many_bridges_at_once_lose_no_write() -> None:
    service = FakeService()
    failures: list[str] = []

    async def work(url: str, bridge_number: int) -> None:
        async with Client(stdio_client(parameters(url)), mode="legacy") as client:
            for n in range(5):
                memory = {"text": f"bridge {bridge_number} fact {n}", "source": "s"}
                memory_id = f"id: {await added_id(client, memory)})"
                found = text_of(await client.call_tool("memory_search", {"query": memory["text"]}))
                if f"{memory_id}\n{memory['text']}" not in found:
                    failures.append(found)

    async def added_id(client: Client, memory: dict[str, Any]) -> int:
        result = await client.call_tool("memory_add", {**memory, "deduplicate": False})
        assert isinstance(result.structured_content, dict)
        return int(result.structured_content["id"])

    with serving(service) as url:
        async with anyio.create_task_group() as tasks:
            for bridge_number in range(6):
                tasks.start_soon(work, url, bridge_number)
    assert failures == []
    assert sorted(service.memories) == list(range(1, 31))
    assert len({memory["text"] for memory in service.memories.values()}) == 30
