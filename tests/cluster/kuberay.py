"""The pods that KubeRay makes of `deploy/rayservice.yaml`.

Written from KubeRay 1.6's `controllers/ray/common/pod.go`: what it adds to a container's command,
environment and probes, and the container that waits for the head before a worker's starts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Tree = dict[str, Any]

NAMESPACE = "default"
CLUSTER = "faiss-memory-x7k2p"
HEAD_SERVICE = f"{CLUSTER}-head-svc"
DOMAIN = "svc.cluster.local"
HEAD_ADDRESS = f"{HEAD_SERVICE}.{NAMESPACE}.{DOMAIN}"
DASHBOARD_PORT = 8265
AGENT_PORT = 52365
_SHELL = ["/bin/bash", "-c", "--"]
_WITH_A_VALUE = ("log-color", "include-dashboard", "include-log-monitor")
_UNITS = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """One container of a pod."""

    command: list[str]
    env: dict[str, str]
    memory_bytes: int
    cpus: float | None
    """None: no limit."""
    mounts: dict[str, str]
    """Name of the pod's volume by path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSpec:
    """One pod."""

    role: str
    """`head` or the name of the group."""
    security: Tree
    waiting: ContainerSpec | None
    """Runs to its end before Ray's container starts."""
    ray: ContainerSpec
    probes: dict[str, Tree]
    """`livenessProbe` and `readinessProbe`."""
    pre_stop: list[str]
    """Empty: none."""
    grace_s: int
    volumes: list[Tree]


def quantity(text: str) -> float:
    """A quantity of Kubernetes: `250m`, `2Gi`, `1`."""
    for unit, factor in _UNITS.items():
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text)


