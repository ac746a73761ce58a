"""The real service as tests use it: from the launcher, in its own directories, on its own port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from deployments.settings import Settings
from scripts.launcher.runtime_dir import OWNER_VARIABLE, runtime_dir_of
from tests import ROOT

START_PATIENCE_S = 400
STOP_PATIENCE_S = 30


class Service:
    """One service: `start`, look and prod, `stop`. Several may run at once."""

    def __init__(
        self,
        data_dir: Path,
        workspace_dir: Path,
        *,
        env: Mapping[str, str] | None = None,
        config: Path = ROOT / "serve_config.yaml",
    ) -> None:
        self.data_dir = data_dir
        self.workspace_dir = workspace_dir
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.log_path = data_dir.parent / f"{data_dir.name}.log"
        self._config = config
        self._env = dict(env or {})
        self._launcher: subprocess.Popen[bytes] | None = None

    @property
    def launcher(self) -> psutil.Process:
        """The launcher's process."""
        assert self._launcher is not None, "not started"
        return psutil.Process(self._launcher.pid)

    @property
    def runtime_dir(self) -> Path:
        """Where the launcher keeps token, sockets and Ray's logs."""
        return runtime_dir_of(self.data_dir)

    def start(self) -> None:
        """Start the launcher and wait until it says that the service answers."""
        already = self.log_path.stat().st_size if self.log_path.exists() else 0
        self.launch()
        for _ in range(START_PATIENCE_S * 5):
            # Not by asking the port: what a killed launcher left may still answer there.
            if b"FAISS Memory answers at http" in self.log_path.read_bytes()[already:]:
                return
            if self.exited_within(0.2):
                break
        pytest.fail(f"the service did not start:\n{self.log()}")

    def launch(self) -> None:
        """Start the launcher, without waiting for anything."""
        with self.log_path.open("ab") as log:
            self._launcher = subprocess.Popen(
                [sys.executable, "-m", "scripts.serve", "--config", str(self._config)],
                cwd=ROOT,
                env=self._environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def exited_within(self, timeout_s: float) -> bool:
        """Whether the launcher ends by itself in that time."""
        assert self._launcher is not None, "not started"
        try:
            self._launcher.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """Stop the launcher; returns its exit status."""
        assert self._launcher is not None, "not started"
        if self._launcher.poll() is None:
            self._launcher.send_signal(signal_number)
        try:
            return self._launcher.wait(STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._launcher.kill()
            pytest.fail(f"the launcher did not stop:\n{self.log()}")

    def restart(self) -> None:
        """Stop, then start on the same port and data."""
        self.stop()
        self.start()

    def processes(self) -> list[psutil.Process]:
        """Every living process of this service, the launcher included."""
        mark = str(self.runtime_dir)
        found = [self.launcher] if self._launcher and self._launcher.poll() is None else []
        for process in psutil.process_iter():
            try:
                # The dashboard's child has written its title over its environment.
                ours = process.environ().get(OWNER_VARIABLE) == mark or process.parent() in found
                if ours and process not in found:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def replica_pids(self, deployment: str) -> list[int]:
        """Processes of `Ingress`, `Embedder` or `Index`."""
        title = f"ray::ServeReplica:default:{deployment}"
        found = []
        for process in self.processes():
            try:
                # While it works, Ray appends the method to the title.
                if " ".join(process.cmdline()).rstrip().split(".")[0] == title:
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    def kill(self, deployment: str) -> list[int]:
        """SIGKILL every replica of a deployment; returns the pids they had."""
        pids = self.replica_pids(deployment)
        assert pids, f"no replica of {deployment}"
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return pids

    def log(self, n_bytes: int = 8000) -> str:
        """The end of what the launcher and the replicas have written."""
        return self.log_path.read_bytes()[-n_bytes:].decode("utf-8", "replace")

    def _environment(self) -> dict[str, str]:
        """Ours without what configures a service or a Ray cluster, then this service's own."""
        settings = {name.upper() for name in Settings.model_fields} - {"MODEL_DIR"}
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in settings and not name.startswith("RAY_")
        }
        return {
            **kept,
            "DATA_DIR": str(self.data_dir),
            "WORKSPACE_DIR": str(self.workspace_dir),
            "PORT": str(self.port),
            **self._env,
        }


def free_port(first: int = 18_900) -> int:
    """A port nobody listens on, below those that outgoing connections take."""
    for port in range(first + os.getpid() % 500, first + 1_100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


@contextmanager
def running_service(
    directory: Path,
    *,
    env: Mapping[str, str] | None = None,
    config: Path = ROOT / "serve_config.yaml",
) -> Iterator[Service]:
    """A started service with its data and workspace in `directory`; stopped at the end.

    With `SERVICE_IMAGE=<name>` in the environment it is a container of that image.
    """
    data_dir, workspace_dir = directory / "data", directory / "workspace"
    workspace_dir.mkdir(exist_ok=True)
    if image := os.environ.get("SERVICE_IMAGE"):
        from tests.image.container import running_container

        with running_container(image, directory, env=env) as container:
            yield container
        return
    service = Service(data_dir, workspace_dir, env=env, config=config)
    try:
        service.start()
        yield service
    finally:
        service.stop()
        shutil.rmtree(service.runtime_dir, ignore_errors=True)


@pytest.fixture(scope="session")
def mortal_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for the tests that kill it; each leaves it answering, and knows its own sources.

    With more patience than anything takes to come back on a busy machine.
    """
    env = {"REQUEST_TIMEOUT_S": "120"}
    with running_service(tmp_path_factory.mktemp("mortal_service"), env=env) as service:
        yield service


@pytest.fixture(scope="session")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for every test that neither kills it nor counts its memories."""
    with running_service(tmp_path_factory.mktemp("shared_service")) as service:
        yield service
