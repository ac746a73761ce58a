"""README and `docs/` as one script: commands, the output shown for them, and how to compare it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from tests import ROOT

README = ROOT / "README.md"
_PAGE_ROW = re.compile(r"^\| .+ \| \[.+\]\((docs/[\w-]+\.md)\) \|$", re.M)
PAGES = [*(ROOT / name for name in _PAGE_ROW.findall(README.read_text("utf-8"))), README]
"""As the README lists them; then itself, which begins with what the first of them shows."""
TEXT = "\n\n".join(page.read_text("utf-8") for page in PAGES)

BACKUP_NAME = re.compile(r"\b([a-z_]+)_\d{8}_\d{6}(_\d+)?\b")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")
_SIMILARITY_TOLERANCE = 0.03
"""What the precisions of the model may differ by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of commands."""

    page: str
    """The path of its file, from the root."""
    line: int
    """In that file, from 1."""
    heading: str
    """The nearest heading above."""
    commands: list[str]
    """One a line."""
    shown: list[Any] | None
    """The JSON documents that the next fence shows as the output; None when none does."""


def bash_blocks() -> list[Block]:
    """Every fenced bash block of all pages, in order; one that stands on two pages comes once."""
    blocks: dict[str, Block] = {}
    for page in PAGES:
        for block in _bash_blocks_of(page):
            blocks.setdefault(repr((block.commands, block.shown)), block)
    return list(blocks.values())


def _bash_blocks_of(page: Path) -> list[Block]:
    tokens = MarkdownIt("commonmark").enable("table").parse(page.read_text("utf-8"))
    blocks, heading = [], ""
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            heading = tokens[at + 1].content
        if token.type == "fence" and token.info == "bash":
            after = tokens[at + 1] if at + 1 < len(tokens) else None
            shows = after is not None and after.type == "fence" and after.info == "json"
            assert token.map is not None
            blocks.append(
                Block(
                    page=str(page.relative_to(ROOT)),
                    line=token.map[0] + 1,
                    heading=heading,
                    commands=token.content.splitlines(),
                    shown=documents(after.content) if after is not None and shows else None,
                )
            )
    return blocks


def first_cells(text: str, heading: str) -> list[str]:
    """The code words in the first column of the tables right under a heading."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    cells: list[str] = []
    current, column = "", 0
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            current = tokens[at + 1].content
        elif token.type == "tr_open":
            column = 0
        elif token.type == "td_open":
            column += 1
            if current == heading and column == 1:
                inline = tokens[at + 1].children or []
                cells += [part.content for part in inline if part.type == "code_inline"]
    return cells


def documents(text: str) -> list[Any]:
    """The JSON documents that stand one after another in a text."""
    decoder, found, text = json.JSONDecoder(), [], text.strip()
    while text:
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:].lstrip()
    return found


def comparable(value: Any, key: str = "") -> Any:
    """A document without what differs from run to run."""
    if isinstance(value, dict):
        return {name: comparable(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [comparable(inner) for inner in value]
    if isinstance(value, float) and key in ("similarity", "score"):
        return pytest.approx(value, abs=_SIMILARITY_TOLERANCE)
    if isinstance(value, str):
        value = re.sub(r"^/.*/(?=backups/)", "", value)
        return BACKUP_NAME.sub(r"\1_<time>", _TIMESTAMP.sub("<time>", value))
    return value
