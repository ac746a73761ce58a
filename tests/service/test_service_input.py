"""Bad input through the whole stack: the contract's answer, and the store stays as it was."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any, cast

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from tests.support.openapi_checks import checks_for
from tests.support.service import Service

pytestmark = pytest.mark.service

DEEP = b"[" * 10_000 + b"]" * 10_000
TOO_LARGE = 33 * 2**20
NAMED = b"Host: localhost\r\n"
QUERY = b'{"query":"coffee"}'


@pytest.fixture
def http(shared_service: Service) -> Iterator[httpx.Client]:
    """A client of the service, with one memory in it, for requests that must change nothing."""
    with httpx.Client(base_url=shared_service.base_url, timeout=60, trust_env=False) as client:
        added = client.post("/memory/add", json={"text": "Coffee.", "source": "test_input"})
        assert added.is_success
        before = state(client)
        yield client
        assert state(client) == before


def state(http: httpx.Client) -> tuple[int, int]:
    stats = http.get("/stats").json()
    return stats["lsn"], stats["total_memories"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"text":"a","source":"s"} trailing',
        b"\xff\xfe",
        b"\xff\xfe{",
        '{"text":"\ud800","source":"s"}'.encode("utf-16", "surrogatepass"),
        b'{"text":"\xed\xa0\x80","source":"s"}',
        b'{"text":"\\ud800","source":"s"}',
        b'{"text":"a","source":"s","metadata":{"\\udfff":1}}',
        b'{"text":"a","source":"s","metadata":{"a":NaN}}',
        b'{"text":"a","source":"s","metadata":{"a":-Infinity}}',
        b'{"text":"a","source":"s","metadata":{"a":1e999}}',
        b'{"text":"a","source":"s","metadata":{"a":' + DEEP + b"}}",
        b'{"text":"a","source":"s","metadata":[1]}',
        b'{"text":"a","source":"s","metadata":{"a":"' + b"x" * 65_600 + b'"}}',
        b'{"text":"","source":"s"}',
        b'{"text":" \\n\\t\\u00a0\\u3000","source":"s"}',
        b'{"text":7,"source":"s"}',
        b'{"text":["a"],"source":"s"}',
        b'{"text":"a"}',
        b'{"text":"a","source":null}',
        b'{"text":"a","source":"s","deduplicate":"maybe"}',
        b'{"text":"' + b"x" * 50_001 + b'","source":"s"}',
        b'{"text":"a","source":"' + b"x" * 501 + b'"}',
        DEEP,
    ],
    ids=lambda body: body[:40].decode("latin-1") + f"#{len(body)}",
)
def test_a_malformed_add_is_422(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/memory/add", content=body)
    assert answer.status_code == 422, answer.text
    for error in answer.json()["detail"]:
        assert error.keys() >= {"type", "loc", "msg"}
        assert error["loc"][0] == "body"
    assert len(answer.content) < 2_000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/search", {"query": "a", "k": 0}),
        ("/search", {"query": "a", "k": 101}),
        ("/search", {"query": "a", "k": 2.5}),
        ("/search", {"query": "a", "threshold": 1.01}),
        ("/search", {"query": "a", "threshold": "NaN"}),
        ("/search", {"query": "a", "vector_weight": "inf"}),
        ("/search", {"query": "x" * 10_001}),
        ("/search", {"query": "a", "since": 1767225600}),
        ("/search", {"query": "a", "metadata": {str(n): n for n in range(101)}}),
        ("/search/batch", {"queries": [{"query": "a"}] * 101}),
        ("/memory/add-batch", {"memories": [{"text": "a", "source": "s"}] * 501}),
        ("/memory/add-batch", {"memories": [{"text": "new", "source": "s"}, {"text": " "}]}),
        ("/memory/upsert", {"text": "a", "source": "s", "key": ""}),
        ("/memory/delete-batch", {"ids": [-1]}),
        ("/memory/delete-batch", {"ids": [2**53]}),
        ("/memory/delete-batch", {"ids": list(range(1001))}),
        ("/memory/delete-by-source", {"source_pattern": ""}),
        ("/memory/is-novel", {"text": "a", "threshold": -0.1}),
        ("/memory/deduplicate", {"threshold": 0.4, "dry_run": False}),
        ("/index/build", {"sources": ["a\0b"]}),
        ("/restore", {"backup_name": "x" * 201}),
        ("/backup/verify", {}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_value_out_of_bounds_is_422(http: httpx.Client, path: str, body: object) -> None:
    answer = http.post(path, json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"]


def test_query_parameters_out_of_bounds_are_422(http: httpx.Client) -> None:
    for query in ("limit=0", "limit=101", "offset=-1", "offset=x", "order=up", "since=now"):
        answer = http.get(f"/memories?{query}")
        assert answer.status_code == 422, query
        assert answer.json()["detail"][0]["loc"] == ["query", query.partition("=")[0]]
    assert http.post("/backup", params={"prefix": "x" * 51}).status_code == 422


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_an_id_that_no_memory_has_is_404_and_one_that_is_no_number_422(
    http: httpx.Client, method: str
) -> None:
    for number in (10**15, -1, 2**53, 10**30):
        answer = http.request(method, f"/memory/{number}", content=b'{"source":"t"}')
        assert answer.status_code == 404
        assert answer.json() == {"detail": f"Memory ID {number} not found"}
    for word in ("x", "1.5", "%00", "%ed%a0%80", "9" * 5000):
        answer = http.request(method, f"/memory/{word}", content=b'{"source":"t"}')
        assert answer.status_code == 422, word


def test_unknown_paths_and_methods_have_the_contracts_bodies(http: httpx.Client) -> None:
    for path in ("/nowhere", "/search/", "/docs/assets/%2e%2e/x", "/-/routes"):
        answer = http.get(path)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"}), path
    for method, path in (("GET", "/search"), ("PUT", "/memory/0"), ("DELETE", "/stats")):
        answer = http.request(method, path)
        assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})


def test_a_body_of_33_mib_is_413_announced_or_not(
    http: httpx.Client, shared_service: Service
) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"source":"s","text":"'
        for _ in range(TOO_LARGE // 2**16):
            yield b"x" * 2**16
        yield b'"}'

    for content in (b"".join(chunks()), chunks()):
        answer = http.post("/memory/add", content=content)
        assert answer.status_code == 413
        assert isinstance(answer.json()["detail"], str)
    announced = b"POST /memory/add HTTP/1.1\r\n" + NAMED + b"Content-Length: %d\r\n\r\n" % TOO_LARGE
    [answered] = exchange(shared_service, announced)
    assert answered[0] == 413


def test_curl_needs_no_content_type(http: httpx.Client, shared_service: Service) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    url = f"{shared_service.base_url}/search"
    for options in ([], ["-H", "Content-Type:"], ["-H", "Content-Type: text/plain"], ["-0"]):
        command = ["curl", "-sS", "-d", QUERY.decode(), *options, url]
        answer = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout
        assert json.loads(answer)["query"] == "coffee", options
        assert b"\n" not in answer.removesuffix(b"\n")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_body_as_windows_writes_it_is_read(http: httpx.Client, encoding: str) -> None:
    answer = http.post("/search", content='{"query":"Käffchen 😀"}'.encode(encoding))
    assert answer.status_code == 200, answer.text
    assert answer.json()["query"] == "Käffchen 😀"


def test_a_compressed_body_is_not_guessed_at(http: httpx.Client) -> None:
    plain = http.post("/search", content=QUERY, headers={"Content-Encoding": "gzip"})
    assert plain.status_code == 200
    packed = gzip.compress(QUERY)
    answer = http.post("/search", content=packed, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 422


def exchange(service: Service, *parts: bytes) -> list[tuple[int, bytes]]:
    """Send bytes on one connection; the answers until the service closes it or says no more."""
    answers = []
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        for part in parts:
            connection.sendall(part)
        with connection.makefile("rb") as stream:
            while stream.peek(1):
                response = HTTPResponse(cast(socket.socket, _Answered(stream)))
                response.begin()
                answers.append((response.status, response.read()))
                if response.will_close or len(answers) == len(parts):
                    break
    return answers


class _Answered:
    """What `HTTPResponse` wants of a socket: a file that it may close without harm."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def makefile(self, _mode: str) -> _Answered:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def close(self) -> None:
        pass

    def flush(self) -> None:
        pass


