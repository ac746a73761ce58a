"""A passage's context: what the file says above it, stored beside its text.

A heading row, the item that a list hangs from, the language of a fence, the file's title: a
passage is embedded and its words are searched with them, and its text stays what the file says
there. It lies in the passage's metadata, so it goes wherever the passage does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

CONTEXT = "passage_context"
"""The name in the metadata."""

_SOURCE = re.compile(r"(?s)(.*):chunk_\d+")


class Passage(Protocol):
    """A memory in any of its forms."""

    @property
    def text(self) -> str: ...  # noqa: D102

    @property
    def source(self) -> str: ...  # noqa: D102

    @property
    def metadata(self) -> Mapping[str, Any] | None: ...  # noqa: D102


def file_of(source: str) -> str | None:
    """The file of a passage's source; None for any other source."""
    match = _SOURCE.fullmatch(source)
    return match[1] if match else None


def context_of(source: str, metadata: Mapping[str, Any] | None) -> str:
    """What stands above a passage in its file; empty for any other memory."""
    context = (metadata or {}).get(CONTEXT)
    return context if isinstance(context, str) and file_of(source) is not None else ""


def text_in_context(memory: Passage) -> str:
    """What is embedded of a memory, and whose words are searched."""
    return joined(context_of(memory.source, memory.metadata), memory.text)


def joined(context: str, text: str) -> str:
    """A text below its context."""
    return f"{context}\n\n{text}" if context else text
