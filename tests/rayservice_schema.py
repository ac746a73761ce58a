"""The part of KubeRay's RayService (ray.io/v1, KubeRay 1.6) that `deploy/rayservice.yaml` may use.

Written from KubeRay's Go types, of which its CRD is made: names, types, choices, and what is
required. Unknown fields are refused, as a strict API server does. A megabyte of the CRD describes
pod templates and services, which are Kubernetes' own; see `test_deploy`.
"""

from __future__ import annotations

from typing import Any

_ANY_OBJECT = {"type": "object"}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_INTEGER = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
_FLAG = {"type": "boolean"}
_TEXT = {"type": "string"}
_LIST_OF_TEXTS = {"type": "array", "items": _TEXT}
_MANAGER = {"enum": ["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"]}


def _object(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required or [],
        "additionalProperties": False,
    }


_CREDENTIAL = _object(value=_TEXT, valueFrom=_ANY_OBJECT)

_GROUP = {
    "rayStartParams": _TEXTS,
    "resources": _TEXTS,
    "labels": _TEXTS,
    "template": _object(["spec"], metadata=_ANY_OBJECT, spec=_ANY_OBJECT),
}

_HEAD = _object(
    ["template"],
    **_GROUP,
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    headService=_ANY_OBJECT,
    enableIngress=_FLAG,
    ingressOptions=_ANY_OBJECT,
)

_WORKERS = _object(
    ["groupName", "minReplicas", "maxReplicas", "template"],
    **_GROUP,
    groupName={"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"},
    replicas=_COUNT,
    minReplicas=_COUNT,
    maxReplicas=_COUNT,
    numOfHosts=_COUNT,
    idleTimeoutSeconds=_COUNT,
    priority=_INTEGER,
    suspend=_FLAG,
    scaleStrategy=_object(workersToDelete=_LIST_OF_TEXTS),
)

_AUTOSCALER = _object(
    resources=_ANY_OBJECT,
    image=_TEXT,
    imagePullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
    securityContext=_ANY_OBJECT,
    idleTimeoutSeconds=_COUNT,
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    version={"enum": ["v1", "v2"]},
    env={"type": "array"},
    envFrom={"type": "array"},
    volumeMounts={"type": "array"},
    command=_LIST_OF_TEXTS,
    args=_LIST_OF_TEXTS,
)

_CLUSTER = _object(
    ["headGroupSpec"],
    rayVersion=_TEXT,
    # `enableK8sTokenAuth` is for clusters of their own, not for a RayService.
    authOptions=_object(mode={"enum": ["disabled", "token"]}, secretName=_TEXT),
    gcsFaultToleranceOptions=_object(
        backend={"enum": ["redis", "rocksdb"]},
        storage=_ANY_OBJECT,
        redisAddress=_TEXT,
        redisUsername=_CREDENTIAL,
        redisPassword=_CREDENTIAL,
        externalStorageNamespace=_TEXT,
    ),
    enableInTreeAutoscaling=_FLAG,
    autoscalerOptions=_AUTOSCALER,
    headServiceAnnotations=_TEXTS,
    suspend=_FLAG,
    managedBy=_MANAGER,
    upgradeStrategy=_object(type={"enum": ["Recreate", "None"]}),
    historyServerOptions=_ANY_OBJECT,
    networkPolicy=_ANY_OBJECT,
    tlsOptions=_object(enabled=_FLAG),
    headGroupSpec=_HEAD,
    workerGroupSpecs={"type": "array", "items": _WORKERS},
)

RAY_SERVICE = _object(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayService"},
    metadata=_ANY_OBJECT,
    spec=_object(
        ["serveConfigV2", "rayClusterConfig"],
        serveConfigV2=_TEXT,
        rayClusterConfig=_CLUSTER,
        upgradeStrategy=_object(
            type={"enum": ["None", "NewCluster", "NewClusterWithIncrementalUpgrade"]},
            clusterUpgradeOptions=_ANY_OBJECT,
        ),
        excludeHeadPodFromServeSvc=_FLAG,
        serveService=_ANY_OBJECT,
        rayClusterDeletionDelaySeconds=_COUNT,
        managedBy=_MANAGER,
        suspend=_FLAG,
    ),
)
"""JSON Schema of the manifest."""
