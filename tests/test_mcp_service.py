"""Bridges and the skill against the real service: every tool, many at once, and a restart."""

from __future__ import annotations

import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from mcp import Client, stdio_client

from tests.service import Service, running_service
from tests.test_mcp_http import bridge, free_port, text_of
from tests.test_mcp_stdio import parameters
from tests.test_skill import AWKWARD, SKILL

pytestmark = [pytest.mark.anyio, pytest.mark.service]

N_STDIO = 20
N_HTTP = 10


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def http_url(shared_service: Service) -> Iterator[str]:
    port = free_port()
    with bridge(shared_service.base_url, port):
        yield f"http://127.0.0.1:{port}/mcp"


@asynccontextmanager
async def connected(transport: str, service_url: str, http_url: str) -> AsyncIterator[Client]:
    where = http_url if transport == "http" else stdio_client(parameters(service_url))
    async with Client(where, mode="legacy") as client:
        yield client


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_every_tool_answers_in_its_text(
    shared_service: Service, http_url: str, transport: str
) -> None:
    source = f"tools/{transport}"
    async with connected(transport, shared_service.base_url, http_url) as client:

        async def text(tool: str, **arguments: object) -> str:
            result = await client.call_tool(tool, arguments)
            assert not result.is_error, text_of(result)
            return text_of(result)

        fact = f"The {transport} kettle was repaired by Ingrid in March"
        added = await text("memory_add", text=fact, source=source, metadata={"n": 1})
        memory_id = int(re.fullmatch(rf"Memory added \(id: (\d+)\) from {source}", added)[1])  # type: ignore[index]
        assert await text("memory_add", text=fact, source=source) == (
            "Duplicate skipped — a very similar memory already exists."
        )
        found = await text("memory_search", query="who repaired the kettle?", source=source)
        first = rf"\[1\] \(\d+%\) {source} \(id: {memory_id}\)\n{fact}"
        assert re.fullmatch(rf'Found 1 memories for "who repaired the kettle\?":\n\n{first}', found)
        assert await text("memory_search", query="kettle", source="nowhere at all") == (
            'No memories found for: "kettle"'
        )
        assert (await text("memory_is_novel", text=fact)).startswith(
            "Not novel — similar memory exists (100% match):\n"
        )
        assert fact in await text("memory_get", id=memory_id)
        assert await text("memory_update", id=memory_id, text=f"{fact}.") == (
            f"Updated memory {memory_id} from {source}"
        )
        assert await text("memory_list", source=source) == (
            f"Memories (1-1 of 1):\n\n[{memory_id}] {source} — {fact}.…"
        )
        assert re.match(r"Total memories: \d+\nModel: all-MiniLM", await text("memory_stats"))
        assert await text("memory_delete", id=memory_id) == (
            f'Deleted memory {memory_id}: "{fact}."'
        )
        batch = [{"text": f"{fact} {word}", "source": source} for word in ("again", "again")]
        assert "1 skipped as duplicates" in await text("memory_add_batch", memories=batch)
        assert await text("memory_delete_by_source", source_pattern=source) == (
            f'Deleted 1 memories whose source contains "{source}".'
        )
        missing = await client.call_tool("memory_get", {"id": memory_id})
    assert text_of(missing) == f"FAISS API error 404: Memory ID {memory_id} not found"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_skill_keeps_awkward_texts_to_the_letter(
    shared_service: Service, tmp_path: Path, shell: str
) -> None:
    [functions] = re.findall(r"^```bash\n(.*?)^```", SKILL.read_text("utf-8"), re.M | re.S)
    (tmp_path / "skill.sh").write_text(functions, "utf-8")
    script = '. ./skill.sh; text=$(cat text; printf x); "$@" "${text%x}" "skill/$KIND" false'
    for kind, text in AWKWARD.items():
        (tmp_path / "text").write_bytes(text.encode())
        added = subprocess.run(
            [shell, "-c", script, "skill", "memory_add_faiss"],
            cwd=tmp_path,
            env={**_path(), "FAISS_URL": shared_service.base_url, "KIND": kind},
            capture_output=True,
            text=True,
            check=True,
        )
        [memory_id] = re.findall(r"\(id: (\d+)\)", added.stdout)
        stored = httpx.get(f"{shared_service.base_url}/memory/{memory_id}").json()
        assert stored["text"] == text


def _path() -> dict[str, str]:
    import os

    return {"PATH": os.environ["PATH"]}


async def test_twenty_bridges_and_ten_http_clients_lose_no_write(
    shared_service: Service, http_url: str
) -> None:
    answered: dict[int, str] = {}
    problems: list[str] = []

    async def work(transport: str, number: int) -> None:
        async with connected(transport, shared_service.base_url, http_url) as client:
            for n in range(4):
                fact = f"{transport} client {number} keeps fact {n}"
                added = await client.call_tool(
                    "memory_add", {"text": fact, "source": "crowd", "deduplicate": False}
                )
                found = await client.call_tool("memory_search", {"query": fact, "source": "crowd"})
                if added.is_error or found.is_error or fact not in text_of(found):
                    problems.append(text_of(added) + text_of(found))
                else:
                    answered[_id(added.structured_content)] = fact

    async with anyio.create_task_group() as tasks:
        for number in range(N_STDIO):
            tasks.start_soon(work, "stdio", number)
        for number in range(N_HTTP):
            tasks.start_soon(work, "http", number)
    assert problems == []
    stored: dict[int, str] = {}
    while True:
        query = {"source": "crowd", "limit": 100, "offset": len(stored)}
        page = httpx.get(f"{shared_service.base_url}/memories", params=query).json()
        stored |= {memory["id"]: memory["text"] for memory in page["memories"]}
        if not page["memories"]:
            break
    assert stored == answered
    assert len(set(stored.values())) == 4 * (N_STDIO + N_HTTP)


def _id(structure: Any) -> int:
    assert isinstance(structure, dict)
    return int(structure["id"])


async def test_killed_and_started_again_the_service_answers_the_same_sessions(
    tmp_path: Path,
) -> None:
    port = free_port()
    with running_service(tmp_path) as service, bridge(service.base_url, port):
        stdio = stdio_client(parameters(service.base_url, FAISS_WAIT_S="0.5"))
        async with (
            Client(stdio, mode="legacy") as over_stdio,
            Client(f"http://127.0.0.1:{port}/mcp", mode="legacy") as over_http,
        ):
            fact = {"text": "The spare key is at Jonas'", "source": "home"}
            added = await over_stdio.call_tool("memory_add", fact)
            for process in service.processes():
                process.kill()
            down = await over_stdio.call_tool("memory_search", {"query": "spare key"})
            await anyio.to_thread.run_sync(service.start)
            found = [
                await client.call_tool("memory_search", {"query": "spare key"})
                for client in (over_stdio, over_http)
            ]
    assert not added.is_error
    assert down.is_error
    assert "make serve" in text_of(down)
    assert all(fact["text"] in text_of(result) for result in found)
