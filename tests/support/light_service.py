"""The service without Ray, on a real socket: the ingress, the engine's index, hashed words."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
import uvicorn

from deployments.index import replica
from deployments.index.replica import IndexReplica
from deployments.ingress.application import create_app
from deployments.ingress_settings import IngressSettings
from deployments.settings import load_settings
from engine.index_options import IndexOptions
from engine.model.files import default_model_dir
from tests.support.fakes import DIM, FakeEmbedder
from tests.support.index_under_test import IDENTITY

START_PATIENCE_S = 60


@contextmanager
def light_service(directory: Path) -> Iterator[str]:
    """Serve `directory/data` and `directory/workspace` from a thread; yields the base URL."""
    workspace = directory / "workspace"
    workspace.mkdir(parents=True, exist_ok=True)
    options = IndexOptions(
        data_dir=directory / "data", workspace_dir=workspace, identity=IDENTITY, max_backups=0
    )
    with pytest.MonkeyPatch.context() as patch:
        # Once: loggers that were used keep what they found, and `capture_logs` sees the last.
        if structlog.is_configured():
            patch.setattr(replica, "configure_logging", lambda *_, **__: None)
        index = IndexReplica(load_settings(), options, default_model_dir({}, Path.home()))
    settings = IngressSettings(
        version="1.2.3", dim=DIM, model_name=IDENTITY.name, workspace_dir=str(workspace)
    )
    app = create_app(settings, FakeEmbedder(), index)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline_s = time.monotonic() + START_PATIENCE_S
    while not server.started:
        if time.monotonic() > deadline_s or not thread.is_alive():
            pytest.fail("the light service did not start")
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
        index.__del__()
