"""Clients that the two common generators make of `/openapi.json`, against a running service."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.light_service import light_service

# Neither is locked with the test tools: the first asks for an older typer than the service has.
PYTHON_CLIENT = (
    "openapi-python-client==" + ("0.28.4" if sys.version_info < (3, 11) else "0.29.1"),
    "ruamel.yaml==0.19.1",
)
GENERATOR = ("openapi-generator-cli==7.26.0",)
TEXT = " Coffee is at nine.\n"
SINCE = {"since": "7d", "timezone": "Europe/Berlin"}
"""As strings, which is what the document must call them."""


def installed(directory: Path, packages: tuple[str, ...]) -> Path:
    """Packages without what they depend on, which the test tools bring."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
    options = ["--timeout=10", "--retries=0", "--target", str(directory)]
    if subprocess.run([*pip, *options, *packages], capture_output=True, check=False).returncode:
        pytest.skip(f"{packages[0]} cannot be fetched")
    return directory


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with light_service(tmp_path_factory.mktemp("service")) as base_url:
        yield base_url


@pytest.fixture(scope="module")
def document(url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("document") / "openapi.json"
    path.write_bytes(httpx.get(f"{url}/openapi.json").content)
    return path


def operation_names(document: Path) -> set[str]:
    """Every operation id as Python writes it."""
    return {
        re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation["operationId"]).lower()
        for operations in json.loads(document.read_bytes())["paths"].values()
        for operation in operations.values()
    }


def test_openapi_python_client_generates_every_operation_and_its_models_work(
    url: str, document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = installed(tmp_path / "tool", PYTHON_CLIENT)
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta=none"]
    subprocess.run(
        [*command, f"--path={document}", f"--output-path={tmp_path / 'strangers_client'}"],
        env={**os.environ, "PYTHONPATH": str(tool)},
        capture_output=True,
        check=True,
    )
    modules = {
        path.stem: f"strangers_client.api.{path.parent.name}.{path.stem}"
        for path in (tmp_path / "strangers_client/api").glob("*/[a-z]*.py")
    }
    assert modules.keys() == operation_names(document)

    monkeypatch.syspath_prepend(tmp_path)
    models: Any = importlib.import_module("strangers_client.models")
    types: Any = importlib.import_module("strangers_client.types")
    client = importlib.import_module("strangers_client").Client(
        base_url=url, raise_on_unexpected_status=True
    )

    def call(operation: str, *arguments: Any, **named: Any) -> Any:
        module = importlib.import_module(modules[operation])
        return module.sync(*arguments, client=client, **named)

    new = models.AddRequest(text=TEXT, source="stranger", deduplicate=False)
    added = call("add_memory", body=new)
    hits = call("search_memory", body=models.SearchRequest(query="coffee", k=3, **SINCE))
    assert added.id in [hit.id for hit in hits.results]
    novel = call("is_novel", body=models.IsNovelRequest(text="coffee"))
    assert novel.most_similar.text
    assert call("update_memory", added.id, body=models.PatchRequest(text="Tea.")).text == "Tea."
    assert added.id in [memory.id for memory in call("list_memories", **SINCE).memories]
    assert call("get_stats").total_memories >= 1
    exported = call("export_memories", source="stranger").payload.read()
    imported = call("import_memories", body=types.File(payload=io.BytesIO(exported)))
    assert json.loads(imported.payload.read().splitlines()[-1])["type"] == "summary"
    assert call("delete_memory", added.id).success
    assert isinstance(call("get_memory", added.id), models.Problem)


def test_openapi_generator_generates_every_operation_and_its_models_work(
    url: str, document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("java") is None:
        pytest.skip("there is no java here")
    tool = installed(tmp_path / "tool", GENERATOR)
    command = ["java", "-jar", str(tool / "openapi_generator_cli/openapi-generator.jar")]
    options = ["-g", "python", "--package-name", "javas_client", "-o", str(tmp_path / "java")]
    subprocess.run(
        [*command, "generate", "-i", str(document), *options], capture_output=True, check=True
    )

    monkeypatch.syspath_prepend(tmp_path / "java")
    client: Any = importlib.import_module("javas_client")
    connection = client.ApiClient(client.Configuration(host=url))
    interfaces = [
        getattr(client, name)(connection)
        for name in dir(client)
        if re.fullmatch("[A-Z].*Api", name)
    ]

    def call(operation: str, *arguments: Any, **named: Any) -> Any:
        [method] = [getattr(api, operation) for api in interfaces if hasattr(api, operation)]
        return method(*arguments, **named)

    assert all(any(hasattr(api, name) for api in interfaces) for name in operation_names(document))
    added = call("add_memory", client.AddRequest(text=TEXT, source="java", deduplicate=False))
    hits = call("search_memory", client.SearchRequest(query="coffee", k=3, **SINCE))
    assert added.id in [hit.id for hit in hits.results]
    assert call("is_novel", client.IsNovelRequest(text="coffee")).most_similar.text
    assert call("update_memory", added.id, client.PatchRequest(text="Tea.")).text == "Tea."
    assert added.id in [memory.id for memory in call("list_memories", **SINCE).memories]
    assert call("get_stats").total_memories >= 1
    exported = bytes(call("export_memories", source="java"))
    imported = bytes(call("import_memories", body=exported))
    assert json.loads(imported.splitlines()[-1])["type"] == "summary"
    assert call("delete_memory", added.id).success
    with pytest.raises(client.exceptions.NotFoundException):
        call("get_memory", added.id)
