"""`faiss-memory-mcp install`: other programs' files are changed carefully and put back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_server.installer import install
from mcp_server.installer.bridge_command import Bridge
from mcp_server.installer.config_file import ConfigError, Edit
from mcp_server.installer.install import Assistant, Scope, plan_install, plan_uninstall
from tests import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BRIDGE = Bridge(command="/opt/bin/faiss-memory-mcp", env=(("FAISS_URL", "http://localhost:8900"),))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("APPDATA", str(tmp_path / "AppData"))
    for name in ("CODEX_HOME", "XDG_CONFIG_HOME", "FAISS_URL", "FAISS_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def backups(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.*.bak"))


@pytest.mark.parametrize("assistant", Assistant)
def test_installing_twice_changes_once_and_uninstalling_puts_it_back(
    assistant: Assistant,
) -> None:
    path = install.config_path(assistant, Scope.USER)
    assert plan_install(assistant, BRIDGE).apply() is None
    once = path.read_bytes()
    again = plan_install(assistant, BRIDGE)
    assert not again.changes
    removal = plan_uninstall(assistant)
    removal.apply()
    assert not plan_uninstall(assistant).changes
    assert b"faiss-memory" not in (path.read_bytes() if path.exists() else b"")
    assert [kept.read_bytes() for kept in backups(path)] == [once]


@pytest.mark.parametrize(
    "assistant", [Assistant.CLAUDE_CODE, Assistant.CLAUDE_DESKTOP, Assistant.CURSOR]
)
def test_what_else_a_json_file_holds_stays_as_it_was(assistant: Assistant) -> None:
    path = install.config_path(assistant, Scope.USER)
    other = {"command": "other", "args": ["--ü"]}
    before = json.dumps(
        {"theme": "dark", "mcpServers": {"other": other}, "projects": {"/p": {"n": 1.5}}},
        indent=4,
        ensure_ascii=False,
    )
    written(path, before).chmod(0o640)
    backup = plan_install(assistant, BRIDGE).apply()

    after = json.loads(path.read_text("utf-8"))
    entry = after["mcpServers"].pop("faiss-memory")
    assert entry["command"] == BRIDGE.command
    assert entry["env"] == {"FAISS_URL": "http://localhost:8900"}
    assert after == json.loads(before)
    assert list(after) == ["theme", "mcpServers", "projects"]
    assert '\n    "theme"' in path.read_text("utf-8")
    assert "--ü" in path.read_text("utf-8")
    assert path.stat().st_mode & 0o777 == 0o640 or os.name == "nt"
    assert backup is not None
    assert backup.read_text("utf-8") == before


def test_an_entry_that_exists_keeps_what_its_owner_added() -> None:
    path = install.config_path(Assistant.CLAUDE_CODE, Scope.USER)
    entry = {"type": "http", "url": "http://x/mcp", "timeout": 9, "env": {"FAISS_API_KEY": "k"}}
    written(path, json.dumps({"mcpServers": {"faiss-memory": entry}}))
    plan_install(Assistant.CLAUDE_CODE, BRIDGE).apply()
    merged = json.loads(path.read_text("utf-8"))["mcpServers"]["faiss-memory"]
    assert merged == {
        "type": "stdio",
        "timeout": 9,
        "env": {"FAISS_API_KEY": "k", "FAISS_URL": "http://localhost:8900"},
        "command": BRIDGE.command,
        "args": [],
    }


def test_comments_and_order_of_a_toml_file_stay_to_the_letter() -> None:
    path = install.config_path(Assistant.CODEX, Scope.USER)
    before = '# mine\nmodel = "x"   # why\n\n[mcp_servers.other]\ncommand = "o"\n\n# the end'
    written(path, before)
    plan_install(Assistant.CODEX, BRIDGE).apply()
    text = path.read_text("utf-8")
    assert text.startswith(f"{before}\n\n# >>> faiss-memory")
    assert tomllib.loads(text)["mcp_servers"] == {
        "other": {"command": "o"},
        "faiss-memory": {
            "command": BRIDGE.command,
            "args": [],
            "env": {"FAISS_URL": "http://localhost:8900"},
        },
    }

    # A later change of the settings replaces the block.
    moved = Bridge(command='C:\\Program Files\\"x"\\mcp.exe', args=("-m", "é"))
    plan_install(Assistant.CODEX, moved).apply()
    entry = tomllib.loads(path.read_text("utf-8"))["mcp_servers"]["faiss-memory"]
    assert (entry["command"], entry["args"]) == (moved.command, ["-m", "é"])

    plan_uninstall(Assistant.CODEX).apply()
    assert path.read_text("utf-8").rstrip("\n") == before


REWRITTEN = """\
model = "x"   # why

[mcp_servers.{name}]
command = "/opt/bin/faiss-memory-mcp"
startup_timeout_sec = 20

[mcp_servers.{name}.env]
FAISS_API_KEY = "k"
FAISS_URL = "http://localhost:8900"

[mcp_servers.{name}.tools.memory_search]
approval_mode = "approve"