def get(path: bytes, *headers: bytes, version: bytes = b"1.1") -> bytes:
    return b"\r\n".join([b"GET " + path + b" HTTP/" + version, NAMED.strip(), *headers, b"", b""])


def test_pipelined_requests_are_answered_in_order(
    http: httpx.Client, shared_service: Service
) -> None:
    post = b"POST /search HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s" % (NAMED, len(QUERY), QUERY)
    answers = exchange(shared_service, get(b"/health/live"), post, get(b"/nowhere"))
    assert [status for status, _ in answers] == [200, 200, 404]
    assert json.loads(answers[1][1])["query"] == "coffee"


def test_http_1_0_is_answered_and_closed(http: httpx.Client, shared_service: Service) -> None:
    [(status, body)] = exchange(shared_service, get(b"/health/live", version=b"1.0"))
    assert (status, json.loads(body)) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    "header",
    [
        b"X-Long: " + b"a" * 8_000,
        b"X-Request-ID: \xff\xfe",
        b"X-Request-Timeout-Seconds: \xff",
        b"X-Request-Timeout-Seconds: 0.0001",
        b"X-Request-Disconnect-Disabled: \xff",
        b"serve_multiplexed_model_id: \xff",
        b"traceparent: \xff",
        b"Cookie: \xff",
        b"Idempotency-Key: \xff",
        b"X-Forwarded-For: \xff",
        b"Expect: 100-continue",
        b"\r\n".join(b"X-Header-%d: a" % n for n in range(80)),
    ],
    ids=lambda header: header[:40].decode("latin-1"),
)
def test_no_header_breaks_an_answer(
    http: httpx.Client, shared_service: Service, header: bytes
) -> None:
    [(status, body)] = exchange(shared_service, get(b"/health", header))
    assert status == 200, body
    assert json.loads(body)["status"] == "ok"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GARBAGE\r\n\r\n",
        b"\x00\x01\x02\r\n\r\n",
        get(b"/health", b"X-Long: " + b"a" * 70_000),
        get(b"/health?" + b"a" * 20_000),
        get(b"/memory/\xff"),
        get(b"/health", b"Host: evil.example"),
        get(b"http://evil.example/health"),
        b"GET /health HTTP/1.1\r\n\r\n",
        b"POST /search HTTP/1.1\r\n" + NAMED + b"Content-Length: -5\r\n\r\n",
        b"POST /search HTTP/1.1\r\n" + NAMED + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /search HTTP/1.1\r\n" + NAMED + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=lambda request: request[:40].decode("latin-1") + f"#{len(request)}",
)
def test_what_is_no_http_is_refused(
    http: httpx.Client, shared_service: Service, request_bytes: bytes
) -> None:
    [(status, _)] = exchange(shared_service, request_bytes)
    assert status == 400


