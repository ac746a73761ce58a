"""The Serve application of the running Ray node: deploy it, see why it failed, stop it."""

from __future__ import annotations

import logging
import re
import threading
from contextlib import suppress
from pathlib import Path

import ray
import yaml  # type: ignore[import-untyped]
from ray import serve
from ray.serve._private.api import serve_start
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus, ServeDeploySchema

_FAILED = (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)
_OUTCOME = re.compile(r"^(?:\w+\.)*(\w*(?:Error|Exception)): (.+)$")


def deploy(config: Path, *, host: str, port: int) -> None:
    """Apply a Serve configuration, the way `serve run` does; does not wait for the replicas."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    schema = ServeDeploySchema.model_validate(yaml.safe_load(config.read_text(encoding="utf-8")))
    client = serve_start(
        http_options={**schema.http_options.model_dump(), "host": host, "port": port},
        proxy_location=schema.proxy_location,
        global_logging_config=schema.logging_config,
    )
    client.deploy_apps(schema, _blocking=False)


def failure_of() -> str | None:
    """Why an application cannot start, in one sentence; None while it may still."""
    for name, application in serve.status().applications.items():
        if application.status in _FAILED:
            messages = [deployment.message for deployment in application.deployments.values()]
            return _sentence([*messages, application.message]) or f"application {name} failed"
    return None


def stop_gracefully(*, timeout_s: float) -> None:
    """Stop the application, callers before callees; gives up waiting after `timeout_s`."""
    # On a thread: neither call has a time limit that holds when the controller is gone.
    stopping = threading.Thread(target=_shut_down, daemon=True)
    stopping.start()
    stopping.join(timeout_s)


def _shut_down() -> None:
    if not ray.is_initialized():
        return
    try:
        with suppress(RayServeException):  # Serve was not started yet
            _get_global_client().shutdown()
    finally:
        # Once its node is gone, a process that is still connected ends before it can say why.
        ray.shutdown()


def _sentence(messages: list[str]) -> str | None:
    """The last exception of a traceback among the messages, without the traceback."""
    for message in messages:
        lines = message.strip().splitlines()
        outcomes = [match for line in lines if (match := _OUTCOME.match(line.strip()))]
        if outcomes:
            return outcomes[-1].group(2)
    return next((message for message in reversed(messages) if message), None)
