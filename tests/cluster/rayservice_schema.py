"""KubeRay's RayService (ray.io/v1, KubeRay 1.6), as its CRD describes it.

KubeRay's own fields, written from its Go types and compared with the CRD of 1.6: names, types,
choices, and what is required after defaults. The rest of the CRD's megabyte is Kubernetes' own
types, which are taken from Kubernetes. Unknown fields are refused, as a strict API server does.
"""

from __future__ import annotations

from typing import Any

from tests.cluster.kubernetes_schema import METADATA, kubernetes

_ANY_OBJECT = {"type": "object"}
_TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_INTEGER = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
_FLAG = {"type": "boolean"}
_TEXT = {"type": "string"}
_LIST_OF_TEXTS = {"type": "array", "items": _TEXT}
_MANAGER = {"enum": ["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"]}
_QUANTITY = kubernetes("apimachinery.pkg.api.resource.Quantity")


def _object(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required or [],
        "additionalProperties": False,
    }


def _list(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema}


_CREDENTIAL = _object(value=_TEXT, valueFrom=kubernetes("core.v1.EnvVarSource"))

# Of a template's metadata the CRD knows only this.
_METADATA = _object(
    annotations=_TEXTS, finalizers=_LIST_OF_TEXTS, labels=_TEXTS, name=_TEXT, namespace=_TEXT
)

_SERVICE = _object(
    apiVersion=_TEXT,
    kind=_TEXT,
    metadata=_METADATA,
    spec=kubernetes("core.v1.ServiceSpec"),
    status=kubernetes("core.v1.ServiceStatus"),
)

_GROUP = {
    "rayStartParams": _TEXTS,
    "resources": _TEXTS,
    "labels": _TEXTS,
    "template": _object(metadata=_METADATA, spec=kubernetes("core.v1.PodSpec")),
}

_HEAD = _object(
    ["template"],
    **_GROUP,
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    headService=_SERVICE,
    enableIngress=_FLAG,
    ingressOptions=_object(
        host=_TEXT,
        path=_TEXT,
        pathType={"enum": ["Exact", "Prefix", "ImplementationSpecific"]},
        tls=_list(kubernetes("networking.v1.IngressTLS")),
    ),
)

_WORKERS = _object(
    ["groupName", "template"],
    **_GROUP,
    groupName={"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"},
    replicas=_COUNT,
    minReplicas=_COUNT,
    maxReplicas=_COUNT,
    numOfHosts=_COUNT,
    idleTimeoutSeconds=_COUNT,
    priority=_INTEGER,
    suspend=_FLAG,
    scaleStrategy=_object(
        workersToDelete=_LIST_OF_TEXTS, scaleGate=_list(_object(["type"], type=_TEXT))
    ),
    topology=_object(labelMappings=_list(_object(["nodeLabel"], nodeLabel=_TEXT, mapTo=_TEXT))),
)

_AUTOSCALER = _object(
    resources=kubernetes("core.v1.ResourceRequirements"),
    image=_TEXT,
    imagePullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
    securityContext=kubernetes("core.v1.SecurityContext"),
    idleTimeoutSeconds=_COUNT,
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    version={"enum": ["v1", "v2"]},
    env=_list(kubernetes("core.v1.EnvVar")),
    envFrom=_list(kubernetes("core.v1.EnvFromSource")),
    volumeMounts=_list(kubernetes("core.v1.VolumeMount")),
    command=_LIST_OF_TEXTS,
    args=_LIST_OF_TEXTS,
)

_POSITIVE = {**_COUNT, "minimum": 1}

_FAULT_TOLERANCE = _object(
    backend={"enum": ["redis", "rocksdb"]},
    storage=_object(
        accessModes=_LIST_OF_TEXTS,
        claimName=_TEXT,
        deletionPolicy={"enum": ["DeleteWithCluster", "Retain"]},
        size=_QUANTITY,
        storageClassName=_TEXT,
        subPath=_TEXT,
    ),
    redisAddress=_TEXT,
    redisUsername=_CREDENTIAL,
    redisPassword=_CREDENTIAL,
    externalStorageNamespace=_TEXT,
    activePassiveHeadOptions=_object(
        enabled=_FLAG,
        leaseDurationSeconds=_POSITIVE,
        renewDeadlineSeconds=_POSITIVE,
        retryPeriodSeconds=_POSITIVE,
    ),
)

_RULES: dict[str, Any] = {
    "ingressRules": _list(kubernetes("networking.v1.NetworkPolicyIngressRule")),
    "egressRules": _list(kubernetes("networking.v1.NetworkPolicyEgressRule")),
}

_CLUSTER = _object(
    ["headGroupSpec"],
    rayVersion=_TEXT,
    authOptions=_object(
        mode={"enum": ["disabled", "token"]}, secretName=_TEXT, enableK8sTokenAuth=_FLAG
    ),
    gcsFaultToleranceOptions=_FAULT_TOLERANCE,
    enableInTreeAutoscaling=_FLAG,
    autoscalerOptions=_AUTOSCALER,
    headServiceAnnotations=_TEXTS,
    suspend=_FLAG,
    managedBy=_MANAGER,
    upgradeStrategy=_object(type={"enum": ["Recreate", "None"]}),
    historyServerOptions=_ANY_OBJECT,  # not looked at
    networkPolicy=_object(
        mode={"enum": ["DenyAll", "DenyAllIngress", "DenyAllEgress"]},
        head=_object(**_RULES),
        worker=_object(**_RULES),
        workerGroups=_list(_object(["groupName"], groupName=_TEXT, **_RULES)),
    ),
    tlsOptions=_object(enabled=_FLAG),
    headGroupSpec=_HEAD,
    workerGroupSpecs=_list(_WORKERS),
)

RAY_SERVICE = _object(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayService"},
    metadata=METADATA,
    spec=_object(
        ["rayClusterConfig"],
        serveConfigV2=_TEXT,
        rayClusterConfig=_CLUSTER,
        upgradeStrategy=_object(
            type={"enum": ["None", "NewCluster", "NewClusterWithIncrementalUpgrade"]},
            clusterUpgradeOptions=_object(
                ["gatewayClassName", "intervalSeconds", "stepSizePercent"],
                gatewayClassName=_TEXT,
                intervalSeconds=_INTEGER,
                maxSurgePercent=_INTEGER,
                stepSizePercent=_INTEGER,
            ),
        ),
        excludeHeadPodFromServeSvc=_FLAG,
        serveService=_SERVICE,
        rayClusterDeletionDelaySeconds=_COUNT,
        deploymentUnhealthySecondThreshold=_INTEGER,
        serviceUnhealthySecondThreshold=_INTEGER,
        managedBy=_MANAGER,
        suspend=_FLAG,
    ),
)
"""JSON Schema of the manifest."""
