"""The OpenAPI document: what FastAPI derives, authentication, the error answers routes share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from deployments.http.callers import NAMESPACE_HEADER
from deployments.http.gpt_document import gpt_document
from deployments.http.json_route import json_response
from deployments.http.needs import OPEN, declared_needs, needs
from deployments.ingress_settings import IngressSettings
from wire.answers import InternalProblem, Invalid, Problem
from wire.limits import NAMESPACE

TITLE = "FAISS Memory API"

Responses = dict[int | str, dict[str, Any]]

_PROBLEMS = {
    400: "Not possible as asked, or the Host is not allowed",
    401: "Invalid or missing API key",
    403: "The key may not do that or not there, or the Origin or site is not allowed",
    404: "Not found",
    408: "The body did not come in time",
    409: "The backup is broken",
    413: "The body is too large",
    415: "The Content-Encoding cannot be read",
    429: "Overloaded; try again",
    502: "The cloud refuses or does not answer, or an answer is too large for parts of the service",
    503: "Not ready, or the storage cannot be used; nothing was changed",
    504: "No answer in time; a write may have been applied",
    507: "The disk is full; nothing was changed",
}

_NAMESPACE = {
    "name": NAMESPACE_HEADER,
    "in": "header",
    "required": False,
    "description": "Whose memories: the namespace of the call, unless the key has but one.",
    "schema": {"type": "string", "pattern": NAMESPACE},
}

_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}


def problems(*statuses: int) -> Responses:
    """The error answers of a route: the given ones and those every route may give."""
    documented: Responses = {
        status: {"model": Problem, "description": _PROBLEMS[status]}
        for status in sorted({400, 401, 403, 408, 413, 429, 502, 503, 504, *statuses})
    }
    for status in {429, 503, 504, 507} & documented.keys():
        documented[status]["headers"] = _RETRY_AFTER
    documented[422] = {"model": Invalid, "description": "The request is malformed"}
    documented[500] = {"model": InternalProblem, "description": "Internal error"}
    return documented


def install_openapi(app: FastAPI, settings: IngressSettings) -> None:
    """Make `app.openapi` produce the document, once; it is served, and a Custom GPT's beside it."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
                servers=app.servers,
            )
            _declare_needs(schema, app.routes, key_required=bool(settings.api_key))
            app.openapi_schema = schema
        return app.openapi_schema

    @needs(OPEN)
    async def whole(_: Request) -> Response:
        return json_response(document())

    @needs(OPEN)
    async def for_custom_gpt(_: Request) -> Response:
        return json_response(gpt_document(document()))

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way
    app.add_route("/openapi.json", whole, include_in_schema=False)
    app.add_route("/openapi-gpt.json", for_custom_gpt, include_in_schema=False)


def _declare_needs(
    schema: dict[str, Any], routes: Iterable[BaseRoute], *, key_required: bool
) -> None:
    schema.setdefault("components", {})["securitySchemes"] = {
        "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    }
    security: list[dict[str, list[str]]] = [{"ApiKey": []}]
    if not key_required:
        security.append({})
    for route, what in declared_needs(routes):
        operations = schema["paths"].get(getattr(route, "path_format", ""), {})
        for method in getattr(route, "methods", None) or ():
            if (operation := operations.get(method.lower())) is not None:
                operation["security"] = [] if what.is_open else security
                if what.of in ("call", "call or named"):
                    operation.setdefault("parameters", []).append(_NAMESPACE)
