"""Workspace files as chunks: passages with their heading path, small enough to embed whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest

from engine.records import Chunk
from engine.workspace.sections import Block, Section, parse_document
from engine.workspace.splitting import LINE_BORDER, SENTENCE_BORDER, WORD_BORDER, Splitter, Unit

MIN_MAX_PIECES = 16
"""Below this, a heading and a word could not share a chunk."""

_HEADING_SHARE = 4
"""A heading path may take one part in this many of a chunk."""

_LABEL_SHARE = 8
"""Likewise a file's label; a longer one stands in the first chunk alone."""

_BETWEEN_HEADINGS = " > "
_BETWEEN_BLOCKS = "\n\n"
_CUT_MARK = "…"


def chunk_file(
    relative_path: str,
    text: str,
    *,
    count_pieces: Callable[[str], int],
    max_pieces: int = 256,
    overlap_chars: int = 200,
) -> list[Chunk]:
    """Cut a file into chunks, in order; the same input always gives the same chunks.

    A chunk is the path of headings above it on the first line, a blank line, and the text; the
    title, tags and date of front matter belong to the path, its fields are the chunk's metadata.
    Every other word of the file is in some chunk, unless it is itself too long for one.

    Args:
        relative_path: posix path in the workspace; its suffix tells the markup.
        text: the whole file.
        count_pieces: pieces the model sees in a text, special ones included, not truncated.
        max_pieces: no chunk has more, heading path included; at least `MIN_MAX_PIECES`.
        overlap_chars: about so much of a chunk's end is repeated in the next one of its section.
    """
    if max_pieces < MIN_MAX_PIECES:
        raise ValueError(f"max_pieces is {max_pieces}, expected at least {MIN_MAX_PIECES}")
    chunker = _Chunker(count_pieces, max_pieces, overlap_chars)
    document = parse_document(relative_path, text)
    front = document.front_matter
    texts = chunker.chunk(document.sections, label="" if front is None else front.label)
    metadata = {} if front is None else front.metadata
    return [
        Chunk(source=f"{relative_path}:chunk_{n}", text=t, metadata=metadata)
        for n, t in enumerate(texts)
    ]


class _Chunker:
    def __init__(
        self, count_pieces: Callable[[str], int], max_pieces: int, overlap_chars: int
    ) -> None:
        self._count_pieces = count_pieces
        self._max_pieces = max_pieces
        self._overlap_chars = overlap_chars
        self._splitter = Splitter(count_pieces, budget=max_pieces - count_pieces(""))
        self._headings = self._splitter.with_budget(self._splitter.budget // _HEADING_SHARE)

    def chunk(self, sections: Sequence[Section], *, label: str = "") -> Iterator[str]:
        """Chunks of a file; `label` is about all of it."""
        contexts = [self._context(section.headings) for section in sections]
        loose = [Block(text=label, kind="prose")] if label and not self._is_short(label) else []
        below = "" if loose else label
        for section, context, following in zip_longest(sections, contexts, contexts[1:]):
            blocks, loose = [*loose, *section.blocks], []
            if section.headings and not context.endswith(section.headings[-1]):
                blocks = [Block(text=section.headings[-1], kind="prose"), *blocks]
            labelled = "\n".join(filter(None, (context, below)))
            if blocks:
                yield from self._pack(labelled, blocks)
            elif context and not (following or "").startswith(context + _BETWEEN_HEADINGS):
                yield labelled

    def _is_short(self, label: str) -> bool:
        return self._splitter.weigh(label) <= self._splitter.budget // _LABEL_SHARE

    def _context(self, headings: tuple[str, ...]) -> str:
        """The heading path, shortened to its share: outer headings go first, the own one last."""
        candidates = [headings]
        if len(headings) > 2:
            candidates.append((headings[0], _CUT_MARK, headings[-1]))
        if len(headings) > 1:
            candidates.append((_CUT_MARK, headings[-1]))
        for candidate in candidates:
            path = _BETWEEN_HEADINGS.join(candidate)
            if self._headings.weigh(path) <= self._headings.budget:
                return path
        shorter = self._headings.with_budget(self._headings.budget - 1)
        return next(shorter.split(headings[-1], "prose")).text.rstrip() + _CUT_MARK

    def _pack(self, context: str, blocks: Sequence[Block]) -> Iterator[str]:
        """Fill chunks with the units of one section."""
        budget = self._splitter.budget - self._splitter.weigh(context)
        units: list[Unit] = []
        tail, weight = "", 0
        for unit in _units(blocks, self._splitter.with_budget(budget)):
            if units and weight + unit.weight > budget:
                yield from self._join(context, tail, units)
                tail = self._tail(units, room=budget - unit.weight)
                units, weight = [], self._splitter.weigh(tail)
            units.append(unit)
            weight += unit.weight
        yield from self._join(context, tail, units)

    def _tail(self, units: Sequence[Unit], *, room: int) -> str:
        """The end of a chunk to repeat in the next: whole sentences or lines, else words."""
        text = "".join(unit.text for unit in units)
        n_chars = min(self._overlap_chars, len(text.strip()) // 2)
        while n_chars > 0:
            tail = _tail_from(text, len(text) - n_chars)
            if self._splitter.weigh(tail) <= room:
                return tail
            n_chars = len(tail) // 2
        return ""

    def _join(self, context: str, tail: str, units: Sequence[Unit]) -> Iterator[str]:
        """Make one chunk of the units, or more where their joint count exceeds the sum."""
        body = (tail + "".join(unit.text for unit in units)).strip("\n").rstrip()
        text = _BETWEEN_BLOCKS.join(filter(None, (context, body)))
        if not body:
            return  # a run of white space
        if self._count_pieces(text) <= self._max_pieces:
            yield text
        elif tail:
            yield from self._join(context, "", units)
        elif len(units) > 1:
            middle = len(units) // 2
            yield from self._join(context, "", units[:middle])
            yield from self._join(context, "", units[middle:])
        else:
            yield body


def _units(blocks: Sequence[Block], splitter: Splitter) -> Iterator[Unit]:
    for n, block in enumerate(blocks):
        between = _BETWEEN_BLOCKS if n else ""
        for unit in splitter.split(block.text, block.kind):
            yield Unit(text=between + unit.text, weight=unit.weight)
            between = ""


def _tail_from(text: str, start: int) -> str:
    """The text after the best border at or soon after `start`; empty if there is none."""
    latest = start + (len(text) - start) // 2
    for border in (SENTENCE_BORDER, LINE_BORDER):
        found = border.search(text, start)
        if found and found.end() <= latest:
            return text[found.end() :]
    word = WORD_BORDER.search(text, start)
    return text[word.end() :] if word else ""
