"""Plans the edits that connect an assistant to the service, and those that take it out again."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

from mcp_server.identity import NAME
from mcp_server.installer import codex_config, config_file
from mcp_server.installer.bridge_command import Bridge
from mcp_server.installer.config_file import ConfigError, Edit

SKILL = Path(__file__).with_name("openclaw-skill.md")
"""A link to the one in `integrations`, followed where a wheel is built."""
SKILL_URL = "${FAISS_URL:=http://localhost:8900}"
_PLAIN_URL = re.compile(r"https?://[\w.~:/?#@!&()*+,;=%\[\]-]+")


class Assistant(str, Enum):
    """The assistants whose configuration can be edited."""

    CLAUDE_CODE = "claude-code"
    CLAUDE_DESKTOP = "claude-desktop"
    CODEX = "codex"
    CURSOR = "cursor"
    VSCODE = "vscode"
    OPENCLAW = "openclaw"


class Scope(str, Enum):
    """For whom an assistant is configured."""

    USER = "user"
    PROJECT = "project"


def plan_install(assistant: Assistant, bridge: Bridge, scope: Scope = Scope.USER) -> Edit:
    """The edit that connects an assistant.

    Raises:
        ConfigError: its file is broken, or holds a hand-written entry of the same name that
            cannot be merged.
    """
    path = config_path(assistant, scope)
    if assistant is Assistant.OPENCLAW:
        skill = _skill(dict(bridge.env).get("FAISS_URL"))
        return Edit(path=path, before=config_file.read(path), after=skill)
    if assistant is Assistant.CODEX:
        return codex_config.plan_install(path, bridge)
    typed = {"type": "stdio"} if assistant in (Assistant.CLAUDE_CODE, Assistant.VSCODE) else {}

    def put(servers: dict[str, Any]) -> None:
        entry = servers.setdefault(NAME, {})
        if not isinstance(entry, dict):
            raise ConfigError(f"{path}: the entry {NAME} is not an object; nothing was changed.")
        # Left over from an entry that connected over HTTP.
        for key in ("url", "headers"):
            entry.pop(key, None)
        entry.update({**typed, **bridge.over(entry), **typed})

    return _json_edit(path, _servers_key(assistant), put)


def plan_uninstall(assistant: Assistant, scope: Scope = Scope.USER) -> Edit:
    """The edit that takes an assistant's connection out. Raises `ConfigError`: a broken file."""
    path = config_path(assistant, scope)
    if assistant is Assistant.OPENCLAW:
        return Edit(path=path, before=config_file.read(path), after=None)
    if assistant is Assistant.CODEX:
        return codex_config.plan_uninstall(path)
    return _json_edit(path, _servers_key(assistant), lambda servers: servers.pop(NAME, None))


def config_path(assistant: Assistant, scope: Scope) -> Path:
    """The file an assistant reads."""
    if assistant is Assistant.CLAUDE_CODE:
        return Path.cwd() / ".mcp.json" if scope is Scope.PROJECT else Path.home() / ".claude.json"
    if assistant is Assistant.CODEX:
        return Path(os.environ.get("CODEX_HOME") or Path.home() / ".codex") / "config.toml"
    if assistant is Assistant.OPENCLAW:
        return Path.home() / ".openclaw" / "skills" / NAME / "SKILL.md"
    if assistant is Assistant.CURSOR:
        return Path.home() / ".cursor" / "mcp.json"
    if assistant is Assistant.VSCODE:
        return _settings_folder() / "Code" / "User" / "mcp.json"
    return _settings_folder() / "Claude" / "claude_desktop_config.json"


def _settings_folder() -> Path:
    """Where programs with a window keep their settings."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def _servers_key(assistant: Assistant) -> str:
    return "servers" if assistant is Assistant.VSCODE else "mcpServers"


def _skill(url: str | None) -> str:
    """The skill, with the address of the service that it is to use unless told otherwise."""
    text = config_file.read(SKILL)
    if text is None:
        raise ConfigError(f"{SKILL} is missing: install faiss-memory again.")
    if url is None:
        return text
    # It becomes part of a shell script.
    if not _PLAIN_URL.fullmatch(url):
        raise ConfigError(f"FAISS_URL is {url!r}; expected something like http://localhost:8900")
    return text.replace(SKILL_URL, f"${{FAISS_URL:={url}}}")


def _json_edit(path: Path, key: str, change: Callable[[dict[str, Any]], object]) -> Edit:
    """Change the servers of a JSON file and nothing else."""
    before = config_file.read(path)
    content = (before or "").removeprefix("\ufeff")
    root = _parsed_json(path, content) if content.strip() else {}
    servers = root.get(key, {})
    if not isinstance(servers, dict):
        raise ConfigError(f"{path}: {key} is not an object; nothing was changed.")
    was = json.dumps(servers)
    change(servers)
    if json.dumps(servers) == was:
        return Edit(path=path, before=before, after=before)
    root[key] = servers
    indent = re.search(r"^([ \t]+)\"", content, re.MULTILINE)
    after = json.dumps(root, ensure_ascii=False, indent=indent.group(1) if indent else 2)
    return Edit(path=path, before=before, after=after + "\n")


def _parsed_json(path: Path, content: str) -> dict[str, Any]:
    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ConfigError(f"{path} has a key twice; correct it first. Nothing was changed.")
        return dict(pairs)

    try:
        root = json.loads(content, object_pairs_hook=without_duplicates)
    except json.JSONDecodeError as exc:
        raise ConfigError(
            f"{path} is not valid JSON (line {exc.lineno}, column {exc.colno}: {exc.msg}); "
            "correct it first. Nothing was changed."
        ) from exc
    if not isinstance(root, dict):
        raise ConfigError(f"{path} is not a JSON object. Nothing was changed.")
    return root
