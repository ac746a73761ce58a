"""A cluster of machines as tests use it: network namespaces on a bridge, each a node of its own.

A node has its own address, host name, process ids and files; killing its first process is a power
cut, taking its link down a broken cable. Needs root and Linux.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import psutil
import pytest

from deployments.settings import Settings
from tests import ROOT

DEPLOY = ROOT / "deploy"
NODE_SCRIPT = DEPLOY / "node.sh"
PORT = 8000
START_PATIENCE_S = 600

Role = Literal["head", "index", "embedder"]

_NAMESPACES = ("--mount", "--uts", "--ipc", "--pid")

# The supervisor of a machine: mounts what only this machine sees, then runs the node again and
# again, as systemd does with Restart=always.
_MACHINE = """
set -eu
hostname "$NAME"
mount --make-rprivate /
mount --bind "$OWN" "$SHARED"
ip link set lo up
while :; do
  sh "$NODE_SCRIPT" "$ROLE" || true
  echo "--- the node ended; starting it again"
  sleep 2
done
"""


def why_not() -> str:
    """Why namespaces cannot be made here; empty when they can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    for tool in ("ip", "unshare", "nsenter", "mount", "hostname"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    name = f"fmtry{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode:
        return f"ip netns add: {made.stderr.decode().strip()}"
    run_ip("netns", "delete", name)
    return ""


def run_ip(*words: str) -> None:
    """`ip`, which must succeed."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Machine:
    """One machine: `power_on`, `cut_power`, `unplug` and `plug_in` its network."""

    def __init__(self, cluster: Cluster, number: int, role: Role) -> None:
        self._cluster = cluster
        self.role = role
        self.name = f"{cluster.name}{number}"
        self.ip = f"{cluster.subnet}.{number + 1}"
        self.url = f"http://{self.ip}:{PORT}"
        self.own = cluster.directory / self.name
        """What this machine alone sees as `cluster.shared`."""
        self.log_path = cluster.directory / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.own.mkdir()
        run_ip("netns", "add", self.name)
        run_ip("link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run_ip("link", "set", self.name, "master", cluster.name, "up")
        run_ip("-n", self.name, "addr", "add", f"{self.ip}/24", "dev", "eth0")
        run_ip("-n", self.name, "link", "set", "eth0", "up")
        # Leads nowhere; without one Ray waits half a minute for a name server.
        run_ip("-n", self.name, "route", "add", "default", "via", f"{cluster.subnet}.1")

    def power_on(self) -> None:
        """Start the machine's supervisor."""
        self.plug_in()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("ip", "netns", "exec", self.name),
                    *("unshare", *_NAMESPACES, "--mount-proc"),
                    *("--fork", "--kill-child", "sh", "-c", _MACHINE),
                ],
                env=self._cluster.environment(self),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def wait_until_up(self) -> None:
        """Until the node has joined the cluster; not yet until anything runs on it."""
        poll(
            f"{self.role} is up",
            lambda: b"Ray runtime started" in self.log_path.read_bytes(),
            patience_s=START_PATIENCE_S,
        )

    def cut_power(self) -> None:
        """SIGKILL everything on the machine at once, no farewell sent; its files stay."""
        self.unplug()  # else the kernel would close every connection for the dead
        if self._process is not None:
            self._process.kill()  # and with it, by --kill-child, the first process inside
            self._process.wait()
            self._process = None

    def run_here(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command on this machine; its output can be read."""
        assert self._process is not None, "the power is off"
        [first] = psutil.Process(self._process.pid).children()
        return subprocess.Popen(
            ["nsenter", f"--target={first.pid}", "--net", *_NAMESPACES, *words],
            env=self._cluster.environment(self),
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )

    def unplug(self) -> None:
        """Let no packet in or out; processes go on."""
        run_ip("link", "set", self.name, "down")

    def plug_in(self) -> None:
        """Undo `unplug`."""
        run_ip("link", "set", self.name, "up")

    def log(self, n_bytes: int = 6000) -> str:
        """The end of what the node has written."""
        return self.log_path.read_bytes()[-n_bytes:].decode("utf-8", "replace")


class Cluster:
    """Machines on one bridge, which the test's own process reaches."""

    def __init__(self, directory: Path, env: Mapping[str, str]) -> None:
        self.name = f"fm{secrets.token_hex(3)}x"
        self.subnet = f"10.{200 + os.getpid() % 50}.{secrets.randbelow(250)}"
        self.directory = directory
        self.shared = directory / "node"
        """The same path on every machine, with other files on each."""
        self.data_dir = self.shared / "data"
        self.machines: list[Machine] = []
        self._env = dict(env)
        self.shared.mkdir()
        self.token_path = directory / "token"
        self.token_path.write_text(secrets.token_hex(32))
        self.token_path.chmod(0o600)
        run_ip("link", "add", self.name, "type", "bridge")
        run_ip("addr", "add", f"{self.subnet}.1/24", "dev", self.name)
        run_ip("link", "set", self.name, "up")

    def add(self, role: Role) -> Machine:
        """Another machine, running."""
        machine = Machine(self, len(self.machines) + 1, role)
        self.machines.append(machine)
        machine.power_on()
        return machine

    def environment(self, machine: Machine) -> dict[str, str]:
        """Ours without what configures a service or a Ray cluster, then this machine's."""
        settings = {name.upper() for name in Settings.model_fields} - {"MODEL_DIR"}
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in settings and not name.startswith("RAY_")
        }
        haproxy, gateway = self.shared / "haproxy", f"{self.subnet}.1"
        return {
            **kept,
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "token",
            "NAME": machine.name,
            "ROLE": machine.role,
            "OWN": str(machine.own),
            "SHARED": str(self.shared),
            "NODE_SCRIPT": str(NODE_SCRIPT),
            "NODE_IP": machine.ip,
            "HEAD_IP": self.machines[0].ip if self.machines else machine.ip,
            "RAY_AUTH_TOKEN_PATH": str(self.token_path),
            # The machines share /tmp, which real ones do not.
            "RAY_TMPDIR": str(self.shared / "ray"),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(haproxy / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(haproxy / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(haproxy),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(haproxy / "state"),
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(haproxy / "metrics.sock"),
            # A busy machine must not fail the test.
            "RAY_raylet_start_wait_time_s": "60",  # then the node is started anew
            "RAY_agent_register_timeout_ms": "300000",
            "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
            "DATA_DIR": str(self.data_dir),
            "WORKSPACE_DIR": str(self.shared),
            **{name: value.replace("GATEWAY", gateway) for name, value in self._env.items()},
        }

    def remove(self) -> None:
        """End every machine and take the network down."""
        for machine in self.machines:
            machine.cut_power()
        for machine in self.machines:
            with suppress(subprocess.CalledProcessError):
                run_ip("netns", "delete", machine.name)
        run_ip("link", "delete", self.name)


@contextmanager
def running_cluster(
    roles: Sequence[Role], *, env: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """A cluster of these machines, the head first; removed at the end.

    Args:
        roles: what each machine is.
        env: added to every machine's environment; `GATEWAY` becomes this process's address.
    """
    # Not pytest's directory: a Unix socket's path ends at 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="fmc", dir="/tmp"))
    cluster = Cluster(directory, env or {})
    try:
        for role in roles:
            # One after the other: raylet gives up when its agents take half a minute to start.
            cluster.add(role).wait_until_up()
        yield cluster
    except BaseException:
        for machine in cluster.machines:
            print(f"--- {machine.name}, {machine.role}:\n{machine.log()}")
        raise
    finally:
        cluster.remove()
        shutil.rmtree(directory, ignore_errors=True)


def poll(what: str, holds: Callable[[], bool], *, patience_s: float) -> float:
    """Wait until something holds; returns after how many seconds it did."""
    started_s = time.monotonic()
    while not holds():
        if time.monotonic() - started_s > patience_s:
            pytest.fail(f"not within {patience_s:g} s: {what}")
        time.sleep(0.2)
    return time.monotonic() - started_s
