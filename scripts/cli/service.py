"""HTTP client of one service, on the standard library: importing httpx takes longer than a search.

A request that finds the service overloaded or starting waits as long as it asks, up to
`patience_s`. Writes carry an `Idempotency-Key`, so that repeating one applies it once.
"""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn
from urllib.parse import quote, urlencode, urlsplit

from scripts.cli.errors import CliError, RefusedError, UnreachableError, UsageError
from wire.addresses import LOOPBACK_HOSTS, URL
from wire.limits import NAMESPACE
from wire.retries import PASSING

Json = dict[str, Any]

PATIENCE_S = 30.0
_TIMEOUT_S = 3600.0
"""Between two bytes: a build or a restore may say nothing for long."""
_LONGEST_PAUSE_S = 5.0

_ADVICE = {
    401: "Set FAISS_API_KEY to the service's API_KEY, or to a key that is neither revoked nor "
    "expired.",
    429: "It is overloaded; nothing was changed. Try again in a while.",
    503: "It is still starting; nothing was changed. Try again in a few seconds.",
    507: "Its disk is full; nothing was stored.",
}
_NO_ROUTE = "There is no such route: check FAISS_URL, and the versions of both sides."


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *_args: object, **_kwargs: object) -> None:
        return None


class Service:
    """The routes of one service."""

    def __init__(
        self,
        url: str,
        api_key: str = "",
        *,
        namespace: str = "",
        patience_s: float = PATIENCE_S,
        host: str = "",
    ) -> None:
        """Open no connection yet.

        Args:
            url: where the service is.
            api_key: its key; empty: it has none.
            namespace: of the memories that are meant; empty: the key's own, or `default`.
            patience_s: how long to wait for one that is overloaded or starts.
            host: the name that it answers to, when that is not in `url`.

        Raises:
            UsageError: `url` is no HTTP address.
        """
        self._base, hostname = _address(url)
        self.url = self._base
        self.is_local = hostname in LOOPBACK_HOSTS
        if namespace and not re.fullmatch(NAMESPACE, namespace):
            raise UsageError(f"{namespace!r} is no namespace; expected one like team.a or default")
        self.place = f"{self.url}/ns/{namespace}" if namespace else self.url
        """Names the memories that are meant."""
        self._key = api_key
        self._namespace = namespace
        self._patience_s = patience_s
        self._host = {"Host": host} if host else {}
        # A proxy from the environment never serves this machine's loopback.
        proxies = urllib.request.ProxyHandler({} if self.is_local else None)
        self._opener = urllib.request.build_opener(proxies, _NoRedirect)

    def get(self, path: str, **params: object) -> Json:
        """Read a route; parameters that are None are left out."""
        return self._json("GET", path, params=params)

    def post(self, path: str, body: Json | None = None, **params: object) -> Json:
        """Call a route; values of `body` that are None are left out."""
        return self._json("POST", path, body=body, params=params)

    def patch(self, path: str, body: Json, *, with_nulls: bool = False) -> Json:
        """Change what a path names; unless `with_nulls` values that are None are left out."""
        return self._json("PATCH", path, body=body, with_nulls=with_nulls)

    def delete(self, path: str, **params: object) -> Json:
        """Delete what a path names."""
        return self._json("DELETE", path, params=params)

    def _json(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        params: Json | None = None,
        with_nulls: bool = False,
    ) -> Json:
        headers = {} if method == "GET" else {"Idempotency-Key": uuid.uuid4().hex}
        content = None
        if body is not None:
            given = {name: value for name, value in body.items() if with_nulls or value is not None}
            content = json.dumps(given).encode()
            headers["Content-Type"] = "application/json"
        with self.call(method, path, content=content, headers=headers, params=params) as answer:
            try:
                decoded = json.load(answer)
            except ValueError:
                decoded = None
            except (OSError, http.client.HTTPException) as exc:
                self._unreachable(exc)
        if not isinstance(decoded, dict):
            raise CliError(f"{self.url} is no FAISS Memory service: {path} answered no JSON object")
        return decoded

    @contextmanager
    def call(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        headers: Json | None = None,
        params: Json | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request, again while the service is busy, and hand out its answer's stream.

        Raises:
            RefusedError: the answer is an error.
            UnreachableError: there is none.
        """
        request = urllib.request.Request(
            self._base + quote(path) + _query(params or {}),
            data=content,
            headers={"Accept": "application/json", **self._host, **(headers or {})},
            method=method,
        )
        if self._key:
            try:
                self._key.encode("latin-1")
            except UnicodeEncodeError:
                raise UsageError("FAISS_API_KEY holds characters that no HTTP header can") from None
            request.add_unredirected_header("X-API-Key", self._key)
        if self._namespace:
            request.add_unredirected_header("X-Memory-Namespace", self._namespace)
        response = self._open(request)
        try:
            yield response
        finally:
            response.close()

    def _open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        deadline = time.monotonic() + self._patience_s
        pause_s = 0.25
        while True:
            try:
                response: http.client.HTTPResponse = self._opener.open(request, timeout=_TIMEOUT_S)
                return response
            except urllib.error.HTTPError as exc:
                with exc:
                    detail = _detail(exc)
                    advice = _NO_ROUTE if detail == "Not Found" else _ADVICE.get(exc.code, "")
                    refusal = RefusedError(exc.code, detail, advice)
                    asked_s = _retry_after_s(exc)
                remaining_s = deadline - time.monotonic()
                if exc.code not in PASSING or remaining_s <= 0:
                    raise refusal from None
                time.sleep(min(max(pause_s, asked_s), remaining_s))
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except (OSError, http.client.HTTPException) as exc:
                # An answer that was lost can be asked for again: every write carries its key.
                if not _is_lost(exc) or time.monotonic() >= deadline:
                    self._unreachable(exc)
                time.sleep(pause_s)

    def _unreachable(self, exc: Exception) -> NoReturn:
        cause = exc.reason if isinstance(exc, urllib.error.URLError) else exc
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        if self.is_local:
            advice = "Start it with `make serve` or `faiss-memory serve`."
        else:
            advice = "Check FAISS_URL, and that the service runs there."
        raise UnreachableError(
            f"The service at {self.url} does not answer ({reason}). {advice}"
        ) from exc


def _address(url: str) -> tuple[str, str | None]:
    """A base URL without its last slash, and the host in it. Raises `UsageError`."""
    base = url.strip().rstrip("/")
    try:
        parts = urlsplit(base)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # brackets or a port that make no sense
        valid = False
    if not valid:
        raise UsageError(f"{url!r} is no address; expected one like {URL}")
    if parts.username or parts.password:
        raise UsageError("the address must hold no name or password; use FAISS_API_KEY")
    return base, parts.hostname


def _is_lost(exc: Exception) -> bool:
    cause = exc.reason if isinstance(exc, urllib.error.URLError) else exc
    return isinstance(cause, ConnectionResetError | BrokenPipeError)


def _query(params: Json) -> str:
    spelled = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in params.items()
        if value is not None
    }
    return f"?{urlencode(spelled)}" if spelled else ""


def _detail(error: urllib.error.HTTPError) -> str:
    """The service's own words, in one line."""
    try:
        content = error.read(100_000)
    except (OSError, http.client.HTTPException):
        content = b""
    try:
        detail = json.loads(content)["detail"]
    except (ValueError, KeyError, TypeError):
        return content.decode("utf-8", "replace").strip()[:300] or str(error.reason)
    if isinstance(detail, list):
        return "; ".join(_problem(each) for each in detail)
    return str(detail)


def _problem(problem: object) -> str:
    if not isinstance(problem, dict):
        return str(problem)
    where = ".".join(str(part) for part in problem.get("loc", ()) if part not in ("body", "query"))
    message = str(problem.get("msg", "invalid"))
    return f"{where}: {message}" if where else message


def _retry_after_s(error: urllib.error.HTTPError) -> float:
    try:
        return max(0.0, float(error.headers.get("Retry-After", "0")))
    except ValueError:  # a date
        return 0.0
