"""An asynchronous HTTP client of the service, safe to retry.

```
ServiceError             str() is a text that a model can act on
├── ApiError             the service answered with an error
└── UnreachableError     no answer from the service
```

A call that finds the service down, loading or overloaded is repeated until `faiss_wait_s` has
passed; after one that could not reach it at all, the next does not wait again. Writes carry an
`Idempotency-Key`, so that repeating one whose answer was lost does not apply it twice.
"""

from __future__ import annotations

import copy
import json
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import anyio
import httpx
from typing_extensions import Self

from mcp_server.settings import BridgeSettings
from wire.retries import PASSING

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 1.0
CONNECT_TIMEOUT_S = 5.0

Headers = Sequence[tuple[bytes, bytes]]
NAMESPACE_HEADER = b"x-memory-namespace"

_HINTS = {
    401: "Set FAISS_API_KEY in this MCP server's environment to the service's API_KEY or a key of "
    "it that is neither revoked nor expired.",
    403: "The key in FAISS_API_KEY may not do this; nothing was changed. Tell the user.",
    429: "The service is overloaded; nothing was changed. Try again in a few seconds.",
    503: "The service is still loading or restarting; nothing was changed. "
    "Try again in a few seconds.",
    507: "The disk of the service is full; nothing was stored. Tell the user.",
}


class ServiceError(Exception):
    """A call that failed."""


class ApiError(ServiceError):
    """The service answered with an error status."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail

    def __str__(self) -> str:
        hint = _HINTS.get(self.status)
        return f"FAISS API error {self.status}: {self.detail}" + (f"\n{hint}" if hint else "")


class UnreachableError(ServiceError):
    """No answer came from the service."""

    def __init__(self, url: str, reason: str, advice: str) -> None:
        super().__init__(url, reason, advice)
        self.url = url
        self.reason = reason
        self.advice = advice

    def __str__(self) -> str:
        return (
            f"Could not reach the FAISS Memory service at {self.url} ({self.reason}). {self.advice}"
        )


class FaissClient:
    """Calls the routes of one service. Use as an asynchronous context manager."""

    def __init__(
        self, settings: BridgeSettings, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """Open no connection yet.

        Args:
            settings: where the service is.
            transport: replaces the network, e.g. `httpx.ASGITransport(app)` inside the service.
        """
        self._settings = settings
        self._is_down = False
        headers = {"Accept": "application/json"}
        if key := settings.faiss_api_key.get_secret_value():
            headers["X-API-Key"] = key
        if settings.faiss_namespace:
            headers[NAMESPACE_HEADER.decode()] = settings.faiss_namespace
        self._callers: Headers = []
        self._http = httpx.AsyncClient(
            base_url=settings.faiss_url,
            headers=headers,
            transport=transport,
            timeout=httpx.Timeout(settings.faiss_timeout_s, connect=CONNECT_TIMEOUT_S),
            # A proxy from the environment never serves this machine's loopback.
            trust_env=not settings.is_loopback,
        )

    def on_behalf_of(self, headers: Headers) -> Self:
        """This client, whose calls carry further headers, which win over its own."""
        other = copy.copy(self)
        other._callers = headers
        return other

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Read a route. Parameters that are None are left out."""
        given = {k: v for k, v in (params or {}).items() if v is not None}
        return await self._call(self._http.build_request("GET", path, params=given))

    async def search(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Read a route that takes a JSON body. Values that are None are left out."""
        return await self._call(self._http.build_request("POST", path, json=_without_none(body)))

    async def write(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Change something, exactly once however often it has to be sent."""
        request = self._http.build_request(
            method,
            path,
            json=None if body is None else _without_none(body),
            headers={"Idempotency-Key": uuid.uuid4().hex},
        )
        return await self._call(request)

    async def _call(self, request: httpx.Request) -> dict[str, Any]:
        request.headers.update(httpx.Headers(list(self._callers)))
        # Two tries even then: the first may meet a connection that broke while unused.
        wait_s = FIRST_PAUSE_S if self._is_down else self._settings.faiss_wait_s
        deadline = time.monotonic() + min(wait_s, self._settings.faiss_wait_s)
        pause_s = FIRST_PAUSE_S
        while True:
            asked_pause_s = 0.0
            failure: ServiceError
            try:
                response = await self._http.send(request)
            except httpx.TransportError as exc:
                failure = self._unreachable(exc)
            else:
                self._is_down = False
                if response.is_success:
                    return _decoded(response, request)
                failure = ApiError(response.status_code, _detail(response))
                if response.status_code not in PASSING:
                    raise failure
                asked_pause_s = _retry_after_s(response)
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                self._is_down = isinstance(failure, UnreachableError)
                raise failure
            logger.info("%s %s failed, trying again", request.method, request.url.path)
            await anyio.sleep(min(max(pause_s, asked_pause_s), remaining_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _unreachable(self, exc: httpx.TransportError) -> UnreachableError:
        if isinstance(exc, httpx.ReadTimeout):
            reason = f"no answer within {self._settings.faiss_timeout_s:g} s"
        else:
            reason = str(exc) or type(exc).__name__
        if self._settings.is_loopback:
            advice = (
                "Start it with `faiss-memory serve`, or `make serve` in a checkout, then try again."
            )
        else:
            advice = "Check FAISS_URL, and that the service runs on that machine."
        return UnreachableError(self._settings.faiss_url, reason, advice)


def _without_none(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if value is not None}


def _decoded(response: httpx.Response, request: httpx.Request) -> dict[str, Any]:
    try:
        answer = response.json()
    except json.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise ApiError(
            response.status_code,
            f"{request.url} did not answer with a JSON object. "
            "Is FAISS_URL the address of a FAISS Memory service?",
        )
    return answer


def _detail(response: httpx.Response) -> str:
    """The service's own words, in one line."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return response.text.strip()[:300] or response.reason_phrase
    if isinstance(detail, list):
        return "; ".join(_problem(each) for each in detail)
    return str(detail)


def _problem(problem: object) -> str:
    if not isinstance(problem, dict):
        return str(problem)
    where = ".".join(str(part) for part in problem.get("loc", ()) if part != "body")
    return f"{where}: {problem.get('msg', 'invalid')}" if where else str(problem.get("msg"))


def _retry_after_s(response: httpx.Response) -> float:
    try:
        return max(0.0, float(response.headers.get("Retry-After", "0")))
    except ValueError:
        return 0.0
