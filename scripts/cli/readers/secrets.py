"""Secrets taken out of texts before they are sent: they never leave the machine."""

from __future__ import annotations

from collections import Counter
from typing import Any


class Secrets:
    """Replaces them, and counts what it replaced."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """By kind."""

    def without(self, text: str) -> str:
        """A text with `[redacted:kind]` in the place of every secret."""
        from engine.words.redaction import redact

        found = redact(text)
        self.counts.update(found.counts)
        return found.text

    def line_without(self, line: dict[str, Any]) -> dict[str, Any]:
        """Likewise a line to import; an embedding of another text is not sent."""
        text = self.without(line["text"])
        if text == line["text"]:
            return line
        return {name: value for name, value in line.items() if name != "embedding"} | {"text": text}
