"""JSON Schemas of Kubernetes' objects, as strict as `kubectl apply --validate=strict`.

Kubernetes' own come from the package `kubernetes-validate`; a CRD's is made of the CRD.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

Tree = dict[str, Any]

VERSIONS = ("1.29", "1.37")
"""The first with ReadWriteOncePod for all, and the newest that the package knows."""

_DEFINITIONS = "urn:kubernetes"
_QUANTITY = {
    "type": ["string", "number"],
    # As in every CRD.
    "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
}


def kubernetes(name: str) -> Tree:
    """The schema of a type of Kubernetes, such as `core.v1.PodSpec`."""
    package = "" if name.startswith("apimachinery.") else "api."
    return {"$ref": f"{_DEFINITIONS}#/$defs/io.k8s.{package}{name}"}


METADATA = kubernetes("apimachinery.pkg.apis.meta.v1.ObjectMeta")


def schema_of(document: Tree) -> Tree:
    """The schema of a document of a kind of Kubernetes' own."""
    group, _, version = document["apiVersion"].rpartition("/")
    return kubernetes(f"{group.split('.')[0] or 'core'}.{version}.{document['kind']}")


def problems(document: Tree, schema: Tree, version: str) -> list[str]:
    """What a Kubernetes of this version would refuse, each with its place."""
    return [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
        for error in Draft202012Validator(schema, registry=_registry(version)).iter_errors(document)
    ]


@cache
def _registry(version: str) -> Registry[Any]:
    schemas = files("kubernetes_validate") / "kubernetes-json-schema"
    text = (schemas / f"v{version}.0-local-strict" / "_definitions.json").read_text("utf-8")
    definitions = json.loads(text, object_hook=_without_null)
    definitions["$defs"]["io.k8s.apimachinery.pkg.api.resource.Quantity"] = _QUANTITY
    del definitions["$id"]
    registry: Registry[Any] = Registry()
    registry = registry.with_resource(_DEFINITIONS, Resource.from_contents(definitions))
    return registry


def _without_null(node: Tree) -> Tree:
    """A key without a value is a mistake in a manifest, though Kubernetes lets it pass."""
    if isinstance(node.get("type"), list):
        [node["type"]] = [name for name in node["type"] if name != "null"]
    return node


def schema_of_crd(crd: Tree, version: str) -> Tree:
    """The schema of the resources that a CustomResourceDefinition defines."""
    [openapi] = [
        each["schema"]["openAPIV3Schema"]
        for each in crd["spec"]["versions"]
        if each["name"] == version
    ]
    schema = _closed(openapi)
    schema["properties"]["metadata"] = METADATA
    return schema


def _closed(node: Tree) -> Tree:
    """A structural schema as JSON Schema, which refuses what an API server would drop."""
    schema = dict(node)
    if properties := node.get("properties"):
        schema["properties"] = {name: _closed(each) for name, each in properties.items()}
        # Defaults are filled in first.
        required = node.get("required", [])
        schema["required"] = [name for name in required if "default" not in properties[name]]
    if "items" in node:
        schema["items"] = _closed(node["items"])
    if isinstance(node.get("additionalProperties"), dict):
        schema["additionalProperties"] = _closed(node["additionalProperties"])
    elif node.get("type") == "object" and not node.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    if node.get("x-kubernetes-embedded-resource"):
        own = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": METADATA}
        schema["properties"] = {**own, **schema.get("properties", {})}
    if node.get("x-kubernetes-int-or-string"):
        schema["type"] = ["integer", "string"]
    if node.get("nullable"):
        schema["type"] = [node["type"], "null"]
    if node.get("format") == "int32":
        schema = {"minimum": -(2**31), "maximum": 2**31 - 1, **schema}
    return schema
