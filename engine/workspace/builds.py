"""What a build of workspace files changes: chunks compared with the stored ones."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.records import BuildPlan, Chunk, Memory, MemoryFilter
from engine.workspace.chunking import chunk_file
from engine.workspace.confined_file import EMPTY
from engine.workspace.workspace import Workspace

_CHUNK_SOURCE = re.compile(r"(?s)(.*):chunk_\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkMatch:
    """Chunks set against the stored memories of the same files."""

    new: list[int]
    """Positions of the chunks that no stored memory holds."""
    kept: list[tuple[int, Memory]]
    """Positions of the chunks that one holds, and it."""
    gone: list[Memory]
    """Stored memories that no chunk wants."""


def file_of(source: str) -> str | None:
    """The workspace file of a chunk's source; None for any other source."""
    match = _CHUNK_SOURCE.fullmatch(source)
    return match[1] if match else None


def match_chunks(chunks: Sequence[Chunk], stored: Sequence[Memory]) -> ChunkMatch:
    """Pair chunks and memories of the same file and text, in order, each at most once.

    By text and not by number: a paragraph put in at the top moves every number below it, but
    changes no text there. A memory with a key is another owner's and no chunk of the file.
    """
    waiting: dict[tuple[str | None, str], deque[Memory]] = defaultdict(deque)
    for memory in stored:
        file = file_of(memory.source) if memory.key is None else None
        waiting[file, memory.text].append(memory)
    new: list[int] = []
    kept: list[tuple[int, Memory]] = []
    for position, chunk in enumerate(chunks):
        same = waiting.get((file_of(chunk.source), chunk.text))
        if same:
            kept.append((position, same.popleft()))
        else:
            new.append(position)
    return ChunkMatch(new=new, kept=kept, gone=[m for rest in waiting.values() for m in rest])


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
        to_embed=match.new,
        skipped=read.skipped,
        replace_all=replace_all,
    )
