"""The bridge as a distribution of its own: small, and nothing missing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests import ROOT
from tests.support.fake_service import FakeService, serving

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_BRIDGE = ROOT / "packaging" / "bridge"
_MEGABYTES = 100


def _requirements() -> list[str]:
    project = tomllib.loads((_BRIDGE / "pyproject.toml").read_text("utf-8"))["project"]
    return list(project["dependencies"])


def _closure(requirements: list[str]) -> dict[str, Distribution]:
    """The distributions that requirements need, as this environment has them."""
    found: dict[str, Distribution] = {}
    waiting = [(Requirement(text), frozenset({""})) for text in requirements]
    while waiting:
        wanted, extras = waiting.pop()
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        is_meant = wanted.marker is None or any(
            wanted.marker.evaluate({"extra": extra}) for extra in extras
        )
        if not is_meant or name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # pragma: no cover - not needed on this platform
            continue
        asked = frozenset({"", *wanted.extras})
        waiting += [(Requirement(text), asked) for text in found[name].requires or []]
    return found


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that has the bridge's wheel, what it says that it needs, and nothing else."""
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(_BRIDGE, source / "packaging" / "bridge")
    for package in ("mcp_server", "wire"):
        shutil.copytree(ROOT / package, source / package)
    wheels = tmp_path_factory.mktemp("wheels")
    build = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels))
    _pip(*build, str(source / "packaging" / "bridge"))
    [wheel] = wheels.iterdir()
    env = tmp_path_factory.mktemp("env")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(env)], check=True)
    _pip("--python", str(env / "bin" / "python"), "install", "--no-deps", "--no-index", str(wheel))
    [site] = env.glob("lib/python*/site-packages")
    for needed in _closure(_requirements()).values():
        for file in needed.files or []:
            if ".." not in file.parts:
                copy = site / file
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), copy)
    return env


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*command, *words], cwd="/", check=True)


def test_it_is_tens_of_megabytes(environment: Path) -> None:
    n_bytes = sum(file.stat().st_size for file in environment.rglob("*") if file.is_file())
    assert n_bytes < _MEGABYTES * 1_000_000


def test_it_has_the_service_s_version_and_none_of_its_dependencies() -> None:
    own, whole = (
        tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
        for folder in (_BRIDGE, ROOT)
    )
    assert own["version"] == whole["version"]
    assert set(own["dependencies"]) <= set(whole["dependencies"])
    assert not {"ray", "faiss-cpu", "onnxruntime", "numpy"} & _closure(_requirements()).keys()


def test_it_lists_its_tools_and_calls_one_over_stdio(environment: Path) -> None:
    asked = (
        {
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "t", "version": "1"},
            },
        },
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/list"},
        {
            "id": 3,
            "method": "tools/call",
            "params": {"name": "memory_add", "arguments": {"text": "tea", "source": "notes"}},
        },
    )
    service = FakeService()
    with serving(service) as url:
        process = subprocess.Popen(
            [str(environment / "bin" / "faiss-memory-mcp")],
            env={"FAISS_URL": url, "HOME": str(environment)},
            cwd=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        for message in asked:
            process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        process.stdin.flush()
        answers = {}
        while 3 not in answers:
            answer = json.loads(process.stdout.readline())
            answers[answer.get("id")] = answer
        process.stdin.close()
        assert process.wait() == 0
    tools = {tool["name"] for tool in answers[2]["result"]["tools"]}
    assert {"memory_search", "memory_add", "memory_stats"} <= tools
    assert [memory["text"] for memory in service.memories.values()] == ["tea"]
    assert answers[3]["result"]["structuredContent"] == {"added": True, "id": 1}


def test_it_installs_the_skill_too(environment: Path, tmp_path: Path) -> None:
    command = [str(environment / "bin" / "faiss-memory-mcp"), "install", "openclaw"]
    env = {"HOME": str(tmp_path), "FAISS_URL": "http://nas:8900", "PATH": os.environ["PATH"]}
    subprocess.run(command, env=env, cwd=tmp_path, check=True, capture_output=True)
    [skill] = tmp_path.rglob("SKILL.md")
    assert "FAISS_URL:=http://nas:8900" in skill.read_text("utf-8")
