"""The bridge's HTTP client: what it repeats, and that a repeated write happens once."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from mcp_server.client import ApiError, FaissClient, UnreachableError
from mcp_server.settings import BridgeSettings
from tests.support.fake_service import FakeService, Refused, serving

pytestmark = pytest.mark.anyio

MEMORY = {"text": "the boiler is serviced in May", "source": "home", "deduplicate": False}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def url(service: FakeService) -> Iterator[str]:
    with serving(service) as url:
        yield url


async def test_an_add_whose_answer_was_lost_happens_once(service: FakeService, url: str) -> None:
    service.answers_to_lose = 2
    async with FaissClient(BridgeSettings(faiss_url=url)) as client:
        answer = await client.write("POST", "/memory/add", MEMORY)
    assert service.requests == ["POST /memory/add"] * 3
    assert answer["id"] == 1
    assert list(service.memories) == [1]


async def test_two_adds_of_the_same_text_are_two_writes(service: FakeService, url: str) -> None:
    async with FaissClient(BridgeSettings(faiss_url=url)) as client:
        first = await client.write("POST", "/memory/add", MEMORY)
        second = await client.write("POST", "/memory/add", MEMORY)
    assert (first["id"], second["id"]) == (1, 2)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_call_waits_for_a_service_that_asks_to_be_asked_again(
    service: FakeService, url: str, status: int
) -> None:
    service.refusals = [Refused(status, "later", {"Retry-After": "0.01"}) for _ in range(2)]
    async with FaissClient(BridgeSettings(faiss_url=url)) as client:
        assert (await client.write("POST", "/memory/add", MEMORY))["id"] == 1


async def test_a_call_gives_up_when_the_wait_is_over(service: FakeService, url: str) -> None:
    service.refusals = [Refused(503, "loading the model") for _ in range(100)]
    async with FaissClient(BridgeSettings(faiss_url=url, faiss_wait_s=0.3)) as client:
        with pytest.raises(ApiError, match="FAISS API error 503: loading the model"):
            await client.get("/stats")
    assert 2 <= len(service.requests) < 100


async def test_the_second_call_in_a_row_to_a_service_that_is_down_does_not_wait() -> None:
    tries = 0
    is_up = False

    def answer(_: httpx.Request) -> httpx.Response:
        nonlocal tries
        tries += 1
        if is_up:
            return httpx.Response(200, json={})
        raise httpx.ConnectError("refused")

    settings = BridgeSettings(faiss_wait_s=1)
    async with FaissClient(settings, transport=httpx.MockTransport(answer)) as client:
        tried = []
        for _ in range(3):
            tries = 0
            with pytest.raises(UnreachableError, match="make serve"):
                await client.get("/stats")
            tried.append(tries)
        assert tried[0] > 3
        assert tried[1:] == [2, 2]
        is_up = True
        await client.get("/stats")
        is_up, tries = False, 0
        with pytest.raises(UnreachableError):
            await client.get("/stats")
        assert tries > 3  # it was up, so the next call waits again


async def test_a_service_that_is_still_loading_is_waited_for_each_time(
    service: FakeService, url: str
) -> None:
    service.refusals = [Refused(503, "loading the model") for _ in range(100)]
    async with FaissClient(BridgeSettings(faiss_url=url, faiss_wait_s=0.3)) as client:
        for _ in range(2):
            n_before = len(service.requests)
            with pytest.raises(ApiError):
                await client.get("/stats")
            assert len(service.requests) - n_before > 2


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 500, 507])
async def test_an_answer_that_will_not_change_is_not_asked_for_again(
    service: FakeService, url: str, status: int
) -> None:
    service.refusals = [Refused(status, "no")]
    async with FaissClient(BridgeSettings(faiss_url=url)) as client:
        with pytest.raises(ApiError, match=f"FAISS API error {status}: no"):
            await client.get("/stats")
    assert len(service.requests) == 1


async def test_a_restart_between_two_calls_goes_unnoticed(service: FakeService) -> None:
    with serving(service) as url:
        client = FaissClient(BridgeSettings(faiss_url=url))
        await client.write("POST", "/memory/add", MEMORY)
    port = httpx.URL(url).port
    assert port is not None
    async with client:
        with serving(service, port):
            assert (await client.get("/stats"))["total_memories"] == 1


async def test_the_key_is_sent_and_a_trailing_slash_does_no_harm(
    service: FakeService, url: str
) -> None:
    service.api_key = "s3cret"
    settings = BridgeSettings(faiss_url=f"{url}/", faiss_api_key="s3cret")
    async with FaissClient(settings) as client:
        await client.get("/stats")
    assert "s3cret" not in repr(settings)


async def test_a_proxy_of_the_environment_is_not_asked_for_loopback(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with FaissClient(BridgeSettings(faiss_url=url, faiss_wait_s=0)) as client:
        assert (await client.get("/health"))["status"] == "ok"


async def test_another_program_on_the_port_is_recognised() -> None:
    def page(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, html="<h1>It works!</h1>")

    settings = BridgeSettings()
    async with FaissClient(settings, transport=httpx.MockTransport(page)) as client:
        with pytest.raises(ApiError, match="Is FAISS_URL the address of a FAISS Memory service"):
            await client.get("/stats")


async def test_a_service_that_hangs_is_given_up_after_the_timeout() -> None:
    def hang(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("")

    settings = BridgeSettings(faiss_timeout_s=7, faiss_wait_s=0)
    async with FaissClient(settings, transport=httpx.MockTransport(hang)) as client:
        with pytest.raises(UnreachableError, match="no answer within 7 s"):
            await client.get("/stats")
