"""One replica of the HTTP ingress: `deployments.ingress.application` behind Serve."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from fastapi import FastAPI
from ray.serve.handle import DeploymentHandle
from starlette.routing import Route

from deployments.calls.handles import ServeEmbedderClient, ServeIndexClient
from deployments.calls.part_reports import replica_name
from deployments.http.middleware.key_guard import headers_of_caller
from deployments.http.needs import VALID_KEY, OpenPaths, needs
from deployments.ingress.application import create_app
from deployments.ingress_settings import IngressSettings
from deployments.logs import configure_logging
from deployments.settings import Settings
from mcp_server.transport.http import create_mcp_app, refuse_sse


class IngressReplica:
    """What the `Ingress` deployment runs. Serve hands HTTP requests straight to the application."""

    def __init__(
        self,
        settings: Settings,
        ingress_settings: IngressSettings,
        embedder: DeploymentHandle,
        index: DeploymentHandle,
    ) -> None:
        configure_logging(settings, component="ingress")
        self._app = create_app(
            replace(ingress_settings, replica=replica_name()),
            ServeEmbedderClient(
                embedder,
                timeout_s=settings.request_timeout_s,
                long_timeout_s=settings.build_timeout_s,
            ),
            ServeIndexClient(
                index,
                timeout_s=settings.request_timeout_s,
                long_timeout_s=settings.build_timeout_s,
            ),
        )

        add_mcp(self._app, ingress_settings)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve once after `__init__`, in the replica."""
        return self._app


def add_mcp(app: FastAPI, settings: IngressSettings) -> None:
    """Serve MCP at `/mcp` behind the same guards; its tools call the application's own routes.

    They do so with the key and in the namespace of whoever calls them.
    """
    host = "localhost" if settings.api_key else settings.allowed_hosts[0]
    mcp_app = create_mcp_app(
        app,
        headers_of=headers_of_caller,
        base_url=f"http://{'localhost' if host == '*' else host}",
        max_body_bytes=settings.max_body_bytes,
    )
    follow_keys = app.router.lifespan_context

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        async with follow_keys(app), mcp_app.running():
            yield

    app.router.routes.append(Route("/mcp", endpoint=needs(VALID_KEY)(mcp_app)))
    app.router.routes.append(Route("/sse", needs(VALID_KEY)(refuse_sse), methods=["GET", "POST"]))
    app.router.lifespan_context = running
    OpenPaths(app.routes)  # raises for a route that declares nothing
