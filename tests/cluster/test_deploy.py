"""What `deploy/` says: the cluster runs what one machine runs, and Kubernetes understands it."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import yaml  # type: ignore[import-untyped]
from ray._private.ray_constants import RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
from ray.serve.schema import ServeDeploySchema

from deployments.calls.parcels import PIECE_BYTES
from deployments.settings import Settings
from deployments.transfer.import_body import _CHUNK_LINES
from scripts.launcher.ray_switches import variables_in, working_haproxy
from tests import ROOT
from tests.cluster.kubernetes_schema import VERSIONS, problems, schema_of, schema_of_crd
from tests.cluster.rayservice_schema import RAY_SERVICE

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


def test_rays_variables_are_the_same_on_one_machine_on_plain_machines_and_in_pods() -> None:
    shared = variables_in("ray.env") | variables_in("haproxy.env")
    script = (DEPLOY / "node.sh").read_text("utf-8")
    exported = script[script.index("# As on one machine") : script.index("set +a")]
    files = re.findall(r"^\. (\S+)$", exported, re.M)
    assert files == [f"scripts/launcher/variables/{name}.env" for name in ("ray", "haproxy")]
    read = subprocess.run(
        ["sh", "-c", "set -a; " + "; ".join(f". ./{file}" for file in files) + "; env"],
        cwd=ROOT,
        env={},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shared.items() <= dict(line.split("=", 1) for line in read.stdout.splitlines()).items()
    for group in GROUPS:
        environment = group["template"]["spec"]["containers"][0]["env"]
        given = {entry["name"]: entry.get("value") for entry in environment}
        assert shared.items() <= given.items()
        own = {name for name in given if name.startswith("RAY_")} - shared.keys()
        for name in own - {"RAY_SERVE_HAPROXY_BINARY_PATH"}:
            assert f"{name}={given[name]}" in script, name


def test_only_the_head_reaches_redis_and_no_command_line_tells_its_password() -> None:
    [redis] = [each["spec"]["template"] for each in OTHERS if each["kind"] == "StatefulSet"]
    [policy] = [
        each["spec"]
        for each in OTHERS
        if each["kind"] == "NetworkPolicy"
        and each["spec"]["podSelector"]["matchLabels"] == redis["metadata"]["labels"]
    ]
    [rule] = policy["ingress"]
    [client] = rule["from"]
    head = RAY_SERVICE_DOCUMENT["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]
    assert client["podSelector"]["matchLabels"] == head["metadata"]["labels"]
    [command, *given] = redis["spec"]["containers"][0]["args"][-1].splitlines()
    assert command == "exec redis-server - <<END"
    assert 'requirepass "$REDIS_PASSWORD"' in given


def test_haproxys_files_on_a_plain_machine_are_in_a_directory_of_their_own() -> None:
    script = (DEPLOY / "node.sh").read_text("utf-8")
    assert "mktemp -d /tmp/fm-haproxy-XXXXXX" in script
    places = set(re.findall(r"RAY_SERVE_HAPROXY_\w+=\"\$haproxy", script))
    written = ("CONFIG_FILE_LOC", "SOCKET_PATH", "SERVER_STATE_BASE", "SERVER_STATE_FILE")
    assert {f'RAY_SERVE_HAPROXY_{name}="$haproxy' for name in written} <= places


def test_everything_that_builds_the_image_is_pinned_by_its_hash() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    installs = re.findall(r"pip install .*", dockerfile)
    assert len(installs) == 3
    for command in installs:
        assert "--require-hashes" in command or "--no-deps --no-build-isolation" in command
    assert "--hash=sha256:" in (ROOT / "requirements-build.lock").read_text("utf-8")


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_document_as_it_is(version: str) -> None:
    """RayService and what is in it, pods included; no field is unknown, misspelt or empty."""
    assert problems(RAY_SERVICE_DOCUMENT, RAY_SERVICE, version) == []
    for document in OTHERS:
        assert problems(document, schema_of(document), version) == [], document["kind"]


HEAD = "spec.rayClusterConfig.headGroupSpec"
WORKERS = "spec.rayClusterConfig.workerGroupSpecs.0"
CONTAINER = f"{WORKERS}.template.spec.containers.0"


@pytest.mark.parametrize(
    ("place", "field"),
    [
        ("spec", "serveConfigV2"),
        ("spec.rayClusterConfig", "rayVersion"),
        ("spec.rayClusterConfig.gcsFaultToleranceOptions.redisPassword.valueFrom", "secretKeyRef"),
        ("spec.rayClusterConfig.autoscalerOptions", "idleTimeoutSeconds"),
        ("spec.rayClusterConfig.autoscalerOptions.resources", "limits"),
        (HEAD, "rayStartParams"),
        (f"{HEAD}.template.metadata", "labels"),
        (f"{HEAD}.template.spec", "securityContext"),
        (f"{HEAD}.template.spec.volumes.0.configMap", "defaultMode"),
        (WORKERS, "minReplicas"),
        (f"{WORKERS}.template.spec", "terminationGracePeriodSeconds"),
        (CONTAINER, "volumeMounts"),
        (f"{CONTAINER}.env.0.valueFrom", "secretKeyRef"),
        (f"{CONTAINER}.readinessProbe", "httpGet"),
        (f"{CONTAINER}.securityContext.capabilities", "drop"),
        (f"{CONTAINER}.volumeMounts.0", "mountPath"),
    ],
)
def test_a_misspelt_field_is_found_at_any_depth(place: str, field: str) -> None:
    document = copy.deepcopy(RAY_SERVICE_DOCUMENT)
    parent = _at(document, place)
    parent[f"{field}x"] = parent.pop(field)
    found = problems(document, RAY_SERVICE, VERSIONS[0])
    assert [each for each in found if each.startswith(f"{place}:") and f"'{field}x'" in each]


@pytest.mark.parametrize(
    ("place", "field", "value"),
    [
        (f"{CONTAINER}.resources.limits", "memory", "4Gib"),
        (f"{CONTAINER}.readinessProbe", "periodSeconds", "5"),
        (f"{CONTAINER}.env.1", "value", 1),
        (f"{CONTAINER}.lifecycle", "preStop", None),
        (HEAD, "rayStartParams", {"num-cpus": 0}),
    ],
)
def test_a_value_of_another_type_is_found(place: str, field: str, value: Any) -> None:
    document = copy.deepcopy(RAY_SERVICE_DOCUMENT)
    _at(document, place)[field] = value
    found = problems(document, RAY_SERVICE, VERSIONS[0])
    assert [each for each in found if each.startswith(f"{place}.{field}")]


def _at(document: Tree, place: str) -> Any:
    node: Any = document
    for step in place.split("."):
        node = node[int(step) if isinstance(node, list) else step]
    return node


CRD = os.environ.get("KUBERAY_CRD")


@pytest.mark.skipif(
    not CRD,
    reason="KUBERAY_CRD=<path> compares with a CRD: "
    "helm-chart/kuberay-operator/crds/ray.io_rayservices.yaml of KubeRay",
)
def test_the_crd_itself_takes_the_manifest() -> None:
    schema = schema_of_crd(_load(Path(CRD or "")), "v1")
    assert problems(RAY_SERVICE_DOCUMENT, schema, VERSIONS[-1]) == []


SMALL_CRD = """
spec:
  versions:
    - name: v1
      schema:
        openAPIV3Schema:
          type: object
          properties:
            apiVersion: { type: string }
            kind: { type: string }
            metadata: { type: object }
            spec:
              type: object
              required: [name, count]
              properties:
                name: { type: string }
                count: { type: integer, format: int32, default: 1 }
                port:
                  anyOf: [{ type: integer }, { type: string }]
                  x-kubernetes-int-or-string: true
                nothing: { type: string, nullable: true }
                texts: { type: object, additionalProperties: { type: string } }
                anything: { type: object, x-kubernetes-preserve-unknown-fields: true }
                items:
                  type: array
                  items: { type: object, properties: { path: { type: string } } }
