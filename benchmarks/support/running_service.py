"""The service as a process tree of its own: started, asked over HTTP, weighed, stopped, killed."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from deployments.settings import Settings
from scripts.launcher.runtime_dir import OWNER_VARIABLE, own_pids, runtime_dir_of
from scripts.launcher.serve import DEFAULT_CONFIG

ROOT = Path(__file__).parents[2]
_START_PATIENCE_S = 300.0
_STOP_PATIENCE_S = 60.0
_READY_POLL_S = 0.1
_TIMEOUT_S = 120.0
_SETTLE_PATIENCE_S = 30.0
_SETTLE_POLL_S = 3.0
_SETTLED_MIB = 2.0


class BenchmarkError(RuntimeError):
    """The thing to be measured does not work."""


class RunningService:
    """One way to start the service on a data directory; use as a context manager."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, data_dir: Path, port: int
    ) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._command = list(command)
        self._environment = _without_settings() | dict(environment)
        self._mark = Path(environment.get(OWNER_VARIABLE, runtime_dir_of(data_dir)))
        self.log_path = data_dir.parent / f"{data_dir.name}-{port}.log"
        self._launcher: subprocess.Popen[bytes] | None = None
        self._connections = threading.local()

    def __enter__(self) -> RunningService:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> float:
        """Start it; returns the seconds until it answered `/health/ready`."""
        started_s = time.monotonic()
        with self.log_path.open("ab") as log:
            self._launcher = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while not self._is_ready():
            elapsed_s = time.monotonic() - started_s
            if self._launcher.poll() is not None or elapsed_s > _START_PATIENCE_S:
                end = self.log_path.read_bytes()[-2000:].decode("utf-8", "replace")
                self.kill()
                raise BenchmarkError(f"the service did not start:\n{end}")
            time.sleep(_READY_POLL_S)
        return time.monotonic() - started_s

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what is left of it."""
        if self._launcher is not None and self._launcher.poll() is None:
            self._launcher.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._launcher.wait(_STOP_PATIENCE_S)
        self.kill()

    def kill(self) -> None:
        """SIGKILL every process of it at once."""
        assert self._launcher is not None, "not started"
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._launcher.wait(_STOP_PATIENCE_S)
        while own_pids(self._mark):
            time.sleep(_READY_POLL_S)

    def pids(self) -> list[int]:
        """Every living process of it."""
        assert self._launcher is not None, "not started"
        alive = [self._launcher.pid] if self._launcher.poll() is None else []
        return list({*alive, *own_pids(self._mark)})

    # HTTP

    def ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 (JSON)
        """The JSON answer to a request, over a connection that this thread keeps.

        Raises:
            BenchmarkError: another status than 200.
        """
        status, answer = self._exchange(method, path, body)
        if status != http.HTTPStatus.OK:
            raise BenchmarkError(f"{method} {path}: HTTP {status}: {answer[:300]!r}")
        return json.loads(answer)

    def metrics(self) -> dict[str, float]:
        """Values of `/metrics` by series, labels but the replica's included."""
        _, answer = self._exchange("GET", "/metrics")
        lines = [line for line in answer.decode().splitlines() if not line.startswith("#")]
        return {series: float(value) for series, _, value in (s.rpartition(" ") for s in lines)}

    def forget_connection(self) -> None:
        """Close this thread's connection: the service does so itself with one idle for long."""
        connection = getattr(self._connections, "it", None)
        if connection is not None:
            connection.close()

    def _exchange(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        connection = getattr(self._connections, "it", None)
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_TIMEOUT_S)
            self._connections.it = connection
        try:
            connection.request(method, path, None if body is None else json.dumps(body).encode())
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            raise

    def _is_ready(self) -> bool:
        try:
            return self._exchange("GET", "/health/ready")[0] == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False

    # Weight

    def pss_mib(self) -> dict[str, float]:
        """Proportional set size by process title, in MiB; shared pages are counted once."""
        sizes: dict[str, float] = {}
        for pid in self.pids():
            try:
                title = _title(pid)
                pss = _pss_kib(pid) / 1024
            except OSError:
                continue
            sizes[title] = sizes.get(title, 0.0) + pss
        return {title: round(size, 1) for title, size in sorted(sizes.items())}

    def settled_pss_mib(self) -> dict[str, float]:
        """`pss_mib` once it has stopped changing: some of Serve's processes come late."""
        before, now = 0.0, self.pss_mib()
        deadline_s = time.monotonic() + _SETTLE_PATIENCE_S
        while abs(sum(now.values()) - before) > _SETTLED_MIB and time.monotonic() < deadline_s:
            time.sleep(_SETTLE_POLL_S)
            before, now = sum(now.values()), self.pss_mib()
        return now

    def peak_pss_mib(
        self, work: Callable[[], object], interval_s: float = 0.25
    ) -> dict[str, float]:
        """The most that each process, and all together, weighed while `work` ran, in MiB."""
        finished = threading.Event()
        peak: dict[str, float] = {}

        def watch() -> None:
            while not finished.is_set():
                now = self.pss_mib()
                for title, size in {**now, "all": round(sum(now.values()), 1)}.items():
                    peak[title] = max(peak.get(title, 0.0), size)
                finished.wait(interval_s)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            work()
        finally:
            finished.set()
            watcher.join()
        return peak


