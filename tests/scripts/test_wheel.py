"""The wheel serves on a machine without a checkout, and ends with the terminal it runs in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.settings import Settings
from scripts.launcher.runtime_dir import own_pids, runtime_dir_of
from tests import ROOT
from tests.support.service import STOP_PATIENCE_S, free_port
from tests.support.terminal import Terminal

PACKAGES = ("engine", "wire", "deployments", "mcp_server", "scripts")
PARTS = (*PACKAGES, "pyproject.toml", "README.md", "LICENSE")
WEB = {"NO_PROXY": "*", "no_proxy": "*"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build leaves its own files beside the sources."""
    source = tmp_path_factory.mktemp("source")
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, source / part)
    target = tmp_path_factory.mktemp("wheel")
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(target), str(source))
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment that has the wheel, and the packages of this one."""
    env = tmp_path_factory.mktemp("env")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(env)], check=True)
    _pip("--python", str(env / "bin" / "python"), "install", "--no-deps", "--no-index", str(wheel))
    [site] = env.glob("lib/python*/site-packages")
    packages = [path for path in sys.path if Path(path).name == "site-packages"]
    (site / "packages.pth").write_text("\n".join(packages) + "\n")
    return env / "bin"


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    # Outside the checkout, which a `pip` could take for an installation.
    subprocess.run([*command, *words], cwd="/", check=True)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    settings = {name.upper() for name in Settings.model_fields} - {"MODEL_DIR"}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in settings and not name.startswith(("RAY_", "PYTHON", "FAISS_"))
    }
    # A platform's place for data, in a home where the model still is.
    return {**kept, "XDG_DATA_HOME": str(tmp_path / "share"), "PORT": str(free_port()), **WEB}


def test_the_wheel_has_its_configuration_and_no_benchmarks(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        "scripts/serve_config.yaml",
        "scripts/launcher/variables/ray.env",
        "mcp_server/installer/openclaw-skill.md",
    } <= set(names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == set(PACKAGES)


@pytest.fixture
def served(
    programs: Path, environment: dict[str, str], tmp_path: Path
) -> Iterator[tuple[Terminal, Path]]:
    """The installed service in a terminal, started beside somebody's older memories."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "memories.db").touch()
    terminal = Terminal([str(programs / "faiss-memory"), "serve"], environment, tmp_path)
    data_dir = tmp_path / "share" / "faiss-memory"
    try:
        terminal.wait_for(b"FAISS Memory answers at http")
        yield terminal, data_dir
    finally:
        terminal.process.kill()
        terminal.process.wait()
        shutil.rmtree(runtime_dir_of(data_dir), ignore_errors=True)


@pytest.mark.service
@pytest.mark.skipif(sys.platform == "darwin", reason="its place for data is another")
def test_an_installed_service_serves_from_the_users_data_and_ends_with_its_terminal(
    programs: Path,
    environment: dict[str, str],
    tmp_path: Path,
    served: tuple[Terminal, Path],
) -> None:
    terminal, data_dir = served
    shown = b" ".join(terminal.shown.split())
    assert f"start with DATA_DIR={tmp_path}/data".encode() in shown
    url = {"FAISS_URL": f"http://127.0.0.1:{environment['PORT']}"}

    def run(*words: str) -> str:
        done = subprocess.run(
            [programs / "faiss-memory", *words],
            env={**environment, **url},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    run("add", "The kettle is in the shed.", "--source", "house")
    assert "kettle" in run("search", "where is the kettle?")
    assert (data_dir / "memories.db").is_file()
    terminal.close()
    assert terminal.process.wait(STOP_PATIENCE_S) == 0
    assert own_pids(runtime_dir_of(data_dir)) == []
