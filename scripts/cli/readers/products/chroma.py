"""Chroma: a collection's `get()` as JSON, or the database file that a persistent client keeps.

JSON: `{"ids": […], "documents": […], "metadatas": […], "embeddings": […]}`, columns of one length.
SQLite (`chroma.sqlite3`): documents and metadata of every collection, read without changing it.
Embeddings are not taken over: they come from whatever model the collection was made with.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from scripts.cli.errors import CliError
from scripts.cli.readers.databases import MAGIC, columns, opened_database
from scripts.cli.readers.documents import load_document
from scripts.cli.readers.inputs import InputFile
from scripts.cli.readers.records import Memory, Options, Record, Unreadable, times

_DEFAULT_PREFIX = "chroma/"
_DOCUMENT = "chroma:document"
_ROWS = """
    SELECT c.name, e.id, e.embedding_id, e.created_at, m.key,
           m.string_value, m.int_value, m.float_value, {bool_value}
    FROM embeddings e
    JOIN segments s ON s.id = e.segment_id
    JOIN collections c ON c.id = s.collection
    LEFT JOIN embedding_metadata m ON m.id = e.id
    ORDER BY e.id
"""


def read_chroma(file: InputFile, options: Options) -> Iterator[Record]:
    """A memory per document, its id as key; the source is `chroma/<place>/<collection>`.

    The place is the path of the database, or of the collection's JSON: collections of one name in
    two places are two.
    """
    prefix = _DEFAULT_PREFIX if options.source is None else options.source
    place = file.source(None) if options.source is None else file.relative
    is_database = file.peek(16).startswith(MAGIC)
    items = _rows(file, place) if is_database else _columns(file, place)
    for collection, chroma_id, text, metadata, created in items:
        origin = f"{file.name}, {chroma_id}"
        if not isinstance(text, str) or not text.strip():
            yield Unreadable(origin=origin, reason="it has no document, only an embedding")
            continue
        line: dict[str, Any] = {
            "text": text,
            "source": f"{prefix}{collection}",
            "key": chroma_id,
            "deduplicate": False,
            **times({"created_at": created, **metadata}),
        }
        if metadata:
            line["metadata"] = metadata
        yield Memory(line=line, origin=origin)


Item: TypeAlias = tuple[str, str, object, dict[str, Any], object]
"""Place and collection, id, document, metadata, and when it came into the collection."""


def _columns(file: InputFile, place: str) -> Iterator[Item]:
    with file.opened() as stream:
        document = load_document(stream, file)
    try:
        ids, texts = document["ids"], document["documents"]
        metadatas = document.get("metadatas") or [None] * len(ids)
        rows = list(zip(ids, texts, metadatas, strict=True))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise CliError(
            f"{file.name} is no collection of Chroma: expected ids, documents and metadatas "
            "of one length, as collection.get() gives them"
        ) from None
    name = place.removesuffix(".json")
    for chroma_id, text, metadata in rows:
        yield name, str(chroma_id), text, metadata if isinstance(metadata, dict) else {}, None


def _rows(file: InputFile, place: str) -> Iterator[Item]:
    # A client is given the directory, in which every database has this name.
    place = place.removesuffix("chroma.sqlite3").rstrip("/")
    with opened_database(file) as database:
        has_bool = "bool_value" in columns(database, "embedding_metadata")
        query = _ROWS.format(bool_value="m.bool_value" if has_bool else "NULL")
        for collection, key, text, metadata, at in _grouped(database.execute(query)):
            yield f"{place}/{collection}" if place else collection, key, text, metadata, at


def _grouped(rows: Iterator[Any]) -> Iterator[Item]:
    """Rows of one key each, put together by memory."""
    current: tuple[str, int, str, object] | None = None
    text: object = None
    metadata: dict[str, Any] = {}
    for *memory, key, string, integer, real, boolean in rows:
        if current != tuple(memory):
            if current is not None:
                yield current[0], current[2], text, metadata, current[3]
            current, text, metadata = (memory[0], memory[1], memory[2], memory[3]), None, {}
        if key == _DOCUMENT:
            text = string
        elif key is not None:
            values = (string, integer, real, None if boolean is None else bool(boolean))
            metadata[key] = next((value for value in values if value is not None), None)
    if current is not None:
        yield current[0], current[2], text, metadata, current[3]