"""


@pytest.mark.parametrize(
    ("spec", "refused"),
    [
        ({"name": "a", "port": "http", "nothing": None, "anything": {"x": 1}}, ""),
        ({"name": "a", "port": 80, "texts": {"x": "y"}, "items": [{"path": "/"}]}, ""),
        ({}, "'name' is a required property"),
        ({"name": "a", "count": 2**31}, "maximum"),
        ({"name": None}, "None is not of type 'string'"),
        ({"name": "a", "port": 1.5}, "1.5 is not"),
        ({"name": "a", "texts": {"x": 1}}, "1 is not of type 'string'"),
        ({"name": "a", "nam": "b"}, "'nam' was unexpected"),
        ({"name": "a", "items": [{"pat": "/"}]}, "'pat' was unexpected"),
    ],
)
def test_a_crd_is_read_as_an_api_server_reads_it(spec: Tree, refused: str) -> None:
    schema = schema_of_crd(yaml.safe_load(SMALL_CRD), "v1")
    document = {"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "x"}, "spec": spec}
    found = problems(document, schema, VERSIONS[0])
    assert (refused in " ".join(found)) if refused else not found
    assert problems({**document, "metadata": {"nam": "x"}}, schema, VERSIONS[0])


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
    # The image allows it; an empty Secret would open the service to everyone.
    assert environments[0]["ALLOW_NO_AUTH"]["value"] == "false"
    assert RAY_CLUSTER["authOptions"] == {"mode": "token"}
    # `auto` means what the builder's node can do, which need not be what the others can.
    assert environments[0]["MODEL_PRECISION"]["value"] in ("fp32", "int8")


def test_the_pieces_of_a_message_are_far_below_what_replicas_may_send_each_other() -> None:
    limit = variables_in("ray.env")["RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH"]
    assert int(limit) > PIECE_BYTES * 10


def test_disruption_budgets_select_the_pods_they_are_for() -> None:
    budgets = [each for each in OTHERS if each["kind"] == "PodDisruptionBudget"]
    selected = {
        budget["metadata"]["name"]: [
            group.get("groupName", "head")
            for group in GROUPS
            if budget["spec"]["selector"]["matchLabels"].items()
            <= group["template"]["metadata"]["labels"].items()
        ]
        for budget in budgets
    }
    assert selected == {
        "faiss-memory-head": ["head"],
        "faiss-memory-index": ["index"],
        "faiss-memory-embedder": ["embedder"],
    }


def test_a_pod_has_time_to_drain_before_it_is_killed() -> None:
    """Its `preStop`, then Ray's own draining, then the end of its replicas."""
    stop_s = max(d["graceful_shutdown_timeout_s"] for d in _deployments(CLUSTER).values())
    stop_s += RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
    for group in GROUPS[1:]:
        pod = group["template"]["spec"]
        [command] = [c["lifecycle"]["preStop"]["exec"]["command"] for c in pod["containers"]]
        assert pod["terminationGracePeriodSeconds"] >= int(command[1]) + stop_s


