"""Run the service: what `make serve` starts.

Starts Ray on this machine, applies `serve_config.yaml`, waits until the service answers, and
stops everything when it is told to, or when it cannot go on.
"""

from __future__ import annotations

import atexit
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from deployments.logs import configure_logging, log_settings, resolve_format
from deployments.settings import Settings, SettingsError, load_settings
from engine.errors import EngineError
from scripts.launcher.background import job_of, start_detached
from scripts.launcher.log_relay import relay_logs
from scripts.launcher.own_service import answers, own_client, own_service, own_url, reason_to_wait
from scripts.launcher.preflight import (
    check_dashboard,
    check_data_dir,
    check_model,
    check_port_free,
    check_workspace_dir,
    memories_elsewhere,
)
from scripts.launcher.ray_switches import haproxy_variables, ray_variables, working_haproxy
from scripts.launcher.runtime_dir import LauncherError, RuntimeDir, runtime_dir_of
from scripts.launcher.stopping import (
    Foreground,
    StopRequested,
    catch_signals,
    ignore_signals,
    let_go_of_the_terminal,
    stopping_on_signals,
)
from scripts.model.set_up import set_up_shared

if TYPE_CHECKING:
    from scripts.launcher.local_ray import LocalNode

DEFAULT_CONFIG = Path(__file__).parents[1] / "serve_config.yaml"
_WATCH_INTERVAL_S = 1.0


def main(
    config: Annotated[
        Path, typer.Option(help="What to run and how, as `serve run` takes it.")
    ] = DEFAULT_CONFIG,
) -> None:
    """Run FAISS Memory until Ctrl-C or SIGTERM. Settings come from the environment."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        settings = load_settings()
        configure_logging(settings, component="launcher")
        _run(config, settings, console)
    except StopRequested:
        console.print("Stopped.")
    except (LauncherError, SettingsError, EngineError) as exc:
        console.print("[bold red]Cannot run:[/]", escape(str(exc)), markup=True)
        raise typer.Exit(1) from None


def run_detached(config: Path) -> None:
    """Start FAISS Memory in a session of its own, and return when it answers."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        settings = load_settings()
        check_data_dir(settings.data_dir)
        if settings.model_dir is None:
            set_up_shared(console)  # here, where its progress is seen
        job = job_of(settings, os.environ, config=config.absolute())
        with console.status("Starting ..."):
            pid, ready_line = start_detached(job)
    except (LauncherError, SettingsError, EngineError) as exc:
        console.print(str(exc), markup=False)
        raise typer.Exit(1) from None
    console.print(f"{ready_line.partition(' Stop')[0]} Stop with: kill {pid}", markup=False)
    console.print(f"What it logs is in {job.log_path}", markup=False)


def _run(config: Path, settings: Settings, console: Console) -> None:
    with stopping_on_signals():
        check_data_dir(settings.data_dir)
        check_workspace_dir(settings.workspace_dir)
        if other := memories_elsewhere(settings.data_dir):
            console.print(_how_to_serve_others(settings.data_dir, other), markup=False)
        if settings.model_dir is None:
            set_up_shared(console)
        check_model(settings)
        runtime = RuntimeDir.open(runtime_dir_of(settings.data_dir))
        _set_environment(settings, runtime)
        check_port_free(settings.host, settings.port)
        if settings.dashboard:
            check_dashboard(settings)
        relay_logs(runtime.log_pipe, sys.stderr.buffer)
        log_settings(settings)
        # Serve reads its switches when it is imported.
        from scripts.launcher.local_ray import start_ray

        try:
            with console.status("Starting ..."):
                started_s = time.monotonic()
                node = start_ray(runtime, settings)
                catch_signals()  # Ray has put its own handler there
                _start_service(config, settings, console)
            url = own_url(settings)
            console.print(
                f"FAISS Memory answers at {url} (ready in {time.monotonic() - started_s:.1f} s). "
                f"API: {url}/docs. Stop with Ctrl-C."
            )
            if settings.dashboard:
                console.print(_how_to_reach_the_dashboard(settings), markup=False)
            if settings.auto_build != "false":
                _start_auto_build(settings)
            _watch(node)
        finally:
            ignore_signals()
            _stop(runtime, settings)


