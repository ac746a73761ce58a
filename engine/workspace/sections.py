"""Workspace files as sections: heading paths and the blocks of text below them.

A parser never drops words: whatever is no heading ends up in a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from markdown_it import MarkdownIt

from engine.workspace.front_matter import FrontMatter, split_front_matter
from engine.workspace.rst_titles import title_at, transition_at
from engine.workspace.wiki_links import without_links

MARKDOWN_SUFFIXES = frozenset({".md", ".markdown", ".mdx"})
RST_SUFFIXES = frozenset({".rst"})
TEXT_SUFFIXES = frozenset({".txt", ".text"})

BlockKind = Literal["prose", "list", "verbatim"]
"""How a block may be split: at sentences, at items, or at lines (code, tables, HTML)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Text that belongs together: a paragraph, a list, a fence, a table."""

    text: str
    kind: BlockKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What stands under one heading, down to the next heading of any level."""

    headings: tuple[str, ...]
    """From the outermost heading to the section's own; empty before the first heading."""
    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A file's sections, and what it says of itself."""

    sections: list[Section]
    front_matter: FrontMatter | None = None


def parse_document(relative_path: str, text: str) -> Document:
    """Parse a file by its suffix; an unknown suffix is read as plain text."""
    path = PurePosixPath(relative_path)
    suffix = path.suffix.lower()
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if suffix not in MARKDOWN_SUFFIXES:
        return Document(
            sections=_restructured_text(text) if suffix in RST_SUFFIXES else _plain(text)
        )
    front_matter, body = split_front_matter(text)
    sections = _markdown(body)
    if front_matter is not None:
        sections = _named(sections, front_matter, file_name=path.stem)
    return Document(sections=sections, front_matter=front_matter)


def _named(sections: list[Section], front: FrontMatter, *, file_name: str) -> list[Section]:
    """Sections below the title of their note, whose summary stands first."""
    filled = [section for section in sections if section.blocks or section.headings]
    first, *others = filled or [Section(headings=())]
    name = front.names if filled or front.names else file_name
    if front.summary:
        blocks = [Block(text=front.summary, kind="prose"), *first.blocks]
        first = Section(headings=first.headings, blocks=blocks)
    return [
        Section(headings=_below(name, front.title, section.headings), blocks=section.blocks)
        for section in (first, *others)
    ]


def _below(name: str, title: str, headings: tuple[str, ...]) -> tuple[str, ...]:
    """A heading path below a note's name; a first heading that repeats the title gives way."""
    if not name:
        return headings
    repeated = headings[:1] and headings[0].casefold() == title.casefold()
    return (name, *headings[1:]) if repeated else (name, *headings)


class _Outline:
    """Sections in the order of the file; knows which headings enclose the current one."""

    def __init__(self) -> None:
        self.sections = [Section(headings=())]
        self._open: list[tuple[int, str]] = []

    def heading(self, level: int, title: str) -> None:
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        self._open.append((level, " ".join(title.split())))
        self.sections.append(Section(headings=tuple(name for _, name in self._open if name)))

    def block(self, text: str, kind: BlockKind) -> None:
        if text.strip():
            self.sections[-1].blocks.append(Block(text=text.strip("\n"), kind=kind))


# CommonMark's block structure alone: inline markup stays as written. Link definitions are
# paragraphs here, since their parser would drop them from the output.
_PARSER = MarkdownIt("commonmark").enable("table").disable("reference")
_PARSER.core.ruler.enableOnly(["normalize", "block"])

_KINDS: dict[str, BlockKind] = {
    "paragraph_open": "prose",
    "blockquote_open": "prose",
    "bullet_list_open": "list",
    "ordered_list_open": "list",
}

_AS_WRITTEN = frozenset({"fence", "code_block", "html_block"})


def _markdown(text: str) -> list[Section]:
    outline = _Outline()
    lines = text.split("\n")
    n_done = 0
    tokens = _PARSER.parse(text)
    for i, token in enumerate(tokens):
        if token.level or token.map is None:
            continue  # inside another block, or the end of one
        start, end = token.map
        outline.block("\n".join(lines[n_done:start]), "prose")
        n_done = end
        content = "\n".join(lines[start:end])
        if token.type == "heading_open":
            outline.heading(int(token.tag[1:]), without_links(tokens[i + 1].content))
        elif token.type in _AS_WRITTEN:
            outline.block(content, "verbatim")
        elif token.type != "hr":
            outline.block(without_links(content), _KINDS.get(token.type, "verbatim"))
    outline.block("\n".join(lines[n_done:]), "prose")
    return outline.sections


_LIST_ITEM = re.compile(r"(?:[-*+•]|\w{1,9}[.)]|\(\w{1,9}\))\s")


def _restructured_text(text: str) -> list[Section]:
    outline = _Outline()
    lines = text.split("\n")
    styles: list[str] = []  # adornments in order of appearance, which is the order of levels
    i = 0
    while i < len(lines):
        if not lines[i].strip() or transition_at(lines, i):
            i += 1
        elif title := title_at(lines, i):
            if title.style not in styles:
                styles.append(title.style)
            outline.heading(styles.index(title.style), title.text)
            i += title.n_lines
        else:
            end = _rst_block_end(lines, i)
            outline.block("\n".join(lines[i:end]), _rst_kind(lines[i:end]))
            i = end
    return outline.sections


def _rst_block_end(lines: list[str], start: int) -> int:
    end = start
    while end < len(lines) and lines[end].strip():
        end += 1
    if lines[start].startswith("..") or lines[end - 1].rstrip().endswith("::"):
        # A directive or a literal block owns the indented lines that follow, blank ones between.
        while end < len(lines) and (not lines[end].strip() or lines[end][0].isspace()):
            end += 1
    return end


def _rst_kind(lines: list[str]) -> BlockKind:
    if _LIST_ITEM.match(lines[0]):
        return "list"
    special = lines[0][0].isspace() or lines[0].startswith(("..", ">>>", "+-", "="))
    return "verbatim" if special or any(line[:1].isspace() for line in lines) else "prose"


def _plain(text: str) -> list[Section]:
    outline = _Outline()
    for paragraph in _paragraphs(text):
        outline.block(paragraph, "prose")
    return outline.sections


def _paragraphs(text: str) -> Iterator[str]:
    paragraph: list[str] = []
    for line in text.split("\n"):
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield "\n".join(paragraph)
            paragraph = []
    yield "\n".join(paragraph)
