"""A Ray node of one machine with what Serve needs and nothing else.

`ray.init` starts a dashboard, two agents, an autoscaler and a log monitor, and listens on every
interface. This node is made of the same parts without those, on 127.0.0.1; of the dashboard it has
Serve's part where it is asked for. It rests on Ray's internals, which is why Ray's version is
pinned exactly.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
from ray._private import services, worker
from ray._private.node import Node
from ray._private.parameter import RayParams

from deployments.settings import Settings
from scripts.launcher.runtime_dir import LauncherError, RuntimeDir

_AGENT_STUB = Path(__file__).parent / "stubs" / "ray_agent_stub.py"
_SERVE_API_ONLY = "--modules-to-load=ServeHead"
"""The other parts show what the agents report, and each is a process."""
_OBJECT_STORE_BYTES = 80 * 2**20
"""Ray's least is 75 MiB; what handles pass is inlined up to 100 kB and short-lived beyond."""


class LocalNode(Node):  # type: ignore[misc]  # Ray is not typed here
    """A head node without agents, autoscaler and log monitor, and with a dashboard on request."""

    def start_api_server(self, **options: Any) -> None:  # noqa: ANN401 (Ray's signature)
        """Start of the dashboard what `serve deploy` and `serve status` speak to, or nothing."""
        self._webui_url = ""
        if not self._ray_params.include_dashboard:
            return
        with _changing_commands(lambda command: [*command, _SERVE_API_ONLY]):
            super().start_api_server(**{**options, "raise_on_failure": False})
        if not self._webui_url:
            raise LauncherError(
                f"Ray's dashboard does not start: {self._logs_dir}/dashboard.log says why; "
                "DASHBOARD=false goes without it"
            )

    def start_raylet(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Start raylet with stand-ins for its agents."""
        with _changing_commands(self._with_stubs):
            super().start_raylet(*args, **kwargs)

    def _with_stubs(self, command: list[str]) -> list[str]:
        stub = [sys.executable, "-I", "-S", str(_AGENT_STUB), self._session_dir, self._node_id]
        metrics = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
        # Nothing listens on port 1; it is asked for runtime environments, which are not used.
        agents = {
            "--dashboard_agent_command": [*stub, *(f"{name}=-1" for name in metrics)],
            "--runtime_env_agent_command": [*stub, "runtime_env_agent_port=1"],
        }
        kept = [word for word in command if word.partition("=")[0] not in agents]
        return kept + [f"{option}={shlex.join(words)}" for option, words in agents.items()]


@contextmanager
def _changing_commands(change: Callable[[list[str]], list[str]]) -> Iterator[None]:
    start_process = services.start_ray_process

    def start_changed(command: list[str], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return start_process(change(command), *args, **kwargs)

    with patch.object(services, "start_ray_process", start_changed):
        yield


def start_ray(runtime: RuntimeDir, settings: Settings) -> LocalNode:
    """Start the node and connect this process to it. The environment is already set.

    The node's processes end with this one, however it ends.
    """
    params = RayParams(
        node_ip_address="127.0.0.1",
        num_cpus=os.cpu_count() or 1,
        num_gpus=0,
        include_dashboard=settings.dashboard,
        dashboard_host="127.0.0.1",
        dashboard_port=settings.dashboard_port,
        no_monitor=True,
        include_log_monitor=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        temp_dir=str(runtime.ray_dir),
    )
    node = LocalNode(
        params, head=True, shutdown_at_exit=False, spawn_reaper=True, ray_init_cluster=True
    )
    runtime.address_path.write_text(f"{node.address}\n")
    # Ray would print each death of a worker, our own stopping of them included.
    with patch.object(worker, "listen_error_messages", lambda *_: None):
        ray.init(address=node.address, log_to_driver=False, logging_level="CRITICAL")
    # Ray's would report an exception to a node that may be gone, and wait for it for a minute.
    sys.excepthook = sys.__excepthook__
    return node
