"""Front matter: the fields that note programs put above a note, in YAML (`---`) or TOML (`+++`).

They say what the note is about and nothing by themselves: they become its passages' context and
metadata, and no passage.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, time
from typing import Any

import yaml  # type: ignore[import-untyped]

from engine.workspace.markup.wiki_links import without_links

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_CHARS = 8000
"""What is longer is taken for text: as metadata it could be more than a memory may have."""

_BLOCK = re.compile(
    r"\A(?P<fence>---|\+\+\+)[ \t]*\n"
    r"(?P<fields>(?:[ \t]*(?:#.*)?\n)*[\w\"'.][\w\"'. -]{0,60}[:=](?:.*\n)*?)"
    r"(?:(?P=fence)|\.\.\.)[ \t]*(?:\n|\Z)"
)
_FIELD = re.compile(r"([\w\"'.][\w\"'. -]{0,60}?)[ \t]*[:=][ \t]*(.*)")
_ITEM = re.compile(r"[ \t]*-[ \t]+(.*)")

_TITLES = ("title",)
_ALIASES = ("aliases", "alias")
_TAGS = ("tags", "tag", "keywords", "categories")
_DATES = ("date", "created", "created_at", "date created", "publishdate")
_SUMMARIES = ("description", "summary")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontMatter:
    """What a note says of itself; empty where it does not."""

    title: str = ""
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    date: str = ""
    """As it is written."""
    summary: str = ""
    fields: dict[str, Any]
    """All of it, as JSON can carry it."""

    @property
    def metadata(self) -> dict[str, Any]:
        """Every field, the ones known here under one name each, empty ones left out."""
        known = {
            "title": self.title,
            "aliases": list(self.aliases),
            "tags": list(self.tags),
            "date": self.date,
        }
        every = self.fields | {name: value for name, value in known.items() if value}
        return {name: value for name, value in every.items() if value not in ("", None, [], {})}

    @property
    def names(self) -> str:
        """The title with the aliases."""
        others = ", ".join(alias for alias in self.aliases if alias != self.title)
        return f"{self.title} ({others})" if self.title and others else self.title or others

    @property
    def label(self) -> str:
        """Tags and date in a line."""
        tags = f"Tags: {', '.join(self.tags)}" if self.tags else ""
        return " · ".join(filter(None, (tags, self.date)))


def split_front_matter(text: str) -> tuple[FrontMatter | None, str]:
    """What a note says of itself, if it does, and its text."""
    block = _BLOCK.match(text)
    if block is None or block.end() > MAX_CHARS:
        return None, text
    fields = _parsed(block["fields"], is_toml=block["fence"] == "+++")
    small = {name.lower(): value for name, value in reversed(fields.items())}
    return (
        FrontMatter(
            title=" ".join(_listed(small, _TITLES, sep=None)),
            aliases=_listed(small, _ALIASES),
            tags=tuple(tag.lstrip("#") for tag in _listed(small, _TAGS)),
            date=next(iter(_listed(small, _DATES, sep=None)), ""),
            summary=next(iter(_listed(small, _SUMMARIES, sep=None)), ""),
            fields=fields,
        ),
        text[block.end() :],
    )


class _Loader(yaml.BaseLoader):  # type: ignore[misc]
    """Every value a string, as it is written; what a short text could make huge is refused."""

    def compose_node(self, parent: object, index: object) -> object:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not followed")
        return super().compose_node(parent, index)


def _parsed(text: str, *, is_toml: bool) -> dict[str, Any]:
    try:
        parsed = tomllib.loads(text) if is_toml else yaml.load(text, _Loader)
        if isinstance(parsed, dict):
            return {str(name): _plain(value) for name, value in parsed.items()}
    except (ValueError, yaml.YAMLError, RecursionError):
        pass
    # `title: Notes: part 2` is no YAML, and what many write.
    return _by_line(text)


def _by_line(text: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    name = ""
    for line in text.split("\n"):
        if field := _FIELD.fullmatch(line):
            name, fields[field[1]] = field[1], _unquoted(field[2])
        elif (item := _ITEM.fullmatch(line)) and name:
            above = fields[name] if isinstance(fields[name], list) else []
            fields[name] = [*above, _unquoted(item[1])]
    return fields


def _unquoted(value: str) -> str:
    return value.strip().strip("\"'")


def _plain(value: object) -> Any:  # noqa: ANN401 (JSON)
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, (date, time)):
        return value.isoformat()
    is_json = isinstance(value, (str, bool, int)) or (
        isinstance(value, float) and math.isfinite(value)
    )
    return value if is_json else str(value)


def _listed(
    fields: dict[str, Any], names: Iterable[str], *, sep: str | None = ","
) -> tuple[str, ...]:
    """The words of the first of some fields that has any; a string is split at `sep`."""
    for name in names:
        value = fields.get(name)
        many = value if isinstance(value, list) else [value]
        if sep is not None and isinstance(value, str):
            many = value.strip("[]").split(sep)
        one_line = (" ".join(without_links(str(one)).split()) for one in many if one is not None)
        if words := tuple(filter(None, one_line)):
            return words
    return ()
