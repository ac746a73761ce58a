"""Errors become answers: one table from error class to status, and the body of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from deployments.http.json_route import json_response
from engine.errors import (
    EngineError,
    InvalidInputError,
    KeyWithdrawnError,
    NotFoundError,
    NotReadyError,
    OverloadedError,
    QuotaExceededError,
    RateLimitedError,
    RemoteError,
    StoreFullError,
    TooLargeError,
    UnavailableError,
    UnknownOutcomeError,
)

MAX_ECHO_CHARS = 200
_MAX_ECHO_NUMBER = 10**100  # leaves out infinity and integers of thousands of digits


@dataclass(frozen=True, slots=True)
class HttpError:
    """How an error class is answered."""

    status: int
    retry_after_s: int | None = None


ERROR_TABLE: dict[type[EngineError], HttpError] = {
    InvalidInputError: HttpError(400),
    KeyWithdrawnError: HttpError(403),
    NotFoundError: HttpError(404),
    OverloadedError: HttpError(429, retry_after_s=1),
    NotReadyError: HttpError(503, retry_after_s=2),
    UnknownOutcomeError: HttpError(504, retry_after_s=2),
    RemoteError: HttpError(502),
    TooLargeError: HttpError(502, retry_after_s=2),
    StoreFullError: HttpError(507, retry_after_s=60),
    UnavailableError: HttpError(503, retry_after_s=60),
}
"""Subclasses answer as their nearest listed base; what has none is an internal error."""


def detail_response(
    status: int,
    detail: str,
    *,
    retry_after_s: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """`{"detail": …}`, with `Retry-After` where trying again may help."""
    if retry_after_s is not None:
        headers = {**(headers or {}), "Retry-After": str(retry_after_s)}
    return json_response({"detail": detail}, status=status, headers=headers)


def internal_error_response(request_id: str) -> Response:
    """The only thing a caller learns of an internal error: where to look for it."""
    return json_response({"detail": "Internal error", "request_id": request_id}, status=500)


def install_error_handlers(app: FastAPI) -> None:
    """Make `app` answer engine errors and invalid requests as the contract says."""
    app.add_exception_handler(EngineError, _answer_engine_error)
    app.add_exception_handler(QuotaExceededError, _answer_quota_exceeded)
    app.add_exception_handler(RequestValidationError, _answer_invalid_request)
    app.add_exception_handler(405, _answer_wrong_method)


async def _answer_quota_exceeded(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, QuotaExceededError)
    body = {"detail": str(exc), "code": exc.code, "used": exc.used, "limit": exc.limit}
    return json_response(body, status=403)


async def _answer_engine_error(_request: Request, exc: Exception) -> Response:
    for cls in type(exc).__mro__:
        error = ERROR_TABLE.get(cls)
        if error is not None:
            wait_s = error.retry_after_s
            if isinstance(exc, RateLimitedError):
                wait_s = math.ceil(exc.retry_after_s)
            return detail_response(error.status, str(exc), retry_after_s=wait_s)
    raise exc  # the request log answers and records internal errors


async def _answer_wrong_method(request: Request, exc: Exception) -> Response:
    # The router names the methods of one route; a path's routes together allow more.
    path = getattr(request.scope.get("route"), "path_format", None)
    operations = request.app.openapi()["paths"].get(path)
    headers = exc.headers if isinstance(exc, HTTPException) else None
    if operations is not None:
        headers = {"Allow": ", ".join(method.upper() for method in operations)}
    return json_response({"detail": "Method Not Allowed"}, status=405, headers=headers)


async def _answer_invalid_request(_request: Request, exc: Exception) -> Response:
    errors: Sequence[Any] = exc.errors() if isinstance(exc, RequestValidationError) else ()
    return json_response({"detail": [_public(error) for error in errors]}, status=422)


def _public(error: dict[str, Any]) -> dict[str, Any]:
    """One validation error: what is wrong where, with the value only where it is short."""
    shown = {"type": error["type"], "loc": error["loc"], "msg": error["msg"]}
    value = error.get("input")
    if isinstance(value, str):
        # A header may hold what UTF-8 cannot.
        shown["input"] = value[:MAX_ECHO_CHARS].encode("utf-8", "replace").decode()
    elif isinstance(value, int | float) and -_MAX_ECHO_NUMBER < value < _MAX_ECHO_NUMBER:
        shown["input"] = value
    if "ctx" in error:
        shown["ctx"] = {name: _short(value) for name, value in error["ctx"].items()}
    return shown


def _short(value: object) -> object:
    """A value of an error's context as JSON can carry it."""
    return value if isinstance(value, int | float) else str(value)[:MAX_ECHO_CHARS]
