"""The HTTP application: guards, routes, error answers, documentation."""

from __future__ import annotations

from fastapi import FastAPI

from deployments.calls.protocols import EmbedderClient, IndexClient
from deployments.http.errors import install_error_handlers
from deployments.http.metrics import IngressMetrics
from deployments.http.middleware.guards import SiteGuard
from deployments.http.middleware.head_requests import HeadAsGet
from deployments.http.middleware.key_guard import KeyGuard
from deployments.http.middleware.request_bodies import BodyLimit, LingeringClose
from deployments.http.middleware.request_log import RequestLog
from deployments.http.needs import OpenPaths
from deployments.http.openapi import TITLE, install_openapi
from deployments.http.services import ImportGate, Services
from deployments.ingress.docs_page import install_docs_pages
from deployments.ingress.followed_keys import FollowedKeys
from deployments.ingress_settings import IngressSettings
from deployments.routes import (
    backups,
    builds,
    keys,
    memories,
    namespaces,
    operations,
    search,
    sync,
    transfer,
)
from engine.keys.ring import KeyRing, root_key


def create_app(settings: IngressSettings, embedder: EmbedderClient, index: IndexClient) -> FastAPI:
    """Build the application around the clients of the embedding pool and the index.

    It lets nobody in by a key, but the root key, before its lifespan has begun.
    """
    ring = KeyRing(root_key(settings.api_key))
    app = FastAPI(
        title=TITLE,
        version=settings.version,
        description="Persistent semantic memory for AI assistants.",
        servers=[{"url": settings.public_url}],
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=FollowedKeys(index, ring).lifespan,
    )
    metrics = IngressMetrics(
        version=settings.version, model_name=settings.model_name, replica=settings.replica
    )
    app.state.services = Services(
        settings=settings,
        embedder=embedder,
        index=index,
        metrics=metrics,
        imports=ImportGate(settings.max_import_streams, settings.import_chunks),
    )
    for routes in (
        search,
        memories,
        operations,
        builds,
        backups,
        sync,
        transfer,
        keys,
        namespaces,
    ):
        app.include_router(routes.router)
    install_docs_pages(app)
    install_openapi(app, settings)
    install_error_handlers(app)
    open_paths = OpenPaths(app.routes)
    # The last one added is the outermost.
    app.add_middleware(HeadAsGet)
    app.add_middleware(BodyLimit, settings=settings, open_paths=open_paths)
    app.add_middleware(KeyGuard, ring=ring, open_paths=open_paths, needs_key=bool(settings.api_key))
    app.add_middleware(SiteGuard, settings=settings, open_paths=open_paths)
    app.add_middleware(RequestLog, metrics=metrics)
    app.add_middleware(LingeringClose)
    return app
