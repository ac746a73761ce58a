"""The Serve application of the running Ray node: deploy it, see why it failed, stop it."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import ray
import yaml  # type: ignore[import-untyped]
from ray import serve
from ray.exceptions import RayActorError
from ray.serve._private.api import serve_start
from ray.serve._private.common import DeploymentStatus
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, ServeDeploySchema

from scripts.launcher.runtime_dir import LauncherError

_FAILED = (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)
_WATCH_INTERVAL_S = 2.0
_LONGEST_ANSWER_S = 1.0
_PERMANENT = ("StoreCorruptError", "StoreFormatError", "ModelMismatchError", "LegacyImportError")
"""Errors of the data directory that only a command mends."""
_OUTCOME = re.compile(r"^(?:\w+\.)*(\w*(?:Error|Exception)): (.+)$")


def deploy(config: Path, *, host: str, port: int) -> None:
    """Apply a Serve configuration, the way `serve run` does; does not wait for the replicas."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    schema = _read(config)
    try:
        client = serve_start(
            http_options={**schema.http_options.model_dump(), "host": host, "port": port},
            proxy_location=schema.proxy_location,
            global_logging_config=schema.logging_config,
        )
    except (RayActorError, TimeoutError):
        # On a busy machine Serve gives up its first proxy and starts another by itself.
        client = _get_global_client()
    client.deploy_apps(schema, _blocking=False)


def _read(config: Path) -> ServeDeploySchema:
    try:
        return ServeDeploySchema.model_validate(yaml.safe_load(config.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as exc:
        raise LauncherError(f"{config} is no Serve configuration: {exc}") from exc


def redeploy(config: Path) -> dict[str, float]:
    """Apply a changed configuration; returns when each application was deployed before."""
    schema = _read(config)
    before_s = _deployed_s()
    _get_global_client().deploy_apps(schema, _blocking=False)
    return before_s


def is_deployed_since(before_s: dict[str, float]) -> bool:
    """Whether a later deployment of every application has come to its end."""
    applications = serve.status().applications.values()
    return all(
        deployed_s > before_s.get(name, 0.0) for name, deployed_s in _deployed_s().items()
    ) and all(
        application.status == ApplicationStatus.RUNNING
        and all(
            each.status == DeploymentStatus.HEALTHY for each in application.deployments.values()
        )
        for application in applications
    )


def _deployed_s() -> dict[str, float]:
    applications = serve.status().applications
    return {name: each.last_deployed_time_s for name, each in applications.items()}


def failure_of() -> str | None:
    """Why an application cannot start, in one sentence; None while it may still."""
    applications = serve.status().applications
    if sentence := _refusal_in(applications.values()):
        return sentence
    for name, application in applications.items():
        if application.status in _FAILED:
            messages = [deployment.message for deployment in application.deployments.values()]
            return _sentence([*messages, application.message]) or f"application {name} failed"
    return None


class RefusalWatch:
    """Notices when a part that died cannot come back, however often Serve restarts it.

    On a thread, because Serve's status has no time limit while its controller is gone.
    """

    def __init__(self) -> None:
        self.sentence: str | None = None
        """What is wrong and which command mends it; None while nothing is."""
        self._stopped = threading.Event()
        self._asking = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    def stop(self) -> None:
        """Ask no more, before Ray is shut down: asked then, Serve would start a new Ray node."""
        self._stopped.set()
        if self._asking.acquire(timeout=_LONGEST_ANSWER_S):
            self._asking.release()

    def _watch(self) -> None:
        while self.sentence is None and not self._stopped.wait(_WATCH_INTERVAL_S):
            try:
                with self._asking:
                    if self._stopped.is_set():
                        return
                    applications = serve.status().applications.values()
            except (ray.exceptions.RayError, RuntimeError):  # between two controllers, or stopping
                continue
            self.sentence = _refusal_in(applications)


def _refusal_in(applications: Iterable[ApplicationStatusOverview]) -> str | None:
    """What no further attempt to start a part will change, and which command mends it."""
    for application in applications:
        for deployment in application.deployments.values():
            outcomes = _outcomes(deployment.message)
            if outcomes and outcomes[-1].group(1) in _PERMANENT:
                return outcomes[-1].group(2)
    return None


def stop_gracefully(*, timeout_s: float) -> bool:
    """Stop the application, callers before callees; False when it took longer than `timeout_s`."""
    # On a thread: neither call has a time limit that holds when the controller is gone.
    stopping = threading.Thread(target=_shut_down, daemon=True)
    stopping.start()
    stopping.join(timeout_s)
    return not stopping.is_alive()


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
        if outcomes := _outcomes(message):
            return outcomes[-1].group(2)
    return next((message for message in reversed(messages) if message), None)


def _outcomes(message: str) -> list[re.Match[str]]:
    """The lines of a traceback that name an exception and what it says."""
    lines = message.strip().splitlines()
    return [match for line in lines if (match := _OUTCOME.match(line.strip()))]
