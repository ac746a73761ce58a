"""`faiss-memory service`: have the platform keep the service running, or no longer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import typer
from rich.console import Console

from deployments.settings import SettingsError, load_settings
from engine.errors import EngineError
from scripts.launcher.background import Supervisor, job_of, supervisor_for
from scripts.launcher.preflight import check_data_dir, check_workspace_dir
from scripts.launcher.runtime_dir import LauncherError
from scripts.model.set_up import set_up_shared

_NOT_RUNNING = 3

_console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def install() -> None:
    """Write the platform's file with the settings of now, and start the service."""
    try:
        settings = load_settings()
        check_data_dir(settings.data_dir)
        check_workspace_dir(settings.workspace_dir)
        if settings.model_dir is None:
            set_up_shared(_console)
        supervisor = _supervisor()
        supervisor.install()
    except (LauncherError, SettingsError, EngineError) as exc:
        _console.print(f"Not installed: {exc}")
        raise typer.Exit(1) from None
    _console.print(f"{supervisor.path} keeps the service running, on {settings.data_dir}.")
    if sys.platform != "darwin":
        _console.print("So that it starts before you log in: loginctl enable-linger")


def status() -> None:
    """Show what the platform says about the service."""
    supervisor = _supervisor()
    if not supervisor.path.exists():
        _console.print("Not installed: faiss-memory service install")
        raise typer.Exit(_NOT_RUNNING)
    try:
        done = subprocess.run(supervisor.status, check=False)
    except FileNotFoundError:
        _console.print(
            f"{supervisor.path} is there, but no {supervisor.status[0]} on this machine."
        )
        raise typer.Exit(_NOT_RUNNING) from None
    raise typer.Exit(_NOT_RUNNING if done.returncode else 0)


def uninstall() -> None:
    """Stop the service and remove the platform's file; the memories stay."""
    supervisor = _supervisor()
    was_there = supervisor.uninstall()
    _console.print("Uninstalled; your memories stay." if was_there else "Was not installed.")


def _supervisor() -> Supervisor:
    try:
        job = job_of(load_settings(), os.environ)
    except SettingsError as exc:
        _console.print(str(exc))
        raise typer.Exit(1) from None
    return supervisor_for(job, platform=sys.platform, home=Path.home(), environ=os.environ)