def test_no_pod_depends_on_the_probes_that_kuberay_adds() -> None:
    """KubeRay 1.5 runs `wget` for a probe that a pod lacks, which the image lacks."""
    for group in GROUPS:
        [container] = group["template"]["spec"]["containers"]
        for probe in ("livenessProbe", "readinessProbe"):
            assert set(container[probe]) & {"httpGet", "exec", "tcpSocket"} == {"httpGet"}


def test_a_namespace_with_the_restricted_pod_standard_admits_every_container() -> None:
    """KubeRay's autoscaler in the head's pod too, and what waits in a worker's for the head."""
    containers = [*_containers(GROUPS), RAY_CLUSTER["autoscalerOptions"]]
    [redis] = [each["spec"] for each in OTHERS if each["kind"] == "StatefulSet"]
    for container in [*containers, *_containers([redis])]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
    for group in [*GROUPS, redis]:
        pod = group["template"]["spec"]["securityContext"]
        assert pod["runAsNonRoot"]
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}


def _containers(groups: list[Tree]) -> list[Tree]:
    return [each for group in groups for each in group["template"]["spec"]["containers"]]


def test_the_scripts_are_clean() -> None:
    scripts = [str(path) for path in DEPLOY.rglob("*.sh")]
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run(
        [shellcheck, "-x", *scripts], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
