"""Which project a directory belongs to: its repository, of which all worktrees are one."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from scripts.cli.readers.identity import utf8

_OFF = ".faiss-memory-off"
_NAMELESS = "root"


@functools.cache
def project_of(directory: str) -> str | None:
    """A project's name: the repository's by its common git directory, else the directory's own.

    None where a file `.faiss-memory-off` says that nothing is remembered. A directory that is gone
    is told by those above it.
    """
    start = Path(os.path.realpath(directory))
    for at in (start, *start.parents):
        if (at / _OFF).exists():
            return None
        git = at / ".git"
        if git.exists():
            return utf8(_name(_common(git)))
    return utf8(start.name) or _NAMELESS


def _common(git: Path) -> Path:
    """The git directory that a repository's worktrees share."""
    if not git.is_file():
        return Path(os.path.realpath(git))
    try:
        own = git.parent / git.read_text("utf-8").partition("gitdir:")[2].strip()
        shared = own / "commondir"
        if shared.is_file():  # a worktree; a submodule has none
            own = own / shared.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return git
    return Path(os.path.realpath(own))


def _name(common: Path) -> str:
    top = common.parent if common.name == ".git" else common
    return top.name.removesuffix(".git") or _NAMELESS
