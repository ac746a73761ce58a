"""Swagger UI at /docs and ReDoc at /redoc, from files of the `fastapi-offline` package.

Nothing is fetched from elsewhere: a Content-Security-Policy forbids it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from deployments.http.needs import OPEN, VALID_KEY, needs

_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# The document names one public URL; "Try it out" must call the address the page came from.
_SWAGGER = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>FAISS Memory API</title>
<link rel="icon" href="/docs/assets/favicon.png">
<link rel="stylesheet" href="/docs/assets/swagger-ui.css"></head>
<body><div id="swagger-ui"></div><script src="/docs/assets/swagger-ui-bundle.js"></script>
<script>
fetch("/openapi.json").then((answer) => answer.json()).then((spec) => {
  spec.servers = [{url: location.origin}];
  SwaggerUIBundle({spec, dom_id: "#swagger-ui", deepLinking: true, persistAuthorization: true});
});
</script></body></html>
"""

_REDOC = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>FAISS Memory API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="/docs/assets/favicon.png"><style>body{margin:0}</style></head>
<body><redoc spec-url="/openapi.json"></redoc>
<script src="/docs/assets/redoc.standalone.js"></script></body></html>
"""


def install_docs_pages(app: FastAPI) -> None:
    """Add both pages and their assets to `app`."""
    for path, html in (("/docs", _SWAGGER), ("/redoc", _REDOC)):
        app.add_route(path, _page(html), methods=["GET"], include_in_schema=False)
    app.add_route("/", _to_docs, methods=["GET"], include_in_schema=False)
    app.mount("/docs/assets", needs(OPEN)(StaticFiles(directory=_assets_dir())))


@needs(VALID_KEY)
async def _to_docs(_request: Request) -> Response:
    return RedirectResponse("/docs")


def _page(html: str) -> Callable[[Request], Awaitable[Response]]:
    @needs(OPEN)
    async def page(_request: Request) -> Response:
        return HTMLResponse(html, headers={"Content-Security-Policy": _POLICY})

    return page


def _assets_dir() -> Path:
    spec = find_spec("fastapi_offline")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("fastapi-offline, which carries Swagger UI, is not installed")
    return Path(spec.origin).parent / "static"