def test_a_write_whose_body_never_ends_is_not_done(
    http: httpx.Client, shared_service: Service
) -> None:
    begun = b'{"text":"half a memory","source":"test_input"}'
    announced = b"POST /memory/add HTTP/1.1\r\n" + NAMED + b"Content-Length: 1000\r\n\r\n" + begun
    with socket.create_connection(("127.0.0.1", shared_service.port), timeout=10) as connection:
        connection.sendall(announced)
    assert http.get("/health/live").status_code == 200


def test_every_request_id_comes_back_once(http: httpx.Client) -> None:
    for asked in ("abc-1.2_3", "not sane!", None):
        headers = {} if asked is None else {"X-Request-ID": asked}
        ids = http.get("/health/live", headers=headers).headers.get_list("x-request-id")
        assert len(ids) == 1
        assert (ids[0] == asked) == (asked == "abc-1.2_3")


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_answer_keeps_to_the_openapi_document(
    shared_service: Service, mode: GenerationMode
) -> None:
    schema = schemathesis.openapi.from_url(f"{shared_service.base_url}/openapi.json")
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        try:
            _check_cases(operation.as_strategy(generation_mode=mode))
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE, "an operation that accepts nothing"


def _check_cases(cases: SearchStrategy[schemathesis.Case[Any]]) -> None:
    @given(case=cases)
    @settings(
        max_examples=1,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case: schemathesis.Case[Any]) -> None:
        assert case.call_and_validate(checks=checks_for(case.path)).status_code != 500

    check()
