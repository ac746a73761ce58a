"""Filling the chunks of one section with its blocks, and saying what stands above each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from engine.workspace.markup.list_items import ListItems
from engine.workspace.markup.sections import Block
from engine.workspace.passages import joined
from engine.workspace.splitting import LINE_BORDER, SENTENCE_BORDER, WORD_BORDER, Splitter, Unit

_ABOVE_SHARE = 4
"""What a slice of a block cannot be read without may take one part in this many of a chunk."""

_BETWEEN_BLOCKS = "\n\n"


class Packing:
    """The chunks of one section."""

    def __init__(
        self, splitter: Splitter, *, headings: str, title: str, overlap_chars: int
    ) -> None:
        """Prepare it.

        Args:
            splitter: with the budget of a chunk.
            headings: what every chunk's text begins with.
            title: what stands above every chunk beside that.
            overlap_chars: about so much of a chunk's end is repeated in the next one.
        """
        self._splitter = splitter
        self._headings = headings
        self._title = title
        self._overlap_chars = overlap_chars
        self._budget = splitter.budget - splitter.weigh(headings) - splitter.weigh(title)

    def pack(self, blocks: Sequence[Block]) -> Iterator[tuple[str, str]]:
        """Contexts and texts of the chunks, in order."""
        units: list[Unit] = []
        tail, weight = Unit(text="", weight=0), 0
        for unit in self._units(blocks):
            if units and weight + unit.weight > self._budget:
                yield from self._join(tail, units)
                above = self._splitter.weigh(unit.above)
                tail = self._tail(units, room=self._budget - unit.weight - above)
                units, weight = [], tail.weight + above
            units.append(unit)
            weight += unit.weight
        yield from self._join(tail, units)

    def _units(self, blocks: Sequence[Block]) -> Iterator[Unit]:
        for n, block in enumerate(blocks):
            between = _BETWEEN_BLOCKS if n else ""
            for unit in self._split(block):
                yield Unit(text=between + unit.text, weight=unit.weight, above=unit.above)
                between = ""

    def _split(self, block: Block) -> Iterator[Unit]:
        """Slices of a block, each with what stands above it."""
        whole = self._splitter.with_budget(self._budget)
        weight = whole.weigh(block.text)
        if weight <= self._budget:
            yield Unit(text=block.text, weight=weight)
            return
        room = max(self._budget // _ABOVE_SHARE, 0)
        items = ListItems(block.text) if block.kind == "list" else None
        if items is None:
            room = self._splitter.weigh(self._fitting(block.above, room))
        slices = list(self._splitter.with_budget(self._budget - room).split(block.text, block.kind))
        above: dict[tuple[str, ...], str] = {}
        for start, unit in zip(_starts(slices), slices, strict=True):
            lines = block.above if start else ()
            if items is not None:
                lines += items.above(start)
            if lines not in above:
                above[lines] = self._fitting(lines, room)
            yield Unit(text=unit.text, weight=unit.weight, above=above[lines])

    def _fitting(self, lines: Sequence[str], room: int) -> str:
        """As many of the lines as there is room for, the last ones first."""
        for first in range(len(lines)):
            text = "\n".join(lines[first:])
            if self._splitter.weigh(text) <= room:
                return text
        return self._splitter.shortened(lines[-1], room) if lines else ""

    def _tail(self, units: Sequence[Unit], *, room: int) -> Unit:
        """The end of a chunk to repeat in the next: whole sentences or lines, else words."""
        text = "".join(unit.text for unit in units)
        n_chars = min(self._overlap_chars, len(text.strip()) // 2)
        while n_chars > 0:
            tail = _tail_from(text, len(text) - n_chars)
            start = len(text) - len(tail)
            above = next(
                unit.above
                for begin, unit in reversed(list(zip(_starts(units), units, strict=True)))
                if begin <= start
            )
            weight = self._splitter.weigh(tail) + self._splitter.weigh(above)
            if weight <= room:
                return Unit(text=tail, weight=weight, above=above)
            n_chars = len(tail) // 2
        return Unit(text="", weight=0)

    def _join(self, tail: Unit, units: Sequence[Unit]) -> Iterator[tuple[str, str]]:
        """Make one chunk of the units, or more where their joint count exceeds the sum."""
        body = (tail.text + "".join(unit.text for unit in units)).strip("\n").rstrip()
        if not body:
            return  # a run of white space
        text = _BETWEEN_BLOCKS.join(filter(None, (self._headings, body)))
        above = (self._title, tail.above if tail.text else "", units[0].above)
        lines = dict.fromkeys("\n".join(filter(None, above)).split("\n"))
        context = "\n".join(lines)
        if self._splitter.weigh(joined(context, text)) <= self._splitter.budget:
            yield context, text
        elif tail.text:
            yield from self._join(Unit(text="", weight=0), units)
        elif len(units) > 1:
            middle = len(units) // 2
            yield from self._join(tail, units[:middle])
            yield from self._join(tail, units[middle:])
        else:
            yield "", body


def _starts(units: Sequence[Unit]) -> list[int]:
    """Where each unit begins in all of them."""
    return [0, *accumulate(len(unit.text) for unit in units)][: len(units)]


def _tail_from(text: str, start: int) -> str:
    """The text after the best border at or soon after `start`; empty if there is none."""
    latest = start + (len(text) - start) // 2
    for border in (SENTENCE_BORDER, LINE_BORDER):
        found = border.search(text, start)
        if found and found.end() <= latest:
            return text[found.end() :]
    word = WORD_BORDER.search(text, start)
    return text[word.end() :] if word else ""