def launched(
    data_dir: Path,
    port: int,
    *,
    config: Path = DEFAULT_CONFIG,
    settings: Mapping[str, str] | None = None,
) -> RunningService:
    """The service as `make serve` starts it, with these settings."""
    command = [sys.executable, "-m", "scripts.serve", "--config", str(config)]
    environment = _own(data_dir, port) | dict(settings or {})
    return RunningService(command, environment, data_dir=data_dir, port=port)


def under_serve_defaults(
    data_dir: Path, port: int, *, config: Path = DEFAULT_CONFIG
) -> RunningService:
    """The same application under plain `serve run`: stock Ray node, Serve's Python proxy.

    Loopback and token stay: no benchmark opens the machine to strangers.
    """
    directory = data_dir.parent
    own_config = directory / f"serve-{port}.yaml"
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    content["http_options"]["port"] = port
    own_config.write_text(yaml.safe_dump(content), encoding="utf-8")
    environment = _own(data_dir, port) | {
        OWNER_VARIABLE: str(directory / f"serve-{port}"),
        "PYTHONPATH": str(ROOT),
        "RAY_TMPDIR": str(directory / "ray"),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    serve = str(Path(sys.executable).with_name("serve"))
    command = [serve, "run", "--address", "local", str(own_config)]
    return RunningService(command, environment, data_dir=data_dir, port=port)


def free_ports(first: int, n: int) -> list[int]:
    """So many ports from `first` on that nobody listens on."""
    found: list[int] = []
    for port in range(first, 65_536):
        if len(found) == n:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                found.append(port)
    return found


def _own(data_dir: Path, port: int) -> dict[str, str]:
    return {
        "DATA_DIR": str(data_dir),
        "WORKSPACE_DIR": str(data_dir.parent),
        "PORT": str(port),
        "LOG_FORMAT": "json",
    }


def _without_settings() -> dict[str, str]:
    """This process's environment without what configures a service or a Ray cluster."""
    settings = {name.upper() for name in Settings.model_fields} - {"MODEL_DIR"}
    return {
        name: value
        for name, value in os.environ.items()
        if name not in settings and not name.startswith("RAY_")
    }


def _title(pid: int) -> str:
    """What a process is, in a word: Ray's own title, or the program's name."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0 ").decode().split("\0")
    if words[0].startswith("ray::"):
        return words[0].removeprefix("ray::").split()[0].split(".")[0].split("#")[0]
    if "-m" in words:
        return words[words.index("-m") + 1]
    scripts = [Path(word).name for word in words if word.endswith(".py")]
    return scripts[0] if scripts else Path(words[0]).name


def _pss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise OSError(f"no Pss of process {pid}")
