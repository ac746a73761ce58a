"""The integration pages: what they show parses, runs, and is what the installer writes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_server.identity import NAME
from mcp_server.installer.bridge_command import Bridge
from mcp_server.installer.install import Assistant, Scope, plan_install
from tests import ROOT
from tests.support.fake_service import FakeService, serving

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGES = ROOT / "integrations"


def blocks(page: str, language: str) -> list[str]:
    text = (PAGES / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


@pytest.mark.parametrize("page", [page.name for page in PAGES.glob("*.md")])
def test_every_configuration_shown_is_valid_and_names_the_bridge(page: str) -> None:
    for block in blocks(page, "json"):
        settings = json.loads(block)
        servers = settings.get("mcpServers") or settings["servers"]
        assert servers[NAME]["command"].endswith("faiss-memory-mcp")
    for block in blocks(page, "toml"):
        assert NAME in tomllib.loads(block)["mcp_servers"]


@pytest.mark.parametrize("page", [page.name for page in PAGES.glob("*.md")])
def test_links_between_the_pages_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", (PAGES / page).read_text("utf-8")):
        assert (PAGES / link).exists(), link


def test_the_project_file_shown_is_the_one_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    edit = plan_install(Assistant.CLAUDE_CODE, Bridge.of_any_machine(), Scope.PROJECT)
    assert blocks("claude-code.md", "json") == [edit.after]


@pytest.mark.parametrize(
    "page", ["claude-code.md", "claude-desktop.md", "codex.md", "cursor-vscode.md"]
)
def test_the_install_commands_shown_run(page: str, tmp_path: Path) -> None:
    commands = [
        line.split()[1:]
        for block in blocks(page, "bash")
        for line in block.splitlines()
        if line.startswith(".venv/bin/faiss-memory-mcp")
    ]
    assert commands
    for command in commands:
        subprocess.run(
            [sys.executable, "-m", "mcp_server", *command],
            env={**os.environ, "HOME": str(tmp_path), "CODEX_HOME": str(tmp_path)},
            check=True,
            capture_output=True,
        )


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_lines_shown_run() -> None:
    [block] = blocks("chatgpt.md", "bash")
    with serving(FakeService(api_key="k3y")) as url:
        answers = subprocess.run(
            ["bash", "-e"],
            input=block,
            env={"PATH": os.environ["PATH"], "FAISS_URL": url, "FAISS_API_KEY": "k3y"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
    assert json.loads(answers[0])["count"] == 0
    assert json.loads(answers[1])["message"] == "Memory added successfully"
