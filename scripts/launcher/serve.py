"""Run the service: what `make serve` starts.

Starts Ray on this machine, applies `serve_config.yaml`, waits until the service answers, and
stops everything when it is told to, or when it cannot go on.
"""

from __future__ import annotations

import atexit
import os
import shlex
import signal
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, cast

import httpx
import typer
from rich.console import Console
from rich.markup import escape

from deployments.logs import configure_logging, log_settings, resolve_format
from deployments.settings import Settings, SettingsError, load_settings
from engine.errors import EngineError
from scripts.launcher.background import job_of, start_detached
from scripts.launcher.log_relay import relay_logs
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
from scripts.model.set_up import set_up_shared

if TYPE_CHECKING:
    from scripts.launcher.local_ray import LocalNode

DEFAULT_CONFIG = Path(__file__).parents[1] / "serve_config.yaml"
_WATCH_INTERVAL_S = 1.0


class _StopRequested(BaseException):
    """A signal asked the launcher to stop."""


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
    except _StopRequested:
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
            pid, answers = start_detached(job)
    except (LauncherError, SettingsError, EngineError) as exc:
        console.print(str(exc), markup=False)
        raise typer.Exit(1) from None
    console.print(f"{answers.partition(' Stop')[0]} Stop with: kill {pid}", markup=False)
    console.print(f"What it logs is in {job.log_path}", markup=False)


def _run(config: Path, settings: Settings, console: Console) -> None:
    with _stopping_on_signals():
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
                _catch_signals()  # Ray has put its own handler there
                _start_service(config, settings, console)
            url = _own_url(settings)
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
            _ignore_signals()
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
    told = None
    with _own_client(settings, timeout_s=5) as client:
        while not _answers(client, "/health/ready"):
            if sentence := failure_of():
                raise LauncherError(sentence)
            if reason := _waits_for(client):
                # A new machine without its bucket waits as long as it takes, and says so.
                deadline = time.monotonic() + settings.start_timeout_s
                if reason != told:
                    console.print(f"Not ready: {reason}", markup=False)
                told = reason
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

    client = _own_client(settings, timeout_s=settings.build_timeout_s)
    builder = WorkspaceBuilder(client, settings.workspace_dir, data_dir=settings.data_dir)
    builder.start(watching=settings.auto_build == "watch")


def _own_client(settings: Settings, *, timeout_s: float) -> httpx.Client:
    """A client that this service lets in."""
    # Without a key the service answers only to the names it knows.
    name = next((host for host in settings.allowed_hosts if host != "*"), "localhost")
    headers = {"Host": name, "X-API-Key": settings.api_key.get_secret_value()}
    return httpx.Client(
        base_url=_own_url(settings), trust_env=False, timeout=timeout_s, headers=headers
    )


def _own_url(settings: Settings) -> str:
    """Where this machine reaches the service."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).is_success
    except httpx.HTTPError:
        return False


def _waits_for(client: httpx.Client) -> str | None:
    try:
        return cast("str | None", client.get("/health/ready").json().get("reason"))
    except (httpx.HTTPError, ValueError, AttributeError):
        return None


def _watch(node: LocalNode) -> None:
    """Return never: a signal ends it, Ray's death, or a store that only a command mends."""
    from scripts.launcher.serve_application import RefusalWatch

    refusals = RefusalWatch()
    terminal = _Foreground()
    try:
        while True:
            if refusals.sentence:
                raise LauncherError(refusals.sentence)
            # The dashboard's end takes nothing from callers, who know nothing of it.
            dead = [name for name, _ in node.dead_processes() if name != "dashboard"]
            if dead:
                raise LauncherError(f"Ray's {', '.join(dead)} died; the service is stopped")
            if terminal.is_gone():
                _let_go_of_the_terminal()
                raise _StopRequested
            time.sleep(_WATCH_INTERVAL_S)
    finally:
        refusals.stop()


class _Foreground:
    """Whether this process is what a terminal's user works with: a window of `make serve` alone.

    The signal of its closing goes to `make`, which keeps it to itself.
    """

    def __init__(self) -> None:
        self._was_in_front = False

    def is_gone(self) -> bool:
        """Whether the terminal was closed while this was in its foreground."""
        try:
            self._was_in_front = os.tcgetpgrp(2) == os.getpgrp()
        except OSError:  # there is none, or none any more
            return self._was_in_front
        return False


def _stop(runtime: RuntimeDir, settings: Settings) -> None:
    """End the service in order, and whatever is left after `stop_timeout_s` out of order."""
    from scripts.launcher.serve_application import stop_gracefully

    if not stop_gracefully(timeout_s=settings.stop_timeout_s):
        _end_without_ray()
    runtime.end_leftovers()


def _end_without_ray() -> None:
    """Ray waits for what is gone; at the interpreter's end it would do so once more."""
    status = 0 if isinstance(sys.exc_info()[1], _StopRequested) else 1
    atexit.register(os._exit, status)


@contextmanager
def _stopping_on_signals() -> Iterator[None]:
    _catch_signals()
    try:
        yield
    finally:
        _ignore_signals()


def _catch_signals() -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _let_go_of_the_terminal()
        raise _StopRequested

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # `nohup` has it ignored, and means it.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)


def _let_go_of_the_terminal() -> None:
    """It is gone: whatever is printed from here on would fail, and stopping with it."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(fd).st_mode):
                os.dup2(nowhere, fd)
    os.close(nowhere)


def _ignore_signals() -> None:
    """One signal is enough; stopping has its own time limit."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
