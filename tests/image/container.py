"""The service as the image runs it: a real container, without Docker.

`deploy/image/build.sh` puts the image into buildah's store; runc starts it in namespaces of its
own with what docker-compose.yml gives it: its memory limit and `/dev/shm`, a read-only root, no
capability, no new privileges.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.service import Service

UID = 10001
MEMORY_BYTES = 2 * 2**30
SHM_BYTES = 128 * 2**20

_CLONE_NEWNET = 0x40000000
MASKED_PATHS = ["/proc/kcore", "/proc/keys", "/proc/sched_debug", "/sys/firmware"]


def tmpfs(path: str, *options: str) -> dict[str, Any]:
    """A mount of a new file system in memory."""
    return {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": list(options)}


DEVICES = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    tmpfs("/dev", "nosuid", "mode=755", "size=65536k"),
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
    },
]
"""Mounts of every container."""


def why_not(variable: str = "SERVICE_IMAGE", make: str = "make image-test") -> str | None:
    """Why no container is run here, in words; None when one can be.

    Args:
        variable: of the environment, names the image.
        make: the command that builds it.
    """
    image = os.environ.get(variable)
    if not image:
        return f"takes minutes: `{make}` builds the image; {variable} names it"
    if os.geteuid() != 0:
        return "starting a container without Docker needs root"
    missing = [name for name in ("buildah", "runc") if shutil.which(name) is None]
    if missing:
        return f"no {' and no '.join(missing)} on this machine"
    if subprocess.run(["buildah", "inspect", image], capture_output=True, check=False).returncode:
        return f"no image {image} in buildah's store: deploy/image/build.sh makes it"
    return None


class Image:
    """An image of buildah's store, its file system mounted to run containers from."""

    def __init__(self, name: str) -> None:
        self._container = output("buildah", "from", "--pull-never", name)
        self.root = Path(output("buildah", "mount", self._container))
        inspected = json.loads(output("buildah", "inspect", "--type", "image", name))
        self.config: dict[str, Any] = inspected["Docker"]["config"]

    def close(self) -> None:
        """Let go of the file system."""
        output("buildah", "rm", self._container)


class Container(Service):
    """One container; `start`, look and prod, `stop`, as with any other service."""

    def __init__(
        self,
        image: Image,
        directory: Path,
        *,
        env: Mapping[str, str] | None = None,
        host_network: bool = False,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        """Prepare a container with its data in `directory/data`, kept from start to start.

        Args:
            image: what runs.
            directory: has `data` and `workspace`, or gets them.
            env: variables beside the image's own.
            host_network: this machine's, on loopback, and the data under the path that it has on
                this machine; otherwise a network of its own with nothing in it but loopback, where
                `network` leads.
            memory_bytes: the memory limit.
        """
        super().__init__(directory / "data", directory / "workspace", env=env)
        self._image = image
        self._host_network = host_network
        self._memory_bytes = memory_bytes
        self._bundle = directory / "bundle"
        self.name = f"faiss-memory-{uuid.uuid4().hex[:8]}"
        for path in (self.data_dir, self.workspace_dir, self._bundle):
            path.mkdir(parents=True, exist_ok=True)
        os.chown(self.data_dir, UID, UID)
        self.workspace_dir.chmod(0o755)
        self._data_path = str(self.data_dir) if host_network else "/data"
        if not host_network:
            self.base_url = "http://127.0.0.1:8000"

    @property
    def main_pid(self) -> int:
        """The container's process 1, by its number outside."""
        return int(json.loads(output("runc", "state", self.name))["pid"])

    def pids(self) -> list[int]:
        """Every process of the container, by its number outside."""
        listed: list[int] = json.loads(output("runc", "ps", "--format", "json", self.name))
        return listed

    def launch(self) -> None:
        """Run it; runc hands signals on and ends with the container's status."""
        (self._bundle / "config.json").write_text(json.dumps(self._runtime_spec()))
        with self.log_path.open("ab") as log:
            self._launcher = subprocess.Popen(
                ["runc", "run", "--bundle", str(self._bundle), self.name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.DEVNULL,  # the logs are on stdout
                start_new_session=True,
            )

    def kill_main(self, signal_number: int) -> None:
        """Signal the container's process 1 from outside; all the others die with it."""
        os.kill(self.main_pid, signal_number)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as its user."""
        return subprocess.run(
            ["runc", "exec", self.name, *command], capture_output=True, text=True, check=False
        )

    @contextmanager
    def network(self) -> Iterator[None]:
        """This thread, and those it starts, are in the container's network."""
        libc = ctypes.CDLL(None, use_errno=True)
        with (
            Path("/proc/self/ns/net").open() as ours,
            Path(f"/proc/{self.main_pid}/ns/net").open() as theirs,
        ):
            assert libc.setns(theirs.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert libc.setns(ours.fileno(), _CLONE_NEWNET) == 0

    def _runtime_spec(self) -> dict[str, Any]:
        image = self._image.config
        own = {"DATA_DIR": self._data_path}
        if self._host_network:
            own |= {"HOST": "127.0.0.1", "PORT": str(self.port)}
        namespaces = ["pid", "ipc", "uts", "mount", *([] if self._host_network else ["network"])]
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": UID, "gid": UID},
                "args": [*image["Entrypoint"], *(image.get("Cmd") or [])],
                "env": [*image["Env"], *(f"{k}={v}" for k, v in {**own, **self._env}.items())],
                "cwd": image["WorkingDir"],
                "capabilities": {},
                "noNewPrivileges": True,
            },
            "root": {"path": str(self._image.root), "readonly": True},
            "hostname": "faiss-memory",
            "mounts": [
                *DEVICES,
                tmpfs("/dev/shm", "nosuid", "noexec", "mode=1777", f"size={SHM_BYTES}"),
                tmpfs("/tmp", "nosuid", "nodev", "mode=1777", "size=256m"),
                {
                    "destination": "/sys",
                    "type": "none",
                    "source": "/sys",
                    "options": ["rbind", "ro"],
                },
                bind(self.data_dir, self._data_path, "rw"),
                bind(self.workspace_dir, "/workspace", "ro"),
            ],
            "linux": {
                "namespaces": [{"type": name} for name in namespaces],
                "cgroupsPath": f"/{self.name}",
                "resources": {"memory": {"limit": self._memory_bytes}},
                "maskedPaths": MASKED_PATHS,
            },
        }


@contextmanager
def running_container(
    name: str, directory: Path, *, env: Mapping[str, str] | None = None
) -> Iterator[Container]:
    """A started container of an image, reachable on this machine's loopback."""
    image = Image(name)
    container = Container(image, directory, env=env, host_network=True)
    try:
        container.start()
        yield container
        container.stop()
    finally:
        image.close()


def bind(source: Path, path: str, mode: str) -> dict[str, Any]:
    """A mount of a file or directory of this machine; `mode` is `ro` or `rw`."""
    options = ["rbind", mode, "nosuid", "nodev"]
    return {"destination": path, "type": "bind", "source": str(source), "options": options}


def output(*command: str) -> str:
    """What a command prints that must succeed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
