"""What a build of workspace files changes: chunks compared with the stored ones."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from engine.records import BuildPlan, Chunk, Memory, MemoryFilter
from engine.workspace.chunking import chunk_file
from engine.workspace.confined_file import EMPTY
from engine.workspace.passages import file_of, text_in_context
from engine.workspace.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkMatch:
    """Chunks set against the stored memories of the same files."""

    new: list[int]
    """Positions of the chunks that no stored memory holds."""
    kept: list[tuple[int, Memory]]
    """Positions of the chunks that one holds, and it."""
    moved: list[tuple[int, Memory]]
    """Likewise, where another context stands above the same text now."""
    gone: list[Memory]
    """Stored memories that no chunk wants."""


def match_chunks(chunks: Sequence[Chunk], stored: Sequence[Memory]) -> ChunkMatch:
    """Pair chunks and memories of the same file and text, in order, each at most once.

    By text and not by number: a paragraph put in at the top moves every number below it, but
    changes no text there. A memory with a key is another owner's and no chunk of the file.
    """
    own = [memory for memory in stored if memory.key is None]
    kept, new, rest = _paired(range(len(chunks)), chunks, own, text_in_context)
    moved, new, rest = _paired(new, chunks, rest, lambda passage: passage.text)
    others = [memory for memory in stored if memory.key is not None]
    return ChunkMatch(new=new, kept=kept, moved=moved, gone=[*rest, *others])


def _paired(
    positions: Iterable[int],
    chunks: Sequence[Chunk],
    stored: Sequence[Memory],
    words_of: Callable[[Chunk | Memory], str],
) -> tuple[list[tuple[int, Memory]], list[int], list[Memory]]:
    """Chunks with a memory of the same words, those without one, and the memories left over."""
    waiting: dict[tuple[str | None, str], deque[Memory]] = defaultdict(deque)
    for memory in stored:
        waiting[file_of(memory.source), words_of(memory)].append(memory)
    pairs: list[tuple[int, Memory]] = []
    without: list[int] = []
    for position in positions:
        chunk = chunks[position]
        if same := waiting.get((file_of(chunk.source), words_of(chunk))):
            pairs.append((position, same.popleft()))
        else:
            without.append(position)
    return pairs, without, [memory for left in waiting.values() for memory in left]


def stored_chunks(
    files: Sequence[str],
    matching: Callable[[MemoryFilter], list[Memory]],
    *,
    replace_all: bool,
) -> list[Memory]:
    """The memories that a build of `files` may keep or remove; with `replace_all` every one.

    A passage that somebody put there under a key of theirs is not the build's.
    """
    if replace_all:
        return matching(MemoryFilter())
    return [
        memory
        for path in files
        for memory in matching(MemoryFilter(source_prefix=f"{path}:chunk_"))
        if memory.key is None and file_of(memory.source) == path
    ]


def plan_build(
    workspace: Workspace,
    sources: Sequence[str] | None,
    matching: Callable[[MemoryFilter], list[Memory]],
    *,
    replace_all: bool,
    count_pieces: Callable[[str], int],
    max_pieces: int,
) -> BuildPlan:
    """Read and chunk workspace files, and say which chunks need an embedding.

    Raises:
        PathNotAllowedError, InvalidInputError: see `Workspace.read`.
    """
    read = workspace.read(sources)
    chunks = [
        chunk
        for path, text in read.files
        for chunk in chunk_file(path, text, count_pieces=count_pieces, max_pieces=max_pieces)
    ]
    emptied = [skipped.path for skipped in read.skipped if skipped.reason == EMPTY]
    files = [path for path, _ in read.files] + emptied
    match = match_chunks(chunks, stored_chunks(files, matching, replace_all=replace_all))
    return BuildPlan(
        files=files,
        chunks=chunks,
        to_embed=sorted([*match.new, *(position for position, _ in match.moved)]),
        skipped=read.skipped,
        replace_all=replace_all,
    )
