"""Section titles of reStructuredText, by the rules docutils applies.

A title is a line with a line of one repeated punctuation character below it, and maybe the same
line above it. The character and whether there is a line above make the style; which style is
which level is settled by the order of first appearance.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1*\s*\Z")
_MIN_ADORNMENT = 4
"""A shorter line adorns only a title that is no longer than itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RstTitle:
    """A title found at a line."""

    text: str
    style: str
    """The adornment character, twice when there is a line above the title."""
    n_lines: int
    """Lines it takes, adornment included."""


def title_at(lines: list[str], i: int) -> RstTitle | None:
    """The title that starts at line `i`, the first line of a block; None if none does."""
    if _is_adornment(lines, i):
        overline, underline = lines[i].rstrip(), _line(lines, i + 2).rstrip()
        text = _line(lines, i + 1).strip()
        if text and overline == underline and _long_enough(overline, text):
            return RstTitle(text=text, style=overline[0] * 2, n_lines=3)
        return None
    text, underline = lines[i].strip(), _line(lines, i + 1).rstrip()
    if lines[i][0].isspace() or not _is_adornment(lines, i + 1):
        return None
    if not _long_enough(underline, text):
        return None
    return RstTitle(text=text, style=underline[0], n_lines=2)


def transition_at(lines: list[str], i: int) -> bool:
    """Whether line `i`, the first line of a block, only separates what is around it."""
    long_enough = len(lines[i].rstrip()) >= _MIN_ADORNMENT
    return long_enough and _is_adornment(lines, i) and not _line(lines, i + 1).strip()


def _line(lines: list[str], i: int) -> str:
    return lines[i] if i < len(lines) else ""


def _is_adornment(lines: list[str], i: int) -> bool:
    return _ADORNMENT.match(_line(lines, i)) is not None


def _long_enough(adornment: str, text: str) -> bool:
    return len(adornment) >= min(_MIN_ADORNMENT, len(text))
