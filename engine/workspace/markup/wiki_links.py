"""Links between notes as Obsidian and its kind write them: `[[target]]`, `[[target|label]]`."""

from __future__ import annotations

import re

# Code between backticks is matched first and stays; `[[1]](url)` is an ordinary link.
_LINK = re.compile(
    r"(?<!`)(`+)(?!`).{1,500}?(?<!`)\1(?!`)"
    r"|!?\[\[(?P<target>[^\[\]|\\\n]+)(?:\\?\|(?P<label>[^\[\]\n]*))?\]\](?!\()"
)


def without_links(text: str) -> str:
    """A text whose links are the words that a reader sees."""
    return _LINK.sub(_words, text) if "[[" in text else text


def _words(link: re.Match[str]) -> str:
    if link["target"] is None:
        return link[0]
    label = (link["label"] or "").strip()
    return label or link["target"].replace("#", " ").strip()
