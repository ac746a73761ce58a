"""Stored texts as parts of an answer, so that none can pass for the answer's own words.

A line of a memory that could be taken for a rule between entries, an entry's head or one of our
sentences is marked with `> `. Every other line stays as it is stored.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

MARK = "> "

_OURS = r"""
    -{3}$                                   # the rule between entries
  | \[\d+\]\(-?\d+%\)                       # the head of a match
  | \[\d+\].*-\d{4}-\d\d-\d\dt\d            # the head of a memory read in full
  | (before|after)it:\[\d+\]               # what stands beside a memory of a timeline
  | \.{3}\[?\d+more                         # what was left out
  | found\d+memor | nomemor(y|ies)found | memories\(\d+-\d+of | memoryadded\(id
  | similarmemories: | duplicateskipped- | added\d+memor | item\d+repeatsmemory
  | updatedmemory\d | deletedmemory\d | deleted\d+memor | metadata:\{
  | (novel-no|notnovel-)similar | notthesame-itdiffers | memory_\w+takesno
  | faissapierror\d | couldnotreachthefaiss
"""
_LINES = re.compile(_OURS, re.VERBOSE)
_PREVIEW_LINES = re.compile(rf"\[\d+\] | {_OURS}", re.VERBOSE)

_CUT_NOTE = re.compile(r"…(?=\s*\[\d+ more characters)")
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_JSON_BREAKS = re.compile(r"[\x7f-\x9f\u2028\u2029]")


_BLANK_LETTERS = "\u115f\u1160\u2800"  # fillers of Hangul, a braille cell without a dot


class _Skeleton(dict[int, str]):
    """What of each character a reader sees: no space, nothing invisible, one kind of dash."""

    def __missing__(self, code: int) -> str:
        plain = unicodedata.normalize("NFKC", chr(code)).casefold()
        self[code] = "".join(_visible(character) for character in plain)
        return self[code]


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Pd" or character == "−":
        return "-"
    is_blank = category[0] in "CZ" or category in ("Mn", "Me") or character in _BLANK_LETTERS
    return "" if is_blank else character


_skeleton = _Skeleton()


def quoted(entry: str) -> str:
    """An entry whose first line is ours and whose further ones are a memory's whole text."""
    return _marked(entry, _LINES)


def quoted_preview(entry: str) -> str:
    """The same where every entry starts with an id, and texts are beginnings."""
    return _marked(entry, _PREVIEW_LINES)


def _marked(entry: str, ours: re.Pattern[str]) -> str:
    # splitlines knows every character that may be shown as a line break.
    first, *others = entry.splitlines(keepends=True)
    return first + "".join(
        MARK + line if ours.match(line.translate(_skeleton)) else line for line in others
    )


def without_cut_notes(text: str) -> str:
    """A text that holds nothing like our note on where a cut text goes on."""
    return _CUT_NOTE.sub(r"…\\", text)


def one_line(source: str) -> str:
    """A source without line breaks and other control characters."""
    return _BREAKS.sub(" ", source)


def one_line_json(value: Any) -> str:  # noqa: ANN401 - JSON
    """JSON without a character that may be shown as a line break."""
    plain = json.dumps(value, ensure_ascii=False)
    return _JSON_BREAKS.sub(lambda found: f"\\u{ord(found[0]):04x}", plain)
