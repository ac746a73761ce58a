"""Cutting a block of text into units that a model can embed, at the best borders there are.

Units are slices: joined, they give the block back. A block that fits is one unit; else it is cut
at its widest borders (items, blank lines, sentences), and only what still does not fit is cut at
narrower ones, down to characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from engine.workspace.markup.sections import BlockKind

SENTENCE_BORDER = re.compile(
    r"(?<=[.!?…])[\"'”’»)\]*_]*\s+(?=[^\sa-z])|(?<=[。！？])(?![。！？」』）”’])"
)
LINE_BORDER = re.compile(r"\n")
WORD_BORDER = re.compile(r"\s+")

_ITEM = re.compile(r"\n(?=[ \t]*(?:[-*+•]|\w{1,9}[.)])[ \t])")
_BLANK = re.compile(r"\n(?:[ \t]*\n)+")
_MARK = re.compile(r"[\W_]")
_FRAGMENT = re.compile(r"(?s).{40}")

CUT_MARK = "…"

MAX_CHARS = 10_000
"""Of a chunk: a model may count a long run without borders as a single unknown piece."""

_GRAIN = 40
"""Characters below which neighbouring units stay together, so that counting stays cheap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    border: re.Pattern[str]
    grain: int = _GRAIN


_WITHIN_LINES = (
    _Cut(border=WORD_BORDER),
    _Cut(border=WORD_BORDER, grain=1),
    _Cut(border=_MARK),
    _Cut(border=_FRAGMENT),
)
_CUTS: dict[BlockKind, tuple[_Cut, ...]] = {
    "prose": (_Cut(border=SENTENCE_BORDER), _Cut(border=LINE_BORDER), *_WITHIN_LINES),
    "list": (
        _Cut(border=_ITEM),
        _Cut(border=SENTENCE_BORDER),
        _Cut(border=LINE_BORDER),
        *_WITHIN_LINES,
    ),
    "verbatim": (_Cut(border=_BLANK), _Cut(border=LINE_BORDER), *_WITHIN_LINES),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A slice of a block that fits into a chunk."""

    text: str
    weight: int
    """What it takes of the budget, in pieces."""
    above: str = ""
    """What it cannot be read without when it comes first in a chunk."""


class Splitter:
    """Cuts blocks into units of at most `budget` pieces.

    `count_pieces` counts special pieces too. Each character is counted once per kind of border
    tried, so the cost is linear in the text.
    """

    def __init__(self, count_pieces: Callable[[str], int], *, budget: int) -> None:
        self._count_pieces = count_pieces
        self._n_special = count_pieces("")
        self.budget = budget

    def with_budget(self, budget: int) -> Splitter:
        """The same counting with another budget."""
        return Splitter(self._count_pieces, budget=budget)

    def weigh(self, text: str) -> int:
        """Pieces of `text` without special ones, or its share of `MAX_CHARS` if that is more."""
        share = -(-len(text) * self.budget // MAX_CHARS)
        if share > self.budget:
            return share
        return max(share, self._count_pieces(text) - self._n_special)

    def shortened(self, text: str, budget: int) -> str:
        """The beginning of a text, with a mark where it is cut; empty when nothing fits."""
        if self.weigh(text) <= budget:
            return text
        if budget < 1:
            return ""
        first = next(self.with_budget(max(budget - 1, 1)).split(text, "prose"))
        return first.text.rstrip() + CUT_MARK

    def split(self, text: str, kind: BlockKind) -> Iterator[Unit]:
        """Cut `text` into units, in order."""
        return self._split(text, _CUTS[kind])

    def _split(self, text: str, cuts: tuple[_Cut, ...]) -> Iterator[Unit]:
        weight = self.weigh(text)
        if weight <= self.budget or len(text) == 1:
            yield Unit(text=text, weight=weight)
        elif cuts:
            for part in _cut(text, cuts[0]):
                yield from self._split(part, cuts[1:])
        else:
            middle = len(text) // 2
            yield from self._split(text[:middle], ())
            yield from self._split(text[middle:], ())


def _cut(text: str, cut: _Cut) -> Iterator[str]:
    start = 0
    for border in cut.border.finditer(text):
        if border.end() - start >= cut.grain and border.end() < len(text):
            yield text[start : border.end()]
            start = border.end()
    yield text[start:]
