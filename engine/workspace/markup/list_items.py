"""The items of a list: which one a place in it hangs from."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

_ITEM = re.compile(
    r"^(?P<indent>[ \t]*)(?:[-*+•]|(?:\d{1,9}|[A-Za-z#])[.)]|\(\w{1,9}\))[ \t]+(?P<words>.*)$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    indent: int
    words: str
    parent: int | None
    """Its place among the items."""


def is_list(text: str) -> bool:
    """Whether a paragraph of plain text begins as a list does."""
    return _ITEM.match(text) is not None


class ListItems:
    """The items of a list's text, in order."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts: list[int] = []
        self._items: list[_Item] = []
        enclosing: list[int] = []
        for match in _ITEM.finditer(text):
            indent = _width(match["indent"])
            while enclosing and self._items[enclosing[-1]].indent >= indent:
                enclosing.pop()
            parent = enclosing[-1] if enclosing else None
            enclosing.append(len(self._items))
            self._starts.append(match.start())
            self._items.append(_Item(indent=indent, words=match["words"].strip(), parent=parent))

    def above(self, start: int) -> tuple[str, ...]:
        """The first lines of the items that what begins at `start` is part of, outermost first."""
        found = bisect_right(self._starts, start) - 1
        if found < 0:
            return ()
        begins_here = self._starts[found] == start
        at = self._items[found].parent if begins_here else self._owner(found, start)
        lines = []
        while at is not None:
            lines.append(self._items[at].words)
            at = self._items[at].parent
        return tuple(reversed(lines))

    def _owner(self, at: int, start: int) -> int | None:
        """The item that a place belongs to: an outer one, where a line is indented as far."""
        if start and self._text[start - 1] != "\n":
            return at
        rest = self._text[start:].split("\n", 1)[0]
        indent = _width(rest[: len(rest) - len(rest.lstrip())])
        owner: int | None = at
        while owner is not None and self._items[owner].indent >= indent > 0:
            owner = self._items[owner].parent
        return owner


def _width(indent: str) -> int:
    return len(indent.expandtabs(4))
