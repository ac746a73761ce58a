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

from engine.workspace.documents import DOCUMENT_SUFFIXES
from engine.workspace.markup.front_matter import FrontMatter, split_front_matter
from engine.workspace.markup.list_items import is_list
from engine.workspace.markup.rst_titles import title_at, transition_at
from engine.workspace.markup.wiki_links import without_links

MARKDOWN_SUFFIXES = frozenset({".md", ".markdown", ".mdx"})
RST_SUFFIXES = frozenset({".rst"})
TEXT_SUFFIXES = frozenset({".txt", ".text"})

_NO_TITLES = frozenset({"", "index", "readme", "stdin"})
_NAME_MARKS = re.compile(r"[-_]+")
_LETTER = re.compile(r"[^\W_]")

BlockKind = Literal["prose", "list", "verbatim"]
"""How a block may be split: at sentences, at items, or at lines (code, tables, HTML)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Text that belongs together: a paragraph, a list, a fence, a table."""

    text: str
    kind: BlockKind
    above: tuple[str, ...] = ()
    """What a slice of it cannot be read without: what led to it, a table's heading row, a
    fence's language."""


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
    title: str
    """The heading above all others, or else its name; empty where that says nothing."""
    front_matter: FrontMatter | None = None


def parse_document(relative_path: str, text: str) -> Document:
    """Parse a file by its suffix, a document from its Markdown; any other suffix is plain text."""
    path = PurePosixPath(relative_path)
    suffix = path.suffix.lower()
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    front_matter = None
    if suffix in MARKDOWN_SUFFIXES:
        front_matter, text = split_front_matter(text)
        sections = _markdown(text)
        if front_matter is not None:
            sections = _named(sections, front_matter, file_name=path.stem)
    elif suffix in DOCUMENT_SUFFIXES:
        sections = _markdown(text)
    else:
        sections = _restructured_text(text) if suffix in RST_SUFFIXES else _plain(text)
    return Document(sections=sections, title=_title_of(path, sections), front_matter=front_matter)


def _title_of(path: PurePosixPath, sections: list[Section]) -> str:
    outermost = {section.headings[0] for section in sections if section.headings}
    if len(outermost) == 1:
        return outermost.pop()
    words = " ".join(_NAME_MARKS.split(path.stem)).strip()
    return "" if words.casefold() in _NO_TITLES or not _LETTER.search(words) else words


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

    def block(self, text: str, kind: BlockKind, head: str = "") -> None:
        """Add a block; `head` is its first line, where the others are nothing without it."""
        if text.strip():
            above = tuple(filter(None, (self._lead(kind), head)))
            self.sections[-1].blocks.append(Block(text=text.strip("\n"), kind=kind, above=above))

    def _lead(self, kind: BlockKind) -> str:
        """The line that says what a list or a table is of."""
        before = self.sections[-1].blocks[-1:]
        if kind == "prose" or not before or before[0].kind != "prose":
            return ""
        last_line = before[0].text.rsplit("\n", 1)[-1].strip()
        return last_line if last_line.endswith((":", "：")) else ""


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
            outline.block(content, "verbatim", token.info.strip())
        elif token.type != "hr":
            head = _cells(without_links(lines[start])) if token.type == "table_open" else ""
            outline.block(without_links(content), _KINDS.get(token.type, "verbatim"), head)
    outline.block("\n".join(lines[n_done:]), "prose")
    return outline.sections


_CELL_BORDER = re.compile(r"(?<!\\)\|")


def _cells(row: str) -> str:
    cells = (cell.strip() for cell in _CELL_BORDER.split(row))
    return " | ".join(filter(None, cells))


_LIST_ITEM = re.compile(r"(?:[-*+•]|\w{1,9}[.)]|\(\w{1,9}\))\s")


_RST_BORDER = re.compile(r"=+(?: +=+)+\s*|\+[-=+]+\+\s*")
_RST_COLUMNS = re.compile(r" {2,}(?!\|)")


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
            block = lines[i:end]
            outline.block("\n".join(block), _rst_kind(block), _rst_head(block))
            i = end
    return outline.sections


def _rst_block_end(lines: list[str], start: int) -> int:
    end = start
    while end < len(lines) and lines[end].strip():
        end += 1
    owns_indented = lines[start].startswith("..") or _LIST_ITEM.match(lines[start])
    if owns_indented or lines[end - 1].rstrip().endswith("::"):
        # A directive, a list or a literal block owns the indented lines that follow, blank ones
        # between.
        while end < len(lines) and (not lines[end].strip() or lines[end][0].isspace()):
            end += 1
    return end


def _rst_kind(lines: list[str]) -> BlockKind:
    if _LIST_ITEM.match(lines[0]):
        return "list"
    special = lines[0][0].isspace() or lines[0].startswith(("..", ">>>", "+-", "="))
    return "verbatim" if special or any(line[:1].isspace() for line in lines) else "prose"


def _rst_head(lines: list[str]) -> str:
    """A directive's first line, a table's heading row."""
    if lines[0].startswith(".. "):
        return lines[0][3:].strip()
    borders = [n for n, line in enumerate(lines) if _RST_BORDER.fullmatch(line)]
    heading_ends = (
        borders[1:2]
        if lines[0].startswith("=") and len(borders) > 2
        else [n for n in borders if lines[n].startswith("+=")]
    )
    if not borders or borders[0] != 0 or not heading_ends:
        return ""
    rows = (_cells(line) for line in lines[1 : heading_ends[0]])
    return " ".join(" | ".join(_RST_COLUMNS.split(row)) for row in rows)


def _plain(text: str) -> list[Section]:
    outline = _Outline()
    for paragraph in _paragraphs(text):
        outline.block(paragraph, "list" if is_list(paragraph) else "prose")
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
