"""Where coding assistants keep their transcripts."""

from __future__ import annotations

import os
from pathlib import Path

from scripts.cli.errors import NothingFoundError, UsageError
from scripts.cli.readers import Format

_KEPT = {
    Format.CLAUDE_CODE: ("CLAUDE_CONFIG_DIR", ".claude", "projects"),
    Format.CODEX: ("CODEX_HOME", ".codex", "sessions"),
}


def named_paths(paths: list[str] | None, format: Format) -> list[str]:
    """What a command line names; of an assistant's transcripts, by default all it keeps."""
    return paths or [str(kept_by(format))]


def kept_by(format: Format) -> Path:
    """The directory of an assistant's transcripts.

    Raises:
        UsageError: the format is not one of transcripts.
        NothingFoundError: there is none.
    """
    if format not in _KEPT:
        raise UsageError("say which files, or which transcripts: --format claude-code or codex")
    variable, home, below = _KEPT[format]
    top = Path(os.environ.get(variable) or Path.home() / home) / below
    if not top.is_dir():
        raise NothingFoundError(f"{format.value} keeps no transcripts in {top}.")
    return top