[mcp_servers.other]
command = "foo"
# <<< faiss-memory

[projects."/x"]
trust_level = "trusted"
"""
"""As Codex 0.171 leaves our block: one mark dropped, the other behind its own tables."""


@pytest.mark.parametrize("name", ["faiss-memory", "memory"])
def test_an_entry_that_codex_wrote_anew_is_known_by_its_command(name: str) -> None:
    path = install.config_path(Assistant.CODEX, Scope.USER)
    written(path, REWRITTEN.format(name=name))
    assert not plan_install(Assistant.CODEX, BRIDGE).changes

    moved = Bridge(command=BRIDGE.command, env=(("FAISS_URL", "http://h:1"),))
    plan_install(Assistant.CODEX, moved).apply()
    text = path.read_text("utf-8")
    assert tomllib.loads(text)["mcp_servers"][name] == {
        "command": BRIDGE.command,
        "args": [],
        "env": {"FAISS_URL": "http://h:1", "FAISS_API_KEY": "k"},
        "startup_timeout_sec": 20,
        "tools": {"memory_search": {"approval_mode": "approve"}},
    }
    assert text.startswith('model = "x"   # why\n')

    plan_uninstall(Assistant.CODEX).apply()
    assert path.read_text("utf-8") == (
        'model = "x"   # why\n\n[mcp_servers.other]\ncommand = "foo"\n\n'
        '[projects."/x"]\ntrust_level = "trusted"\n'
    )


def test_a_table_that_codex_wrote_between_our_marks_stays() -> None:
    path = install.config_path(Assistant.CODEX, Scope.USER)
    plan_install(Assistant.CODEX, BRIDGE).apply()
    ours, end, _ = path.read_text("utf-8").partition("# <<< faiss-memory")
    written(path, f'{ours}\n[projects."/x"]\ntrust_level = "trusted"\n{end}\n')
    plan_uninstall(Assistant.CODEX).apply()
    left = tomllib.loads(path.read_text("utf-8"))
    assert left == {"projects": {"/x": {"trust_level": "trusted"}}}


def test_an_entry_of_codex_that_cannot_be_cut_out_as_text_is_refused() -> None:
    path = install.config_path(Assistant.CODEX, Scope.USER)
    inline = 'mcp_servers = { m = { command = "python", args = ["-m", "mcp_server"] } }\n'
    written(path, inline)
    with pytest.raises(ConfigError, match="cannot be edited safely"):
        plan_install(Assistant.CODEX, BRIDGE)
    with pytest.raises(ConfigError, match="cannot be edited safely"):
        plan_uninstall(Assistant.CODEX)


def test_vs_code_keeps_its_servers_under_a_key_and_in_a_place_of_their_own(home: Path) -> None:
    path = install.config_path(Assistant.VSCODE, Scope.USER)
    written(path, '{"inputs": [], "servers": {"other": {"url": "http://x"}}}')
    plan_install(Assistant.VSCODE, BRIDGE).apply()
    settings = json.loads(path.read_text("utf-8"))
    assert settings["servers"]["other"] == {"url": "http://x"}
    assert settings["servers"]["faiss-memory"]["type"] == "stdio"
    assert settings["inputs"] == []
    if sys.platform == "linux":
        assert path == home / ".config" / "Code" / "User" / "mcp.json"


def test_the_skill_is_written_with_the_url_it_is_given() -> None:
    path = install.config_path(Assistant.OPENCLAW, Scope.USER)
    env = (("FAISS_URL", "http://10.0.0.7:9000/"), ("FAISS_API_KEY", "s3cret"))
    plan_install(Assistant.OPENCLAW, Bridge(command="x", env=env)).apply()
    text = path.read_text("utf-8")
    assert ': "${FAISS_URL:=http://10.0.0.7:9000/}" ' in text
    assert "s3cret" not in text
    for odd in ('http://x/"; rm -rf ~; "', "http://x/$(id)", "http://x/}`id`", "file:///x"):
        with pytest.raises(ConfigError, match="FAISS_URL is"):
            plan_install(Assistant.OPENCLAW, Bridge(command="x", env=(("FAISS_URL", odd),)))


@pytest.mark.parametrize(
    ("assistant", "broken", "complaint"),
    [
        (Assistant.CLAUDE_CODE, '{"mcpServers": {', "not valid JSON (line 1"),
        (Assistant.CLAUDE_CODE, '{"a": 1, "a": 2}', "a key twice"),
        (Assistant.CLAUDE_CODE, "[]", "not a JSON object"),
        (Assistant.CLAUDE_DESKTOP, '{"mcpServers": []}', "mcpServers is not an object"),
        (Assistant.CLAUDE_DESKTOP, '{"mcpServers": {"faiss-memory": 1}}', "is not an object"),
        (Assistant.CODEX, "model = ", "not valid TOML"),
        (Assistant.CODEX, '[mcp_servers.faiss-memory]\ncommand="x"', "hand-written"),
        (Assistant.CODEX, 'mcp_servers = { other = { command = "x" } }', "not valid TOML"),
    ],
)
def test_a_file_that_cannot_be_edited_safely_is_refused_and_left_alone(
    assistant: Assistant, broken: str, complaint: str
) -> None:
    path = written(install.config_path(assistant, Scope.USER), broken)
    with pytest.raises(ConfigError) as refusal:
        plan_install(assistant, BRIDGE)
    assert complaint in str(refusal.value)
    assert path.read_text("utf-8") == broken
    assert backups(path) == []


def test_a_file_that_is_not_utf8_is_refused() -> None:
    path = install.config_path(Assistant.CLAUDE_CODE, Scope.USER)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ConfigError, match="cannot be read"):
        plan_install(Assistant.CLAUDE_CODE, BRIDGE)


def test_a_change_by_the_program_itself_meanwhile_is_not_lost() -> None:
    path = install.config_path(Assistant.CLAUDE_CODE, Scope.USER)
    written(path, "{}")
    edit = plan_install(Assistant.CLAUDE_CODE, BRIDGE)
    written(path, '{"startups": 2}')
    with pytest.raises(ConfigError, match="changed by someone else"):
        edit.apply()
    assert path.read_text("utf-8") == '{"startups": 2}'


@pytest.mark.skipif(os.name == "nt", reason="making symlinks needs a privilege there")
def test_a_symlinked_file_stays_a_symlink(home: Path) -> None:
    real = written(home / "dotfiles" / "claude.json", "{}")
    link = install.config_path(Assistant.CLAUDE_CODE, Scope.USER)
    link.symlink_to(real)
    plan_install(Assistant.CLAUDE_CODE, BRIDGE).apply()
    assert link.is_symlink()
    assert "faiss-memory" in real.read_text("utf-8")


def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(home / "settings", "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        Edit(path=path, before="old", after="new").apply()
    assert path.read_text("utf-8") == "old"
    assert [each.name for each in home.iterdir() if each.name.startswith(".settings")] == []


def test_the_file_a_team_shares_holds_no_key_and_no_path_of_this_machine(home: Path) -> None:
    plan_install(Assistant.CLAUDE_CODE, Bridge.of_any_machine(), Scope.PROJECT).apply()
    text = (home / "project" / ".mcp.json").read_text("utf-8")
    entry = json.loads(text)["mcpServers"]["faiss-memory"]
    assert entry["command"] == "faiss-memory-mcp"
    assert entry["env"]["FAISS_API_KEY"] == "${FAISS_API_KEY:-}"
    assert str(home) not in text


def command(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mcp_server", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_shows_does_and_undoes(home: Path) -> None:
    dry = command("install", "claude-code", "--dry-run", FAISS_API_KEY="k3y")
    assert dry.returncode == 0, dry.stderr
    assert '+    "faiss-memory": {' in dry.stdout
    assert "k3y" not in dry.stdout
    assert not (home / ".claude.json").exists()

    done = command("install", "claude-code", FAISS_API_KEY="k3y", FAISS_URL="http://h:1/")
    assert done.returncode == 0, done.stderr
    entry = json.loads((home / ".claude.json").read_text("utf-8"))["mcpServers"]["faiss-memory"]
    assert entry["env"] == {"FAISS_URL": "http://h:1/", "FAISS_API_KEY": "k3y"}
    assert (home / ".claude.json").stat().st_mode & 0o077 == 0 or os.name == "nt"
    again = command("install", "claude-code", FAISS_API_KEY="k3y", FAISS_URL="http://h:1/")
    assert "nothing to change" in again.stdout

    gone = command("uninstall", "claude-code")
    assert gone.returncode == 0, gone.stderr
    assert json.loads((home / ".claude.json").read_text("utf-8")) == {"mcpServers": {}}


def test_a_scope_that_an_assistant_does_not_have_is_refused(home: Path) -> None:
    for verb in ("install", "uninstall"):
        result = command(verb, "cursor", "--scope", "project")
        assert result.returncode == 1
        assert "for claude-code only" in result.stderr
    assert not (home / ".cursor").exists()


def test_the_command_reports_a_broken_file_in_one_line(home: Path) -> None:
    written(home / ".claude.json", "{")
    result = command("install", "claude-code")
    assert result.returncode == 1
    assert result.stderr.startswith("faiss-memory-mcp: ")
    assert "Traceback" not in result.stderr


def test_the_installed_bridge_answers(home: Path) -> None:
    """What the installer writes is run, word for word, as the assistant would."""
    command("install", "claude-desktop")
    path = install.config_path(Assistant.CLAUDE_DESKTOP, Scope.USER)
    entry = json.loads(path.read_text("utf-8"))["mcpServers"]["faiss-memory"]
    request = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "claude-ai", "version": "0.1.0"},
        },
    }
    answer = subprocess.run(
        [entry["command"], *entry["args"]],
        env={**os.environ, **entry["env"]},
        input=json.dumps(request) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(answer.stdout)["result"]["serverInfo"]["name"] == "faiss-memory"
