"""A disk that loses power: what is left of a log of file operations, cut at any moment.

Strict about what POSIX promises and no more: a file's content survives as of its last fsync, a
name as of the last fsync of its directory. What was not synced may survive as well.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any


@dataclass(eq=False)
class File:
    content: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    unsynced: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Writes since: where and what; None cuts the file there."""

    def write(self, at: int, piece: bytes | None) -> None:
        _apply(self.content, at, piece)
        self.unsynced.append((at, piece))

    def sync(self) -> None:
        self.synced = bytes(self.content)
        self.unsynced.clear()

    def left(self, rng: random.Random | None) -> bytes:
        """The content after the cut: what was synced, and with `rng` some of the rest."""
        content = bytearray(self.synced)
        for at, piece in self.unsynced if rng else ():
            if rng and rng.random() < 0.5:
                _apply(content, at, piece)
        return bytes(content)


@dataclass(eq=False)
class Directory:
    entries: dict[str, File | Directory] = field(default_factory=dict)
    synced: dict[str, File | Directory] = field(default_factory=dict)

    def sync(self) -> None:
        self.synced = dict(self.entries)

    def left(self, rng: random.Random | None) -> dict[str, File | Directory]:
        return self.entries if rng and rng.random() < 0.5 else self.synced


def _apply(content: bytearray, at: int, piece: bytes | None) -> None:
    content.extend(bytes(max(0, at - len(content))))
    if piece is None:
        del content[at:]
    else:
        content[at : at + len(piece)] = piece


class Disk:
    """Follows a log below `root`; appends to `acks_name` there are acknowledgements, no file."""

    def __init__(self, root: Path, acks_name: str) -> None:
        self._top = Directory()
        self._prefix = PurePosixPath(root)
        self._acks_name = acks_name
        self.acknowledged: list[Any] = []

    def replay(self, log: bytes) -> Iterator[int]:
        """Yields before each sync, and at the end: the acknowledgements so far must be kept."""
        at = n_syncs = 0
        while at < len(log):
            end = log.index(b"\n", at)
            kind, path, other, offset, _, n_stored = log[at:end].decode().split("\t")
            at = end + 1 + int(n_stored)
            if kind == "s":
                yield n_syncs
                n_syncs += 1
            self._follow(kind, path, other, int(offset), log[end + 1 : at])
        yield n_syncs

    def _follow(self, kind: str, path: str, other: str, offset: int, piece: bytes) -> None:
        if path == str(self._prefix / self._acks_name):
            if kind == "w":
                self.acknowledged.append(json.loads(piece))
            return
        if path == str(self._prefix):
            self._top.sync()
            return
        directory, name = self._place(path)
        node = directory.entries.get(name)
        if kind in "cd":
            directory.entries[name] = File() if kind == "c" else Directory()
        elif kind in "ur":
            del directory.entries[name]
        elif kind in "ml":
            target, new_name = self._place(other)
            assert node is not None
            target.entries[new_name] = node
            if kind == "m":
                del directory.entries[name]
        elif kind == "s" and node is not None:  # else a file that has lost its name
            node.sync()
        elif isinstance(node, File):
            node.write(offset, piece if kind == "w" else None)

    def _place(self, path: str) -> tuple[Directory, str]:
        *parents, name = PurePosixPath(path).relative_to(self._prefix).parts
        directory = self._top
        for parent in parents:
            below = directory.entries[parent]
            assert isinstance(below, Directory)
            directory = below
        return directory, name

    def leave(self, target: Path, rng: random.Random | None = None) -> None:
        """Write what is left after a cut now; with `rng` some of what was not synced survives."""
        _leave(self._top, target, rng)


def _leave(directory: Directory, target: Path, rng: random.Random | None) -> None:
    target.mkdir()
    for name, node in directory.left(rng).items():
        if isinstance(node, File):
            (target / name).write_bytes(node.left(rng))
        else:
            _leave(node, target / name, rng)