def _how_to_serve_others(data_dir: Path, other: Path) -> str:
    return (
        f"No memories in {data_dir} yet, but {other} holds some: "
        f"to serve those, start with DATA_DIR={shlex.quote(str(other))}"
    )


def _set_environment(settings: Settings, runtime: RuntimeDir) -> None:
    """Everything that Ray's processes inherit; an operator's own `RAY_*` variables win."""
    variables = ray_variables(runtime)
    if binary := working_haproxy():
        variables |= haproxy_variables(runtime, binary, settings.host)
    for name, value in variables.items():
        os.environ.setdefault(name, value)
    os.environ["LOG_PIPE"] = str(runtime.log_pipe)
    os.environ["LOG_FORMAT"] = resolve_format(settings.log_format, sys.stderr)
    # Ray's workers run elsewhere, so relative paths become absolute here.
    os.environ["DATA_DIR"] = str(settings.data_dir)
    os.environ["WORKSPACE_DIR"] = str(settings.workspace_dir)
    root = str(Path(__file__).parents[2])
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (root, os.environ.get("PYTHONPATH", "")))
    )


def _start_service(config: Path, settings: Settings, console: Console) -> None:
    """Deploy the application and wait until it answers."""
    from scripts.launcher.serve_application import deploy, failure_of

    # HAProxy's shim opens the outer address; what is behind it stays on loopback.
    behind_haproxy = os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1"
    deploy(config, host="127.0.0.1" if behind_haproxy else settings.host, port=settings.port)
    deadline = time.monotonic() + settings.start_timeout_s
    last_reason = None
    with own_client(settings, timeout_s=5) as client:
        while not answers(client, "/health/ready"):
            if sentence := failure_of():
                raise LauncherError(sentence)
            if reason := reason_to_wait(client):
                # A new machine without its bucket waits as long as it takes, and says so.
                deadline = time.monotonic() + settings.start_timeout_s
                if reason != last_reason:
                    console.print(f"Not ready: {reason}", markup=False)
                last_reason = reason
            if time.monotonic() > deadline:
                raise LauncherError(
                    f"not ready after START_TIMEOUT_S={settings.start_timeout_s:g}; "
                    "the log above and the files of Ray's session may say why"
                )
            time.sleep(0.1)


def _how_to_reach_the_dashboard(settings: Settings) -> str:
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")
    variables = {name: os.environ[name] for name in names}
    variables["RAY_DASHBOARD_ADDRESS"] = f"http://127.0.0.1:{settings.dashboard_port}"
    words = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return f"For `serve status` and `serve deploy`: export {words}"


def _start_auto_build(settings: Settings) -> None:
    # Only here: importing what watches files takes memory.
    from scripts.launcher.auto_build import WorkspaceBuilder

    service = own_service(settings)
    builder = WorkspaceBuilder(service, settings.workspace_dir, data_dir=settings.data_dir)
    builder.run(watching=settings.auto_build == "watch")


def _watch(node: LocalNode) -> None:
    """Return never: a signal ends it, Ray's death, or a store that only a command mends."""
    from scripts.launcher.serve_application import RefusalWatch

    refusals = RefusalWatch()
    terminal = Foreground()
    try:
        while True:
            if refusals.sentence:
                raise LauncherError(refusals.sentence)
            # The dashboard's end takes nothing from callers, who know nothing of it.
            dead = [name for name, _ in node.dead_processes() if name != "dashboard"]
            if dead:
                raise LauncherError(f"Ray's {', '.join(dead)} died; the service is stopped")
            if terminal.is_gone():
                let_go_of_the_terminal()
                raise StopRequested
            time.sleep(_WATCH_INTERVAL_S)
    finally:
        refusals.stop()


def _stop(runtime: RuntimeDir, settings: Settings) -> None:
    """End the service in order, and whatever is left after `stop_timeout_s` out of order."""
    from scripts.launcher.serve_application import stop_gracefully

    if not stop_gracefully(timeout_s=settings.stop_timeout_s):
        _end_without_ray()
    runtime.end_leftovers()


def _end_without_ray() -> None:
    """Ray waits for what is gone; at the interpreter's end it would do so once more."""
    status = 0 if isinstance(sys.exc_info()[1], StopRequested) else 1
    atexit.register(os._exit, status)
