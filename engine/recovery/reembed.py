"""Giving every memory of a store a vector of another model, or of another precision of it.

The new vectors gather in a file of their own, durable batch by batch; one transaction at the end
puts them in the place of the old ones. Killed before it, the store is as it was, and the next run
goes on where this one stopped.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path

from engine.backups.restore import remove_database
from engine.errors import StorageError
from engine.records import FloatMatrix, ModelIdentity
from engine.store.layout.row_checksum import rotten_rows, with_checksum
from engine.store.layout.rows import (
    UPKEEP,
    canonical_json,
    embedded_text,
    identity_fields,
    set_meta,
    vector_blob,
)
from engine.store.layout.schema import connect, translating_sqlite_errors
from engine.store.soundness import check_sound
from engine.store.upgrade import upgrade

UNFINISHED_NAME = "reembedding.db"
_BATCH = 512

_TABLES = """
CREATE TABLE IF NOT EXISTS model (identity TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS vectors (
    id INTEGER PRIMARY KEY,
    vector BLOB NOT NULL,
    memory INTEGER NOT NULL,  -- the checksum of the memory whose text it embeds
    checksum INTEGER NOT NULL
) STRICT;
"""
_MISSING = """
SELECT id FROM memories LEFT JOIN unfinished.vectors USING (id)
WHERE memory IS NOT memories.checksum ORDER BY id
"""


def reembed(
    database: Path, identity: ModelIdentity, embed: Callable[[Sequence[str]], FloatMatrix]
) -> Generator[tuple[int, int], None, None]:
    """Replace all vectors; until the last batch is done, the store has its old ones.

    The caller holds the `DataLock`.

    Args:
        database: the store's file.
        identity: of the model that `embed` runs.
        embed: texts to vectors, shape (n, identity.dim).

    Yields:
        (memories done, memories in all): at first what an earlier run did, then each batch.

    Raises:
        StoreCorruptError: the store is damaged; nothing was changed.
    """
    upgrade(database)
    check_sound(database)
    unfinished = database.with_name(UNFINISHED_NAME)
    _prepare(unfinished, canonical_json(identity_fields(identity)))
    with (
        translating_sqlite_errors(database),
        closing(connect(database, mode="rw")) as connection,
    ):
        connection.execute("ATTACH ? AS unfinished", (str(unfinished),))
        (total,) = connection.execute("SELECT count(*) FROM memories").fetchone()
        missing = [row[0] for row in connection.execute(_MISSING)]
        yield total - len(missing), total
        for start in range(0, len(missing), _BATCH):
            _embed_batch(connection, missing[start : start + _BATCH], embed)
            yield total - len(missing) + min(start + _BATCH, len(missing)), total
        _put_in_place(connection, identity)
    remove_database(unfinished)


def _prepare(unfinished: Path, model: str) -> None:
    """Keep what an earlier run made with this model, as far as it is intact; else start anew."""
    try:
        with closing(connect(unfinished, mode="rwc")) as connection:
            connection.executescript(_TABLES)
            connection.execute("INSERT OR IGNORE INTO model VALUES (?)", (model,))
            models = [row[0] for row in connection.execute("SELECT identity FROM model")]
            rotten = list(rotten_rows(connection, "vectors"))
            is_usable = models == [model] and not rotten
    except (sqlite3.Error, StorageError):
        is_usable = False
    if not is_usable:
        remove_database(unfinished)
        with closing(connect(unfinished, mode="rwc")) as connection:
            connection.executescript(_TABLES)
            connection.execute("INSERT INTO model VALUES (?)", (model,))


def _embed_batch(
    connection: sqlite3.Connection,
    ids: Sequence[int],
    embed: Callable[[Sequence[str]], FloatMatrix],
) -> None:
    marks = ", ".join("?" * len(ids))
    rows = connection.execute(
        f"SELECT id, checksum, text, source, metadata FROM memories WHERE id IN ({marks})", ids
    ).fetchall()
    vectors = embed([embedded_text(*row[2:]) for row in rows])
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT OR REPLACE INTO unfinished.vectors VALUES (?, ?, ?, ?)",
        [
            with_checksum(memory_id, vector_blob(vector), checksum)
            for (memory_id, checksum, *_), vector in zip(rows, vectors, strict=True)
        ],
    )
    connection.execute("COMMIT")


def _put_in_place(connection: sqlite3.Connection, identity: ModelIdentity) -> None:
    """One transaction. A new epoch, since backups so far hold vectors of the old model."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM main.embeddings")
    rows = connection.execute(
        "SELECT id, vector FROM unfinished.vectors WHERE id IN (SELECT id FROM main.memories)"
    )
    connection.executemany(
        "INSERT INTO main.embeddings VALUES (?, ?, ?)", (with_checksum(*row) for row in rows)
    )
    set_meta(connection, "model", canonical_json(identity_fields(identity)))
    set_meta(connection, "epoch", uuid.uuid4().hex)
    set_meta(connection, UPKEEP, "0 0")  # the windows past the first are to be made anew
    connection.execute("COMMIT")
