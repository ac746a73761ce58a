"""Giving every memory of a store a vector of another model, or of another precision of it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path

from engine.memory_rows import canonical_json, identity_fields, vector_blob
from engine.records import FloatMatrix, ModelIdentity
from engine.schema import check_format, connect, translating_sqlite_errors

_BATCH = 512


def reembed(
    database: Path, identity: ModelIdentity, embed: Callable[[Sequence[str]], FloatMatrix]
) -> Generator[tuple[int, int], None, None]:
    """Replace all vectors in one transaction: until the last batch is done, nothing has changed.

    The caller holds the `DataLock`.

    Args:
        database: the store's file.
        identity: of the model that `embed` runs.
        embed: texts to vectors, shape (n, identity.dim).

    Yields:
        (memories done, memories in all) after each batch.
    """
    with (
        translating_sqlite_errors(database),
        closing(connect(database, mode="rw")) as reader,
        closing(connect(database, mode="rw")) as writer,
    ):
        check_format(reader, database)
        (total,) = reader.execute("SELECT count(*) FROM memories").fetchone()
        writer.execute("BEGIN IMMEDIATE")
        cursor = reader.execute("SELECT id, text FROM memories ORDER BY id")
        done = 0
        while rows := cursor.fetchmany(_BATCH):
            vectors = embed([text for _, text in rows])
            writer.executemany(
                "UPDATE embeddings SET vector = ? WHERE id = ?",
                [(vector_blob(v), row[0]) for v, row in zip(vectors, rows, strict=True)],
            )
            done += len(rows)
            yield done, total
        writer.execute(
            "UPDATE meta SET value = ? WHERE name = 'model'",
            (canonical_json(identity_fields(identity)),),
        )
        writer.execute("COMMIT")
