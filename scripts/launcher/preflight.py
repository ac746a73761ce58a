"""What must hold before the service starts; each failure says what to do about it."""

from __future__ import annotations

import os
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path

from deployments.places import installed_data_dir, local_data_dir
from deployments.settings import Settings
from engine.disk.durable_files import make_directory
from engine.model.files import (
    PRECISIONS,
    SET_UP_COMMAND,
    default_model_dir,
    graph_file,
    read_model_manifest,
)
from scripts.launcher.runtime_dir import LauncherError

LEAST_FREE_BYTES = 4 << 20
"""SQLite makes files of its own to open a store, and a first write must fit too."""

_MEMORY_FILES = ("memories.db", "metadata.json")
"""Ours and the original's. Importing what knows them better would stay in the launcher's memory."""


def check_data_dir(path: Path) -> None:
    """Make the data directory and see that it can be written, and has space to open a store."""
    try:
        make_directory(path)
    except OSError as exc:
        raise LauncherError(f"cannot make DATA_DIR={path}: {exc.strerror}") from exc
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise LauncherError(
            f"DATA_DIR={path} is not writable by this user: change its owner, or set DATA_DIR"
        )
    if shutil.disk_usage(path).free < LEAST_FREE_BYTES:
        raise LauncherError(
            f"the disk that holds DATA_DIR={path} is full; your memories are unharmed: free at "
            f"least {LEAST_FREE_BYTES >> 20} MB, then start again"
        )


def memories_elsewhere(data_dir: Path) -> Path | None:
    """Another usual directory that holds memories while there are none in `data_dir` yet."""
    if _holds_memories(data_dir):
        return None
    others = (local_data_dir(), installed_data_dir())
    return next((other for other in others if _holds_memories(other)), None)


def _holds_memories(directory: Path) -> bool:
    return any((directory / name).exists() for name in _MEMORY_FILES)


def check_workspace_dir(path: Path) -> None:
    """See that what builds are to read is there."""
    if not path.is_dir():
        raise LauncherError(
            f"WORKSPACE_DIR={path} is no directory: make it, or set WORKSPACE_DIR to one"
        )


def check_model(settings: Settings) -> None:
    """See that the model is set up. Raises `ModelNotFoundError`, which names the command."""
    model_dir = settings.model_dir or default_model_dir(os.environ, Path.home())
    manifest = read_model_manifest(model_dir)
    if all(graph_file(precision) in manifest.files for precision in PRECISIONS):
        return
    # Only here: what reads stores stays in the launcher's memory.
    from engine.recovery.precision import precision_of

    name = graph_file(precision_of(settings.data_dir, settings.model_precision))
    if name not in manifest.files:
        raise LauncherError(
            f"{model_dir} has no {name}: run {SET_UP_COMMAND} --model-dir {model_dir}, "
            "or set MODEL_PRECISION to a precision that is set up"
        )


def check_dashboard(settings: Settings) -> None:
    """See that Ray's dashboard is installed and its port free. Imports Ray."""
    if find_spec("ray.dashboard.modules") is None:
        raise LauncherError(
            "DASHBOARD=true: Ray's dashboard is not in this image; build it with "
            "--build-arg FULL_RAY=true, or unset DASHBOARD"
        )
    if settings.dashboard_port == settings.port:
        raise LauncherError(f"DASHBOARD_PORT and PORT are both {settings.port}: set another")
    check_port_free("127.0.0.1", settings.dashboard_port, setting="DASHBOARD_PORT")


def check_port_free(host: str, port: int, *, setting: str = "PORT") -> None:
    """See that nobody listens on the port, and say who does if so."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM
        )[0]
    except OSError as exc:
        raise LauncherError(
            f"HOST={host} is no address of this machine ({exc.strerror}); 127.0.0.1 is its own"
        ) from exc
    with socket.socket(family, kind, protocol) as probe:
        # As servers do: connections of the past in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as exc:
            raise LauncherError(
                f"cannot listen on {host}:{port}: {exc.strerror}{_holder(port)}; "
                f"stop that, or set {setting} to a free port"
            ) from exc


def _holder(port: int) -> str:
    """`, held by python (process 12)`, or nothing when it cannot be told."""
    import ray  # noqa: F401 (makes its copy of psutil importable)

    import psutil  # isort: skip

    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and connection.laddr.port == port and connection.pid:
                name = psutil.Process(connection.pid).name()
                return f", held by {name} (process {connection.pid})"
    except psutil.Error:
        pass
    return ""
