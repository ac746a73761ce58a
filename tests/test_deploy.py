"""What `deploy/` says: the cluster runs what one machine runs, and Kubernetes understands it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import yaml  # type: ignore[import-untyped]
from jsonschema import Draft202012Validator
from ray.serve.schema import ServeDeploySchema

from deployments.import_body import _CHUNK_LINES
from deployments.settings import Settings
from scripts.ray_switches import working_haproxy
from tests.rayservice_schema import RAY_SERVICE

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"

Tree = dict[str, Any]

DIFFERENT = {
    "Ingress": {"num_replicas", "max_replicas_per_node"},
    "Embedder": {"autoscaling_config", "ray_actor_options"},
    "Index": {"ray_actor_options"},
}
"""Options that say where a deployment runs; all others are those of one machine."""


def _load(path: Path) -> Tree:
    return cast(Tree, yaml.safe_load(path.read_text("utf-8")))


def _documents() -> list[Tree]:
    return list(yaml.safe_load_all((DEPLOY / "rayservice.yaml").read_text("utf-8")))


def _deployments(config: Tree) -> dict[str, Tree]:
    [application] = config["applications"]
    return {deployment["name"]: deployment for deployment in application["deployments"]}


ONE_MACHINE = _load(ROOT / "serve_config.yaml")
CLUSTER = _load(DEPLOY / "serve_cluster.yaml")
RAY_SERVICE_DOCUMENT, *OTHERS = _documents()
RAY_CLUSTER: Tree = RAY_SERVICE_DOCUMENT["spec"]["rayClusterConfig"]
GROUPS: list[Tree] = [RAY_CLUSTER["headGroupSpec"], *RAY_CLUSTER["workerGroupSpecs"]]


def test_serve_accepts_the_cluster_configuration() -> None:
    ServeDeploySchema.model_validate(CLUSTER)


def test_a_cluster_differs_from_one_machine_only_in_where_the_parts_run() -> None:
    here, there = _deployments(ONE_MACHINE), _deployments(CLUSTER)
    assert here.keys() == there.keys() == DIFFERENT.keys()
    for name, apart in DIFFERENT.items():
        common = [
            {key: value for key, value in options.items() if key not in apart}
            for options in (here[name], there[name])
        ]
        assert common[0] == common[1]
    assert (
        ONE_MACHINE["applications"][0]["import_path"] == (CLUSTER["applications"][0]["import_path"])
    )
    assert ONE_MACHINE["logging_config"] == CLUSTER["logging_config"]


def test_the_builder_learns_where_a_cluster_listens_and_so_refuses_to_run_open() -> None:
    arguments = CLUSTER["applications"][0]["args"]
    assert (
        arguments.items() >= {key: CLUSTER["http_options"][key] for key in ("host", "port")}.items()
    )
    with pytest.raises(ValueError, match="API_KEY"):
        Settings(**arguments, api_key="")


def test_an_import_alone_asks_for_more_than_the_least_embedders() -> None:
    arguments = CLUSTER["applications"][0]["args"]
    chunks = arguments["import_chunks"]
    assert chunks * _CHUNK_LINES < arguments["max_queued_texts"]
    scaling = _deployments(CLUSTER)["Embedder"]["autoscaling_config"]
    assert chunks > scaling["min_replicas"] * scaling["target_ongoing_requests"]


def test_each_part_asks_for_the_resource_that_its_node_offers() -> None:
    offered = {
        group["groupName"]: {name for name in group["resources"] if name.startswith("faiss")}
        for group in GROUPS[1:]
    }
    script = (DEPLOY / "node.sh").read_text("utf-8")
    for deployment, group in (("Index", "index"), ("Embedder", "embedder")):
        asked = _deployments(CLUSTER)[deployment]["ray_actor_options"]["resources"]
        assert set(asked) == offered[group]
        assert json.dumps(asked) in script


def test_the_manifest_serves_what_the_cluster_configuration_says() -> None:
    assert yaml.safe_load(RAY_SERVICE_DOCUMENT["spec"]["serveConfigV2"]) == CLUSTER


@pytest.mark.skipif(working_haproxy() is None, reason="HAProxy does not run here")
def test_haproxy_starts_with_the_script_and_listens_for_other_machines(tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        "defaults\n    mode http\n    timeout client 1s\n    timeout server 1s\n"
        "    timeout connect 1s\nfrontend http_frontend\n    bind 127.0.0.1:8000\n"
    )
    checked = subprocess.run(
        ["sh", str(DEPLOY / "haproxy.sh"), "-c", "-f", str(config)],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert re.search(r"bind 0\.0\.0\.0:8000\n", config.read_text())


def test_pods_run_haproxy_with_the_script_that_plain_machines_use() -> None:
    [script] = [each["data"] for each in OTHERS if each["kind"] == "ConfigMap"]
    assert script == {"haproxy.sh": (DEPLOY / "haproxy.sh").read_text("utf-8")}
    on_machines = (DEPLOY / "node.sh").read_text("utf-8")
    for entry in GROUPS[0]["template"]["spec"]["containers"][0]["env"]:
        if entry["name"].startswith("RAY_") and not entry["name"].endswith("_PATH"):
            assert re.search(rf"{entry['name']}=\"?{entry['value']}\b", on_machines), entry


def test_the_manifest_is_a_ray_service() -> None:
    errors = [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
        for error in Draft202012Validator(RAY_SERVICE).iter_errors(RAY_SERVICE_DOCUMENT)
    ]
    assert not errors


def test_no_second_cluster_ever_waits_for_the_volume() -> None:
    assert RAY_SERVICE_DOCUMENT["spec"]["upgradeStrategy"] == {"type": "None"}
    index = GROUPS[1]
    assert (index["replicas"], index["minReplicas"], index["maxReplicas"]) == (1, 1, 1)
    [claim] = [each for each in OTHERS if each["kind"] == "PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    holders = [
        group.get("groupName")
        for group in GROUPS
        for volume in group["template"]["spec"].get("volumes", [])
        if volume.get("persistentVolumeClaim", {}).get("claimName") == claim["metadata"]["name"]
    ]
    assert holders == ["index"]


def test_every_pod_has_the_same_settings_and_secrets_come_from_secrets() -> None:
    environments = [
        {entry["name"]: entry for entry in group["template"]["spec"]["containers"][0]["env"]}
        for group in GROUPS
    ]
    assert environments[0] == environments[1] == environments[2]
    assert "secretKeyRef" in environments[0]["API_KEY"]["valueFrom"]
    assert RAY_CLUSTER["authOptions"] == {"mode": "token"}
    # `auto` means what the builder's node can do, which need not be what the others can.
    assert environments[0]["MODEL_PRECISION"]["value"] in ("fp32", "int8")


def test_disruption_budgets_select_the_pods_they_are_for() -> None:
    budgets = [each for each in OTHERS if each["kind"] == "PodDisruptionBudget"]
    selected = {
        budget["metadata"]["name"]: [
            group["groupName"]
            for group in GROUPS[1:]
            if budget["spec"]["selector"]["matchLabels"].items()
            <= group["template"]["metadata"]["labels"].items()
        ]
        for budget in budgets
    }
    assert selected == {
        "faiss-memory-index": ["index"],
        "faiss-memory-embedder": ["embedder"],
    }


def test_a_pod_has_time_to_drain_before_it_is_killed() -> None:
    stop_s = max(d["graceful_shutdown_timeout_s"] for d in _deployments(CLUSTER).values())
    for group in GROUPS[1:]:
        pod = group["template"]["spec"]
        [command] = [c["lifecycle"]["preStop"]["exec"]["command"] for c in pod["containers"]]
        assert pod["terminationGracePeriodSeconds"] >= int(command[1]) + 2 * stop_s


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubernetes_knows_every_field_of_every_pod() -> None:
    """`kubectl set image --local` reads into Kubernetes' own types, which drop what they lack."""
    templates = {group.get("groupName", "head"): group["template"] for group in GROUPS}
    [redis] = [each for each in OTHERS if each["kind"] == "StatefulSet"]
    templates["redis"] = redis["spec"]["template"]
    for name, template in templates.items():
        workload = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {
                "selector": {"matchLabels": template["metadata"]["labels"]},
                "template": template,
            },
        }
        [container] = template["spec"]["containers"]
        done = subprocess.run(
            [
                *("kubectl", "set", "image", "--local", "-o", "json", "-f", "-"),
                f"{container['name']}={container['image']}-other",
            ],
            input=json.dumps(workload),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        container["image"] += "-other"
        assert _missing(template, json.loads(done.stdout)["spec"]["template"]) == []


def _missing(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Where a tree that went through Kubernetes' types has lost something of ours."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [
            lost
            for key, value in ours.items()
            for lost in _missing(value, theirs.get(key), f"{path}.{key}")
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = zip(ours, theirs, strict=True)
        return [lost for pair in pairs for lost in _missing(*pair, path=f"{path}[]")]
    return [] if ours == theirs else [path]


def test_the_scripts_are_clean() -> None:
    scripts = [str(path) for path in DEPLOY.rglob("*.sh")]
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
