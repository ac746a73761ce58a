"""Apply a changed `serve_config.yaml` to the running service, replica by replica.

What `serve deploy` does, without Ray's dashboard, and then waits. Environment variables are those
that the service was started with. On a cluster `deploy/node.sh deploy` sets them and names the
address.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from deployments.settings import SettingsError, load_settings
from scripts.launcher.ray_switches import ray_variables
from scripts.launcher.runtime_dir import LauncherError, RuntimeDir, runtime_dir_of
from scripts.launcher.serve import DEFAULT_CONFIG

_POLL_S = 0.5


def main(
    config: Annotated[
        Path, typer.Option(help="What to run and how, as `serve deploy` takes it.")
    ] = DEFAULT_CONFIG,
    address: Annotated[
        str, typer.Option(help="Of the head of a cluster; else the service of DATA_DIR is meant.")
    ] = "",
) -> None:
    """Replace what has changed in the service of DATA_DIR; requests wait or are sent again."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        settings = load_settings()
        if not address:
            address = _local_address(RuntimeDir.of_running(runtime_dir_of(settings.data_dir)))
        with console.status("Deploying ..."):
            _deploy(config, address, timeout_s=settings.start_timeout_s)
    except (LauncherError, SettingsError) as exc:
        console.print(f"[bold red]Not deployed:[/] {escape(str(exc))}")
        raise typer.Exit(1) from None
    console.print("Deployed: every replica runs as configured.")


def _local_address(runtime: RuntimeDir) -> str:
    """Where the service of this machine is; from here on its switches are set."""
    # Serve reads its switches when it is imported.
    for name, value in ray_variables(runtime).items():
        os.environ.setdefault(name, value)
    return runtime.address_path.read_text().strip()


def _deploy(config: Path, address: str, *, timeout_s: float) -> None:
    import ray

    from scripts.launcher.serve_application import failure_of, is_deployed_since, redeploy

    ray.init(address=address, log_to_driver=False, logging_level="CRITICAL")
    deadline = time.monotonic() + timeout_s
    before_s = redeploy(config)
    while not is_deployed_since(before_s):
        if sentence := failure_of():
            raise LauncherError(sentence)
        if time.monotonic() > deadline:
            raise LauncherError(
                f"not finished after START_TIMEOUT_S={timeout_s:g}; /health says whether the "
                "service answers"
            )
        time.sleep(_POLL_S)