def pod_of(service: Tree, group: Tree, secrets: Mapping[str, Mapping[str, str]]) -> PodSpec:
    """What KubeRay makes of a group of the manifest.

    Args:
        service: the RayService.
        group: its head group or one of its worker groups.
        secrets: values by key, by name of the Secret; KubeRay's own is named as the cluster is.
    """
    cluster = service["spec"]["rayClusterConfig"]
    role = group.get("groupName", "head")
    spec = group["template"]["spec"]
    [container] = spec["containers"]
    fields = {
        "metadata.name": f"{CLUSTER}-{role}",
        "metadata.namespace": NAMESPACE,
        "metadata.labels['ray.io/cluster']": CLUSTER,
        "metadata.labels['ray.io/group']": group.get("groupName", "headgroup"),
    }
    command = _ray_start(cluster, group)
    entries = container["env"] + _added_env(cluster, role, command)
    env = {entry["name"]: _value(entry, secrets, fields) for entry in entries}
    limits = container["resources"]["limits"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    ray = ContainerSpec(
        command=[*_SHELL, f"ulimit -n ${{RAY_START_ULIMIT_OPEN_FILES:-65536}}; {command}"],
        env=env,
        memory_bytes=int(quantity(limits["memory"])),
        cpus=quantity(limits["cpu"]) if "cpu" in limits else None,
        mounts={**mounts, "/dev/shm": "shared-mem", **_logs(cluster, role)},
    )
    return PodSpec(
        role=role,
        security={**spec["securityContext"], **container["securityContext"]},
        waiting=None if role == "head" else _waiting(ray, mounts),
        ray=ray,
        probes={name: container[name] for name in ("livenessProbe", "readinessProbe")},
        pre_stop=container.get("lifecycle", {})
        .get("preStop", {})
        .get("exec", {})
        .get("command", []),
        grace_s=spec["terminationGracePeriodSeconds"],
        volumes=spec["volumes"],
    )


def _ray_start(cluster: Tree, group: Tree) -> str:
    params = dict(group.get("rayStartParams", {}))
    custom = {}
    for name, amount in group.get("resources", {}).items():
        if name.lower() in ("cpu", "memory"):
            option = {"cpu": "num-cpus", "memory": "memory"}[name.lower()]
            params[option] = str(math.ceil(quantity(amount)))
        else:
            custom[name] = int(quantity(amount))
    if custom:
        params["resources"] = f"'{json.dumps(custom, separators=(',', ':'))}'"
    resources = group["template"]["spec"]["containers"][0]["resources"]
    params.setdefault("memory", str(int(quantity(resources["limits"]["memory"]))))
    cpu = resources["limits"].get("cpu", resources["requests"]["cpu"])
    params.setdefault("num-cpus", str(math.ceil(quantity(cpu))))
    params.setdefault("metrics-export-port", "8080")
    params.setdefault("dashboard-agent-listen-port", str(AGENT_PORT))
    params["block"] = "true"
    if "groupName" in group:
        params.setdefault("address", f"{HEAD_ADDRESS}:6379")
    else:
        params.setdefault("dashboard-host", "0.0.0.0")
        if cluster["enableInTreeAutoscaling"]:
            params["no-monitor"] = "true"
        if "redisPassword" in cluster["gcsFaultToleranceOptions"]:
            params["redis-password"] = "$REDIS_PASSWORD"
    head = "" if "groupName" in group else "--head "
    return f"ray start {head}" + " ".join(_option(*each) for each in sorted(params.items()))


def _option(name: str, value: str) -> str:
    if value.lower() in ("true", "false") and name not in _WITH_A_VALUE:
        return f"--{name}" if value.lower() == "true" else ""
    return f"--{name}={value}"


def _added_env(cluster: Tree, role: str, command: str) -> list[Tree]:
    head = role == "head"
    fault_tolerance = cluster["gcsFaultToleranceOptions"]
    values = {
        "RAY_AUTH_MODE": cluster["authOptions"]["mode"],
        "KUBERAY_GEN_RAY_START_CMD": command,
        "RAY_PORT": "6379",
        "RAY_timeout_ms_task_wait_for_death_info": "0",
        "RAY_gcs_server_request_timeout_seconds": "5",
        "RAY_SERVE_KV_TIMEOUT_S": "5",
        "RAY_ADDRESS": f"{'127.0.0.1' if head else HEAD_ADDRESS}:6379",
        "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
        "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE": "1",
    }
    if head:
        values["RAY_external_storage_namespace"] = "b1946ac9-2f36-4b5c-9d3e-0f6b8f0c7a11"
        v2 = cluster["autoscalerOptions"]["version"] == "v2"
        values["RAY_enable_autoscaler_v2"] = str(v2).lower()
        values["RAY_REDIS_ADDRESS"] = fault_tolerance["redisAddress"]
        values["RAY_USAGE_STATS_EXTRA_TAGS"] = "kuberay_version=v1.6.0;kuberay_crd=RayService"
    else:
        values["RAY_gcs_rpc_server_reconnect_timeout_s"] = "600"
        values |= {"FQ_RAY_IP": HEAD_ADDRESS, "RAY_IP": HEAD_SERVICE}
    fields = {
        "RAY_CLUSTER_NAME": "metadata.labels['ray.io/cluster']",
        "RAY_CLUSTER_NAMESPACE": "metadata.namespace",
        "RAY_CLOUD_INSTANCE_ID": "metadata.name",
        "RAY_NODE_TYPE_NAME": "metadata.labels['ray.io/group']",
    }
    token = {"secretKeyRef": {"name": CLUSTER, "key": "auth_token"}}
    return [
        *({"name": name, "value": value} for name, value in values.items()),
        *(
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
            for name, path in fields.items()
        ),
        {"name": "RAY_AUTH_TOKEN", "valueFrom": token},
        *([{"name": "REDIS_PASSWORD", **fault_tolerance["redisPassword"]}] if head else []),
    ]


def _value(entry: Tree, secrets: Mapping[str, Mapping[str, str]], fields: Mapping[str, str]) -> str:
    source = entry.get("valueFrom", {})
    if "secretKeyRef" in source:
        return secrets[source["secretKeyRef"]["name"]][source["secretKeyRef"]["key"]]
    if "fieldRef" in source:
        return fields[source["fieldRef"]["fieldPath"]]
    return str(entry["value"])


def _logs(cluster: Tree, role: str) -> dict[str, str]:
    """The head's logs are shared with the autoscaler."""
    return {"/tmp/ray": "ray-logs"} if role == "head" and cluster["enableInTreeAutoscaling"] else {}


def _waiting(ray: ContainerSpec, mounts: dict[str, str]) -> ContainerSpec:
    script = f"until ray health-check --address {HEAD_ADDRESS}:6379; do sleep 5; done"
    return ContainerSpec(
        command=[*_SHELL, script],
        env=ray.env,
        memory_bytes=256 * 2**20,
        cpus=0.2,
        mounts=mounts,
    )
