"""Passages of files that were sent earlier, as the service holds them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from scripts.cli.memory_commands import delete_all, pages
from scripts.cli.readers.identity import OWNER_PREFIX
from scripts.cli.readers.inputs import InputFile
from scripts.cli.service import Json, Service

_CHUNK_SOURCE = re.compile(r"(?s)(.*):chunk_(\d+)")
_PASSAGE_KEY = re.compile(rf"(?s)passage|watch:.*|{OWNER_PREFIX}[0-9a-f]{{16}}")
"""The first two are of releases in which every command had its own."""


def file_of(source: str) -> str | None:
    """The file of a passage's source; None for any other source."""
    match = _CHUNK_SOURCE.fullmatch(source)
    return match[1] if match else None


def is_below(name: str | None, top: str) -> bool:
    """Whether a file is `top`, or lies in it when that is a directory."""
    return name is not None and (name == top or name.startswith(f"{top}/"))


def forget_file(service: Service, name: str) -> int:
    """Delete what the service has read in a file, or in every file of a directory, that is gone.

    Returns:
        How many memories that were.
    """
    found = [
        memory["id"]
        for prefix in (f"{name}:chunk_", f"{name}/")
        for page in pages(service, source_prefix=prefix)
        for memory in page["memories"]
        # What somebody else put there under a key of theirs is not the file's.
        if memory["key"] is None and is_below(file_of(memory["source"]), name)
    ]
    return int(delete_all(service, found)["deleted_count"]) if found else 0


def forget_rest(service: Service, file: InputFile, prefix: str | None, n_passages: int) -> int:
    """Delete what a file had said beyond its passages of now; returns how many that were.

    Under a root that the user named also what says the same from wherever it lay before; another
    file of that name there keeps what is its own.
    """
    name = file.source(prefix)
    if service.get("/memories", source_prefix=f"{name}:chunk_", limit=1)["total"] <= n_passages:
        return 0
    owner = file.owner(prefix)
    stored = list(_passages(service, name))
    now = {memory["text"] for memory, n in stored if memory["key"] == owner and n < n_passages}
    rest = [
        memory["id"]
        for memory, number in stored
        if (memory["key"] == owner and number >= n_passages)
        or (prefix is not None and _is_elsewhere(memory, owner) and memory["text"] in now)
    ]
    if rest:
        delete_all(service, rest)
    return len(rest)


def _is_elsewhere(memory: Json, owner: str) -> bool:
    """Whether a passage was imported from a file of this name in another place, or long ago."""
    key = memory["key"] or ""
    return key != owner and _PASSAGE_KEY.fullmatch(key) is not None


def _passages(service: Service, name: str) -> Iterator[tuple[Json, int]]:
    """Memories of one file and the numbers of their passages."""
    for page in pages(service, source_prefix=f"{name}:chunk_"):
        for memory in page["memories"]:
            match = _CHUNK_SOURCE.fullmatch(memory["source"])
            if match is not None and match[1] == name:
                yield memory, int(match[2])
