"""The pods of `deploy/rayservice.yaml` as containers on this machine, run as a kubelet runs them.

Each pod has a network namespace on one bridge, volumes, and containers that runc starts with what
the manifest and KubeRay give them: command, environment, user, limits, seccomp, mounts. What is
missing of Kubernetes: its scheduler, its API (so no autoscaler), Services and network policies.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import yaml  # type: ignore[import-untyped]

from tests.cluster.cluster import DEPLOY, PORT, START_PATIENCE_S, poll, run_ip
from tests.cluster.cluster_load import API_KEY
from tests.cluster.kuberay import (
    CLUSTER,
    DASHBOARD_PORT,
    DOMAIN,
    HEAD_ADDRESS,
    NAMESPACE,
    ContainerSpec,
    PodSpec,
    Tree,
    pod_of,
)
from tests.cluster.name_server import NameServer
from tests.image.container import DEVICES, MASKED_PATHS, Image, bind, output

_SECCOMP = Path("/usr/share/containers/seccomp.json")
_PERIOD_US = 100_000
_OPERATOR_TIMEOUT_S = 2


class Pod:
    """One pod and its kubelet, which starts Ray's container again in place when it ends."""

    def __init__(self, cluster: PodCluster, spec: PodSpec, number: int) -> None:
        self._cluster = cluster
        self.spec = spec
        self.name = f"{cluster.name}p{number}"
        self.ip = f"{cluster.subnet}.{number + 10}"
        self.url = f"http://{self.ip}:{PORT}"
        self.waiting_peak_bytes = 0
        """The most memory of the container that waits for the head."""
        self._directory = cluster.directory / self.name
        self._volumes = self._directory / "volumes"
        self.log_path = self._directory / "log"
        self.n_starts = 0
        """Of Ray's container."""
        self._removed = threading.Event()
        self._volumes.mkdir(parents=True)
        _network(cluster, self.name, self.ip)
        self._make_volumes()
        self._kubelet = threading.Thread(target=self._run, daemon=True)
        self._kubelet.start()

    @property
    def role(self) -> str:
        """`head` or the name of the group."""
        return self.spec.role

    def probe(self, name: str) -> bool:
        """Ask as the kubelet asks: the pod's address, no key, no token."""
        get = self.spec.probes[name]["httpGet"]
        port = {"serve": PORT}.get(get["port"], get["port"])
        try:
            url = f"http://{self.ip}:{port}{get['path']}"
            answer = httpx.get(
                url, timeout=self.spec.probes[name]["timeoutSeconds"], trust_env=False
            )
        except httpx.TransportError:
            return False
        return 200 <= answer.status_code < 400

    def kill(self) -> None:
        """SIGKILL all of Ray's container, as the kernel does when memory runs out."""
        output("runc", "kill", self.name, "KILL")

    def delete(self) -> float:
        """Delete the pod as the kubelet does; returns after how many seconds it had ended."""
        started_s = time.monotonic()
        self._removed.set()
        if self.spec.pre_stop:
            output("runc", "exec", self.name, *self.spec.pre_stop)
        output("runc", "kill", self.name, "TERM")
        self._kubelet.join(self.spec.grace_s - (time.monotonic() - started_s))
        took_s = time.monotonic() - started_s
        if self._kubelet.is_alive():
            self.kill()
        self._kubelet.join()
        self.remove()
        return took_s

    def remove(self) -> None:
        """Whatever is left of it goes at once, and sends no farewell, as when its node dies."""
        self._removed.set()
        run_ip("link", "delete", self.name)
        for name in (self.name, f"{self.name}w"):
            with suppress(subprocess.CalledProcessError):
                output("runc", "kill", name, "KILL")
        self._kubelet.join()
        run_ip("netns", "delete", self.name)
        output("umount", str(self._volumes / "shared-mem"))

    def statuses(self) -> list[dict[str, str]]:
        """`/proc/<pid>/status` of every process of Ray's container."""
        found = []
        for pid in json.loads(output("runc", "ps", "--format", "json", self.name)):
            with suppress(FileNotFoundError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                pairs = (line.partition(":") for line in lines)
                found.append({key: value.strip() for key, _, value in pairs})
        return found

    def working_set_bytes(self) -> int:
        """Memory that the kernel cannot take back, as the kubelet counts it."""
        stats = json.loads(output("runc", "events", "--stats", self.name))["data"]["memory"]
        raw = stats["raw"]
        return int(stats["usage"]["usage"]) - int(
            raw.get("total_inactive_file", raw.get("inactive_file", 0))
        )

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in Ray's container."""
        command = ("runc", "exec", self.name, *command)
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def log(self, n_bytes: int = 6000) -> str:
        """The end of what its containers have written."""
        return self.log_path.read_bytes()[-n_bytes:].decode("utf-8", "replace")

    def _run(self) -> None:
        if self.spec.waiting is not None:
            self._run_waiting(self.spec.waiting)
        while not self._removed.is_set():
            self.n_starts += 1
            self._wait(self._start(self.spec.ray, self.name))
            self._removed.wait(1)

    def _run_waiting(self, spec: ContainerSpec) -> None:
        name = f"{self.name}w"
        process, image = self._start(spec, name)
        while process.poll() is None:
            with suppress(subprocess.CalledProcessError, json.JSONDecodeError):
                stats = json.loads(output("runc", "events", "--stats", name))
                peak = stats["data"]["memory"]["usage"].get("max", 0)
                self.waiting_peak_bytes = max(self.waiting_peak_bytes, peak)
            time.sleep(0.5)
        self._wait((process, image))

    def _start(self, spec: ContainerSpec, name: str) -> tuple[subprocess.Popen[bytes], Image]:
        """Start a container with a writable root of its own."""
        image = Image(self._cluster.image)
        bundle = self._directory / name
        bundle.mkdir(exist_ok=True)
        (bundle / "config.json").write_text(json.dumps(self._runtime_spec(spec, name, image)))
        with self.log_path.open("ab") as log:
            process = subprocess.Popen(
                ["runc", "run", "--bundle", str(bundle), name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return process, image

    def _wait(self, started: tuple[subprocess.Popen[bytes], Image]) -> None:
        process, image = started
        status = process.wait()
        image.close()
        with self.log_path.open("a") as log:
            log.write(f"--- a container ended with {status}\n")

    def _make_volumes(self) -> None:
        """Owned by root, and by the group `fsGroup`, as the kubelet makes them."""
        group = self.spec.security["fsGroup"]
        for volume in self.spec.volumes:
            path = self._volumes / volume["name"]
            if "persistentVolumeClaim" in volume:
                path.symlink_to(self._cluster.disk)
                continue
            path.mkdir()
            for name, text in self._cluster.config_map(volume).items():
                (path / name).write_text(text)
                (path / name).chmod(volume["configMap"]["defaultMode"])
                os.chown(path / name, 0, group)
        for name in ("shared-mem", "ray-logs"):
            (self._volumes / name).mkdir()
        size = f"size={self.spec.ray.memory_bytes}"
        shared = self._volumes / "shared-mem"
        output("mount", "-t", "tmpfs", "-o", size, "tmpfs", str(shared))
        for path in self._volumes.iterdir():
            os.chown(path, 0, group)
            path.chmod(0o2775 if path.is_symlink() else 0o2777)

    def _runtime_spec(self, spec: ContainerSpec, name: str, image: Image) -> Tree:
        security = self.spec.security
        inherited = dict(each.split("=", 1) for each in image.config["Env"])
        env = inherited | {"HOSTNAME": self.name} | spec.env
        resources: Tree = {"memory": {"limit": spec.memory_bytes}}
        if spec.cpus is not None:
            resources["cpu"] = {"quota": int(spec.cpus * _PERIOD_US), "period": _PERIOD_US}
        namespaces: list[Tree] = [
            {"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")
        ]
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {
                    "uid": security["runAsUser"],
                    "gid": security["runAsGroup"],
                    "additionalGids": [security["fsGroup"]],
                },
                "args": spec.command,
                "env": [f"{key}={value}" for key, value in env.items()],
                "cwd": image.config["WorkingDir"],
                # runc gives no capability that is not listed.
                "capabilities": {} if security["capabilities"] == {"drop": ["ALL"]} else None,
                "noNewPrivileges": not security["allowPrivilegeEscalation"],
            },
            "root": {"path": str(image.root), "readonly": False},
            "hostname": self.name,
            "mounts": [
                *DEVICES,
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
                {
                    "destination": "/sys/fs/cgroup",
                    "type": "cgroup",
                    "source": "cgroup",
                    "options": ["nosuid", "noexec", "nodev", "ro"],
                },
                bind(self._cluster.resolv_conf, "/etc/resolv.conf", "ro"),
                *(
                    bind((self._volumes / volume).resolve(), path, "rw")
                    for path, volume in sorted(spec.mounts.items())
                ),
            ],
            "linux": {
                "namespaces": [
                    *namespaces,
                    {"type": "network", "path": f"/var/run/netns/{self.name}"},
                ],
                "cgroupsPath": f"/{name}",
                "resources": resources,
                "maskedPaths": MASKED_PATHS,
                **({"seccomp": _seccomp()} if "seccompProfile" in security else {}),
            },
        }


class PodCluster:
    """The manifest's pods on one bridge, and what the operator does with them."""

    def __init__(self, image: str, directory: Path, changes: Mapping[str, str]) -> None:
        """Prepare.

        Args:
            image: in buildah's store, for every pod.
            directory: for volumes and logs.
            changes: texts of `serveConfigV2`, which it has once, and what replaces them.
        """
        self.image = image
        self.directory = directory
        self.name = f"fm{os.getpid() % 100_000}"
        self.subnet = f"10.{200 + os.getpid() % 50}.{secrets.randbelow(250)}"
        self.resolv_conf = directory / "resolv.conf"
        """Of every pod."""
        self.disk = directory / "disk"
        """The volume of the index."""
        self.pods: dict[str, Pod] = {}
        self._token = secrets.token_hex(32)
        self._redis_password = secrets.token_hex(16)
        self._numbers = iter(range(1, 200))
        documents = list(yaml.safe_load_all((DEPLOY / "rayservice.yaml").read_text("utf-8")))
        self._service: Tree = documents[0]
        self._others: list[Tree] = documents[1:]
        self._config = str(self._service["spec"]["serveConfigV2"])
        for shipped, here in changes.items():
            assert self._config.count(shipped) == 1, shipped
            self._config = self._config.replace(shipped, here)
        self.disk.mkdir()
        (self.disk / "lost+found").mkdir(mode=0o700)  # as on a new ext4
        run_ip("link", "add", self.name, "type", "bridge")
        run_ip("addr", "add", f"{self.subnet}.1/24", "dev", self.name)
        run_ip("link", "set", self.name, "up")
        search = f"{NAMESPACE}.{DOMAIN} {DOMAIN} cluster.local"
        self.resolv_conf.write_text(
            f"nameserver {self.subnet}.1\nsearch {search}\noptions ndots:5\n"
        )
        self._names = NameServer(f"{self.subnet}.1")
        self._redis = self._start_redis()

    def create(self, role: str) -> Pod:
        """Make a pod of this group as the operator does; its address is new, and it lives."""
        cluster = self._service["spec"]["rayClusterConfig"]
        [group] = [
            group
            for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
            if group.get("groupName", "head") == role
        ]
        keys = {
            "faiss-memory": {"api-key": API_KEY},
            "faiss-memory-redis": {"password": self._redis_password},
            CLUSTER: {"auth_token": self._token},
        }
        pod = Pod(self, pod_of(self._service, group, keys), next(self._numbers))
        self.pods[role] = pod
        if role == "head":
            self._names.addresses[HEAD_ADDRESS] = pod.ip
        poll(f"{role} lives", lambda: pod.probe("livenessProbe"), patience_s=START_PATIENCE_S)
        return pod

    def deploy(self) -> None:
        """Give the head `serveConfigV2` until it takes it, as the operator does."""
        body = json.dumps(yaml.safe_load(self._config))
        poll("serveConfigV2 taken", lambda: self._put(body), patience_s=START_PATIENCE_S)

    def application(self) -> Tree:
        """What the operator sees of the application; empty while it sees nothing."""
        try:
            answer = self._operator("GET", "?api_type=declarative").raise_for_status().json()
        except httpx.HTTPError:
            return {}
        found: Tree = answer["applications"].get("default", {})
        return found

    def config_map(self, volume: Tree) -> dict[str, str]:
        """Files of a volume that is one."""
        name = volume.get("configMap", {}).get("name")
        [data] = [
            document["data"]
            for document in self._others
            if document["kind"] == "ConfigMap" and document["metadata"]["name"] == name
        ] or [{}]
        return dict(data)

    def remove(self) -> None:
        """End every pod and take the network down."""
        for pod in self.pods.values():
            pod.remove()
        self._redis.send_signal(signal.SIGKILL)
        self._redis.wait()
        self._names.close()
        for link in (f"{self.name}r", self.name):
            run_ip("link", "delete", link)
        run_ip("netns", "delete", f"{self.name}r")

    def _put(self, body: str) -> bool:
        try:
            return self._operator("PUT", "", content=body).is_success
        except httpx.TransportError:
            return False

    def _operator(self, method: str, query: str, **more: Any) -> httpx.Response:
        url = f"http://{self.pods['head'].ip}:{DASHBOARD_PORT}/api/serve/applications/{query}"
        headers = {
            "x-ray-authorization": f"Bearer {self._token}",
            "Content-Type": "application/json",
        }
        timeout_s = _OPERATOR_TIMEOUT_S
        return httpx.request(
            method, url, headers=headers, timeout=timeout_s, trust_env=False, **more
        )

    def _start_redis(self) -> subprocess.Popen[bytes]:
        """The manifest's command, with this machine's `redis-server`."""
        [redis] = [document for document in self._others if document["kind"] == "StatefulSet"]
        [container] = redis["spec"]["template"]["spec"]["containers"]
        ip = f"{self.subnet}.2"
        _network(self, f"{self.name}r", ip)
        self._names.addresses[f"{redis['metadata']['name']}.{NAMESPACE}.{DOMAIN}"] = ip
        return subprocess.Popen(
            ["ip", "netns", "exec", f"{self.name}r", *container["args"]],
            env={**os.environ, "REDIS_PASSWORD": self._redis_password},
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
        )


def _network(cluster: PodCluster, name: str, ip: str) -> None:
    run_ip("netns", "add", name)
    run_ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
    run_ip("link", "set", name, "master", cluster.name, "up")
    run_ip("-n", name, "addr", "add", f"{ip}/24", "dev", "eth0")
    run_ip("-n", name, "link", "set", "eth0", "up")
    run_ip("-n", name, "link", "set", "lo", "up")
    # Leads nowhere; without one Ray waits half a minute for a name server.
    run_ip("-n", name, "route", "add", "default", "via", f"{cluster.subnet}.1")


def _seccomp() -> Tree:
    """The profile of Debian's container tools, for a process without capabilities."""
    profile = json.loads(_SECCOMP.read_text())
    rules = [
        {key: rule[key] for key in ("names", "action", "args", "errnoRet") if rule.get(key)}
        for rule in profile["syscalls"]
        if not rule["includes"].get("caps")
        and "amd64" in rule["includes"].get("arches", ["amd64"])
        and "amd64" not in rule["excludes"].get("arches", [])
    ]
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": rules,
    }


@contextmanager
def running_pods(image: str, changes: Mapping[str, str]) -> Iterator[PodCluster]:
    """Every group's first pod, with the application running; removed at the end."""
    # Not pytest's directory: a Unix socket's path ends at 107 bytes.
    directory = Path("/tmp") / f"fmp{os.getpid()}"
    directory.mkdir(mode=0o755)
    cluster = PodCluster(image, directory, changes)
    try:
        for role in ("head", "index", "embedder"):
            cluster.create(role)
            if role == "head":
                cluster.deploy()
        yield cluster
    except BaseException:
        for pod in cluster.pods.values():
            print(f"--- {pod.name}, {pod.role}:\n{pod.log()}")
        raise
    finally:
        cluster.remove()
        shutil.rmtree(directory, ignore_errors=True)
