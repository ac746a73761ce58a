"""Edits of Codex's `config.toml`.

As text, so that comments, order and formatting of the rest stay; parsed before and after to make
sure that the edit is valid and changed nothing else. Codex writes the file anew for its own
changes and drops comments, so an entry is known by what it starts, not by the marks around it.
"""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mcp_server.identity import NAME
from mcp_server.installer import config_file
from mcp_server.installer.bridge_command import Bridge, starts_bridge
from mcp_server.installer.config_file import ConfigError, Edit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BLOCK_BEGIN = f"# >>> {NAME}: written by `faiss-memory-mcp install codex`, changes here are lost"
BLOCK_END = f"# <<< {NAME}"

_MARKS = re.compile(rf"^(?:{re.escape(BLOCK_BEGIN)}|{re.escape(BLOCK_END)})\r?$\n?", re.MULTILINE)
_MARKED = re.compile(
    rf"^{re.escape(BLOCK_BEGIN)}\r?\n\[mcp_servers\.{re.escape(NAME)}\]", re.MULTILINE
)
_HEADER = re.compile(r"^[ \t]*\[.*\][ \t]*(?:#.*)?\r?$", re.MULTILINE)
_TRAILING_COMMENTS = re.compile(r"(?:^[ \t]*(?:#.*)?\r?(?:\n|\Z))+\Z", re.MULTILINE)
_OUR_KEYS = re.compile(r"^[ \t]*(?:command|args|env)[ \t]*=.*(?:\n|\Z)", re.MULTILINE)

Settings = dict[str, Any]


def plan_install(path: Path, bridge: Bridge) -> Edit:
    """The edit that adds the bridge, or brings the entry that starts one up to date.

    Raises:
        ConfigError: the file is broken, or an entry of the same name starts something else.
    """
    before = config_file.read(path)
    text = before or ""
    settings = _parsed(path, text)
    servers = settings.get("mcp_servers", {})
    names = _ours(text, servers)
    if not names and NAME in servers:
        raise ConfigError(
            f"{path} already has a hand-written [mcp_servers.{NAME}]; remove it first, or keep it "
            "and skip this. Nothing was changed."
        )
    name = names[0] if names else NAME
    old = servers.get(name, {})
    entry = bridge.over(old)
    if {"args": [], "env": {}, **old} == entry:
        return Edit(path=path, before=before, after=before)
    expected = copy.deepcopy(settings)
    expected.setdefault("mcp_servers", {})[name] = entry
    lines = _entry_lines(entry)
    after = _updated(text, name, lines) if names else _extended(text, lines)
    return _checked(Edit(path=path, before=before, after=after), expected)


def plan_uninstall(path: Path) -> Edit:
    """The edit that takes every entry out that starts a bridge. Raises `ConfigError`."""
    before = config_file.read(path)
    if before is None:
        return Edit(path=path, before=None, after=None)
    settings = _parsed(path, before)
    after = before
    for name in _ours(before, settings.get("mcp_servers", {})):
        settings["mcp_servers"].pop(name)
        while span := next(_tables(after, name), None):
            after = _cut(after, *span)
    return _checked(Edit(path=path, before=before, after=_MARKS.sub("", after)), settings)


def _ours(text: str, servers: Settings) -> list[str]:
    """The entries that start a bridge, ours by name first."""
    names = [name for name, entry in servers.items() if starts_bridge(entry)]
    if NAME in servers and NAME not in names and _MARKED.search(text):
        names.append(NAME)
    return sorted(names, key=lambda name: name != NAME)


def _extended(text: str, lines: str) -> str:
    rest = text if not text or text.endswith("\n") else f"{text}\n"
    gap = "\n" if rest.strip() else ""
    return f"{rest}{gap}{BLOCK_BEGIN}\n[mcp_servers.{NAME}]\n{lines}{BLOCK_END}\n"


def _updated(text: str, name: str, lines: str) -> str:
    """The text with the keys that we write in place of the old ones."""
    if env := next(_tables(text, name, "env"), None):
        text = _cut(text, *env)
    if entry := next(_tables(text, name), None):
        header, _, body = text[slice(*entry)].partition("\n")
        table = f"{header}\n{lines}{_OUR_KEYS.sub('', body)}"
        text = text[: entry[0]] + table + text[entry[1] :]
    return text


def _tables(text: str, *name: str) -> Iterator[tuple[int, int]]:
    """Where the tables of `mcp_servers` below a name start and end; comments after them stay."""
    wanted = ["mcp_servers", *name]
    headers = [
        (found.start(), keys)
        for found in _HEADER.finditer(text)
        if (keys := _keys(found[0])) is not None
    ]
    ends = [*(start for start, _ in headers), len(text)][1:]
    for (start, keys), end in zip(headers, ends, strict=False):
        if keys[: len(wanted)] == wanted:
            yield start, start + len(_TRAILING_COMMENTS.sub("", text[start:end]))


def _keys(header: str) -> list[str] | None:
    """The keys of a table's header; None for what only looks like one."""
    try:
        table = tomllib.loads(header)
    except tomllib.TOMLDecodeError:
        return None
    keys = []
    while isinstance(table, dict) and table:
        [(key, table)] = table.items()
        keys.append(key)
    return keys


def _cut(text: str, start: int, end: int) -> str:
    """The text without a span and the blank line before it."""
    before = text[:start]
    return (before[:-1] if before.endswith("\n\n") else before) + text[end:]


def _checked(edit: Edit, expected: Settings) -> Edit:
    """The edit, if it is one that says what is expected and nothing else."""
    after = _parsed(edit.path, edit.after or "")
    for settings in (after, expected):
        if not settings.get("mcp_servers"):
            settings.pop("mcp_servers", None)
    if after != expected:
        raise ConfigError(
            f"{edit.path} cannot be edited safely; use `codex mcp add` and `codex mcp remove "
            f"{NAME}`. Nothing was changed."
        )
    return edit


def _parsed(path: Path, content: str) -> Settings:
    try:
        return tomllib.loads(content)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(
            f"{path} is not valid TOML ({exc}); correct it first. Nothing was changed."
        ) from exc


def _entry_lines(entry: Settings) -> str:
    env = ", ".join(f"{name} = {_quoted(value)}" for name, value in entry["env"].items())
    return (
        f"command = {_quoted(entry['command'])}\n"
        f"args = [{', '.join(map(_quoted, entry['args']))}]\n"
        f"env = {{{env}}}\n"
    )


def _quoted(text: str) -> str:
    # A JSON string is a TOML basic string, but for DEL, which neither paths nor keys hold.
    return json.dumps(text, ensure_ascii=False)
