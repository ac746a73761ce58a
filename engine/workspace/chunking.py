"""Workspace files as chunks: passages with their heading path, small enough to embed whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest

from engine.records import Chunk
from engine.workspace.markup.sections import Block, Document, parse_document
from engine.workspace.packing import Packing
from engine.workspace.passages import CONTEXT
from engine.workspace.splitting import CUT_MARK, Splitter

MIN_MAX_PIECES = 16
"""Below this, a heading and a word could not share a chunk."""

_HEADING_SHARE = 4
"""A heading path may take one part in this many of a chunk."""

_LABEL_SHARE = 8
"""Likewise a file's label; a longer one stands in the first chunk alone."""

_BETWEEN_HEADINGS = " > "


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
    What else the text cannot be read without (see `engine.workspace.passages`) lies there too.
    Every other word of the file is in some chunk, unless it is itself too long for one.

    Args:
        relative_path: posix path in the workspace; its suffix tells the markup.
        text: the whole file.
        count_pieces: pieces the model sees in a text, special ones included, not truncated.
        max_pieces: no chunk has more, heading path and context included; at least
            `MIN_MAX_PIECES`.
        overlap_chars: about so much of a chunk's end is repeated in the next one of its section.
    """
    if max_pieces < MIN_MAX_PIECES:
        raise ValueError(f"max_pieces is {max_pieces}, expected at least {MIN_MAX_PIECES}")
    chunker = _Chunker(count_pieces, max_pieces, overlap_chars)
    document = parse_document(relative_path, text)
    front = document.front_matter
    passages = chunker.chunk(document, label="" if front is None else front.label)
    metadata = {} if front is None else front.metadata
    return [
        Chunk(
            source=f"{relative_path}:chunk_{n}",
            text=passage,
            metadata=metadata | ({CONTEXT: context} if context else {}),
        )
        for n, (context, passage) in enumerate(passages)
    ]


class _Chunker:
    def __init__(
        self, count_pieces: Callable[[str], int], max_pieces: int, overlap_chars: int
    ) -> None:
        self._overlap_chars = overlap_chars
        self._splitter = Splitter(count_pieces, budget=max_pieces - count_pieces(""))
        self._headings = self._splitter.with_budget(self._splitter.budget // _HEADING_SHARE)

    def chunk(self, document: Document, *, label: str = "") -> Iterator[tuple[str, str]]:
        """Contexts and texts of a file's chunks; `label` is about all of it."""
        sections = document.sections
        title = self._splitter.shortened(document.title, self._splitter.budget // _LABEL_SHARE)
        contexts = [self._context(section.headings) for section in sections]
        loose = [Block(text=label, kind="prose")] if label and not self._is_short(label) else []
        below = "" if loose else label
        for section, context, following in zip_longest(sections, contexts, contexts[1:]):
            blocks, loose = [*loose, *section.blocks], []
            if section.headings and not context.endswith(section.headings[-1]):
                blocks = [Block(text=section.headings[-1], kind="prose"), *blocks]
            labelled = "\n".join(filter(None, (context, below)))
            above = "" if document.title in section.headings else title
            if blocks:
                yield from self._packing(labelled, above).pack(blocks)
            elif context and not (following or "").startswith(context + _BETWEEN_HEADINGS):
                yield above, labelled

    def _packing(self, headings: str, title: str) -> Packing:
        return Packing(
            self._splitter, headings=headings, title=title, overlap_chars=self._overlap_chars
        )

    def _is_short(self, label: str) -> bool:
        return self._splitter.weigh(label) <= self._splitter.budget // _LABEL_SHARE

    def _context(self, headings: tuple[str, ...]) -> str:
        """The heading path, shortened to its share: outer headings go first, the own one last."""
        candidates = [headings]
        if len(headings) > 2:
            candidates.append((headings[0], CUT_MARK, headings[-1]))
        if len(headings) > 1:
            candidates.append((CUT_MARK, headings[-1]))
        for candidate in candidates:
            path = _BETWEEN_HEADINGS.join(candidate)
            if self._headings.weigh(path) <= self._headings.budget:
                return path
        return self._headings.shortened(headings[-1], self._headings.budget)
