"""Passages of files that were sent earlier, as the service holds them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from scripts.cli.memory_commands import delete_all, pages
from scripts.cli.readers.identity import OWNER_PREFIX
from scripts.cli.readers.inputs import InputFile
from scripts.cli.service import Json, Service

_CHUNK_SOURCE = re.compile(r"(?s)(.*):chunk_(\d+)")
_EARLIER_KEYS = ("passage", "watch:")
"""Of releases in which every command had its own."""


def file_of(source: str) -> str | None:
    """The file of a passage's source; None for any other source."""
    match = _CHUNK_SOURCE.fullmatch(source)
    return match[1] if match else None


def forget_rest(service: Service, file: InputFile, prefix: str | None, n_passages: int) -> int:
    """Delete what a file had said beyond its passages of now; returns how many that were.

    Under a root that the user named, wherever the files of that name were before.
    """
    name = file.source(prefix)
    if service.get("/memories", source_prefix=f"{name}:chunk_", limit=1)["total"] <= n_passages:
        return 0
    owner = file.owner(prefix)
    earlier = [owner] if prefix is None else [OWNER_PREFIX, *_EARLIER_KEYS]
    rest = [
        memory["id"]
        for memory, number in _passages(service, name)
        if (memory["key"] or "").startswith(tuple(earlier))
        and (memory["key"] != owner or number >= n_passages)
    ]
    if rest:
        delete_all(service, rest)
    return len(rest)


def _passages(service: Service, name: str) -> Iterator[tuple[Json, int]]:
    """Memories of one file and the numbers of their passages."""
    for page in pages(service, source_prefix=f"{name}:chunk_"):
        for memory in page["memories"]:
            match = _CHUNK_SOURCE.fullmatch(memory["source"])
            if match is not None and match[1] == name:
                yield memory, int(match[2])
