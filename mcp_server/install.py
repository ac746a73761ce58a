"""Plans the edits that connect an assistant to the service, and those that take it out again."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from mcp_server import config_file
from mcp_server.config_file import ConfigError, Edit
from mcp_server.identity import NAME

SKILL = Path(__file__).parent.parent / "integrations" / "openclaw-skill.md"
BLOCK_BEGIN = f"# >>> {NAME}: written by `faiss-memory-mcp install codex`, changes here are lost"
BLOCK_END = f"# <<< {NAME}"
_BLOCK = re.compile(
    rf"\n?^{re.escape(BLOCK_BEGIN)}\r?$.*?^{re.escape(BLOCK_END)}\r?$\n?", re.DOTALL | re.MULTILINE
)


class Assistant(str, Enum):
    """The assistants whose configuration can be edited."""

    CLAUDE_CODE = "claude-code"
    CLAUDE_DESKTOP = "claude-desktop"
    CODEX = "codex"
    OPENCLAW = "openclaw"


class Scope(str, Enum):
    """For whom Claude Code is configured."""

    USER = "user"
    PROJECT = "project"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """How an assistant starts the stdio bridge."""

    command: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of_this_installation(cls, env: dict[str, str]) -> Bridge:
        """The bridge that belongs to the running interpreter.

        Args:
            env: values the assistant sets for it, e.g. `FAISS_URL`.
        """
        suffix = ".exe" if sys.platform == "win32" else ""
        script = Path(sys.executable).parent / f"faiss-memory-mcp{suffix}"
        if script.exists():
            return cls(command=str(script), env=tuple(env.items()))
        return cls(command=sys.executable, args=("-m", "mcp_server"), env=tuple(env.items()))

    @classmethod
    def of_any_machine(cls) -> Bridge:
        """For a file that a team shares: found on the PATH, its settings from each one's own."""
        return cls(
            command="faiss-memory-mcp",
            env=(
                ("FAISS_URL", "${FAISS_URL:-http://localhost:8900}"),
                ("FAISS_API_KEY", "${FAISS_API_KEY:-}"),
            ),
        )


def plan_install(assistant: Assistant, bridge: Bridge, scope: Scope = Scope.USER) -> Edit:
    """The edit that connects an assistant.

    Raises:
        ConfigError: its file is broken, or holds a hand-written entry of the same name that
            cannot be merged.
    """
    path = config_path(assistant, scope)
    if assistant is Assistant.OPENCLAW:
        return Edit(path=path, before=config_file.read(path), after=_skill())
    if assistant is Assistant.CODEX:
        return _toml_edit(path, _toml_block(bridge))
    typed = {"type": "stdio"} if assistant is Assistant.CLAUDE_CODE else {}

    def put(servers: dict[str, Any]) -> None:
        entry = servers.setdefault(NAME, {})
        if not isinstance(entry, dict):
            raise ConfigError(f"{path}: mcpServers.{NAME} is not an object; nothing was changed.")
        kept_env = entry.get("env")
        env = {**(kept_env if isinstance(kept_env, dict) else {}), **dict(bridge.env)}
        # Left over from an entry that connected over HTTP.
        for key in ("url", "headers"):
            entry.pop(key, None)
        entry.update({**typed, "command": bridge.command, "args": list(bridge.args), "env": env})

    return _json_edit(path, put)


def plan_uninstall(assistant: Assistant, scope: Scope = Scope.USER) -> Edit:
    """The edit that takes an assistant's connection out. Raises `ConfigError`: a broken file."""
    path = config_path(assistant, scope)
    if assistant is Assistant.OPENCLAW:
        return Edit(path=path, before=config_file.read(path), after=None)
    if assistant is Assistant.CODEX:
        return _toml_edit(path, "")
    return _json_edit(path, lambda servers: servers.pop(NAME, None))


def config_path(assistant: Assistant, scope: Scope) -> Path:
    """The file an assistant reads."""
    if assistant is Assistant.CLAUDE_CODE:
        return Path.cwd() / ".mcp.json" if scope is Scope.PROJECT else Path.home() / ".claude.json"
    if assistant is Assistant.CODEX:
        return Path(os.environ.get("CODEX_HOME") or Path.home() / ".codex") / "config.toml"
    if assistant is Assistant.OPENCLAW:
        return Path.home() / ".openclaw" / "skills" / NAME / "SKILL.md"
    if sys.platform == "darwin":
        folder = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        folder = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    else:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return folder / "Claude" / "claude_desktop_config.json"


def _skill() -> str:
    text = config_file.read(SKILL)
    if text is None:
        raise ConfigError(f"{SKILL} is missing: install from a checkout of the project.")
    return text


def _json_edit(path: Path, change: Callable[[dict[str, Any]], object]) -> Edit:
    """Change `mcpServers` of a JSON file and nothing else."""
    before = config_file.read(path)
    content = (before or "").removeprefix("\ufeff")
    root = _parsed_json(path, content) if content.strip() else {}
    servers = root.get("mcpServers", {})
    if not isinstance(servers, dict):
        raise ConfigError(f"{path}: mcpServers is not an object; nothing was changed.")
    was = json.dumps(servers)
    change(servers)
    if json.dumps(servers) == was:
        return Edit(path=path, before=before, after=before)
    root["mcpServers"] = servers
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


def _toml_edit(path: Path, block: str) -> Edit:
    """Put a marked block of text at the end of a TOML file, or take it out.

    As text, so that comments, order and formatting of the rest stay; parsed before and after to
    make sure that it is valid and that the block changed nothing else.
    """
    before = config_file.read(path)
    rest = _BLOCK.sub("", before or "")
    settings = _parsed_toml(path, rest)
    if block and NAME in settings.get("mcp_servers", {}):
        raise ConfigError(
            f"{path} already has a hand-written [mcp_servers.{NAME}]; remove it first, or keep it "
            "and skip this. Nothing was changed."
        )
    if not block:
        return Edit(path=path, before=before, after=None if before is None else rest)
    gap = "\n" if rest.strip() else ""
    after = (rest if not rest or rest.endswith("\n") else f"{rest}\n") + gap + block
    changed = _parsed_toml(path, after)
    changed["mcp_servers"].pop(NAME)
    if not settings.get("mcp_servers"):
        changed.pop("mcp_servers")
        settings.pop("mcp_servers", None)
    if changed != settings:
        raise ConfigError(f"{path} cannot be extended safely. Nothing was changed. Add:\n{block}")
    return Edit(path=path, before=before, after=after)


def _parsed_toml(path: Path, content: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        return tomllib.loads(content)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(
            f"{path} is not valid TOML ({exc}); correct it first. Nothing was changed."
        ) from exc


def _toml_block(bridge: Bridge) -> str:
    # A JSON string is a TOML basic string, but for DEL, which neither paths nor keys hold.
    env = ", ".join(f"{name} = {_quoted(value)}" for name, value in bridge.env)
    return (
        f"{BLOCK_BEGIN}\n"
        f"[mcp_servers.{NAME}]\n"
        f"command = {_quoted(bridge.command)}\n"
        f"args = [{', '.join(map(_quoted, bridge.args))}]\n"
        f"env = {{{env}}}\n"
        f"{BLOCK_END}\n"
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
