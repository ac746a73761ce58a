"""Request bodies are JSON whatever their Content-Type; answers are JSON bytes made once."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.responses import Response

from deployments.http.needs import check_request, needs_of

RouteHandler = Callable[[Request], Coroutine[Any, Any, Response]]


class _JsonRequest(Request):
    """A request whose body is read as strict JSON: UTF-8, or UTF-16 and UTF-32 as Windows writes.

    Refuses NaN and Infinity, invalid UTF-8, lone surrogates, integers of more than 4,300 digits
    and nesting beyond 200 levels, none of which Python's own decoder refuses as bad JSON.
    """

    async def json(self) -> Any:  # noqa: ANN401 - whatever the body holds
        body = await self.body()
        encoding = json.detect_encoding(body)
        try:
            content = body if encoding == "utf-8" else body.decode(encoding)
            return from_json(content, allow_inf_nan=False, cache_strings="keys")
        except ValueError as exc:
            raise json.JSONDecodeError(str(exc), "", 0) from None


class JsonRoute(APIRoute):
    """A route that checks its caller, and ignores the Content-Type.

    `curl -d` without a header says that the body is a form.
    """

    checks_needs = True

    def __init__(self, path: str, endpoint: Callable[..., Any], **settings: Any) -> None:  # noqa: ANN401
        """Raises `TypeError` when the endpoint does not say what it needs."""
        self.needs = needs_of(endpoint, path)
        super().__init__(path, endpoint, **settings)

    def get_route_handler(self) -> RouteHandler:
        """Check the caller, and hand the request on without its Content-Type."""
        handler = self._reading_json()

        async def checked(request: Request) -> Response:
            await check_request(request, self.needs)
            return await handler(request)

        return checked

    def _reading_json(self) -> RouteHandler:
        handler = super().get_route_handler()
        if self.body_field is None:
            return handler

        async def read_as_json(request: Request) -> Response:
            headers = [h for h in request.scope["headers"] if h[0] != b"content-type"]
            return await handler(
                _JsonRequest({**request.scope, "headers": headers}, request.receive)
            )

        return read_as_json


def json_router(*, tag: str) -> APIRouter:
    """A router whose routes read JSON."""
    return APIRouter(route_class=JsonRoute, strict_content_type=False, tags=[tag])


def json_response(
    content: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with one line of JSON, UTF-8 not escaped."""
    return Response(to_json(content) + b"\n", status, headers, "application/json")
