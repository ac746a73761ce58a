"""Whether a database is sound: what SQLite says, what must agree, and that it can be searched."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from engine.errors import EngineError, StoreCorruptError
from engine.index_cache import load_index
from engine.records import ModelIdentity
from engine.schema import check_format
from engine.store import Store

_SAME_VECTOR = 0.999


def problems_of(database: Path, *, exact_below: int) -> list[str]:
    """What is wrong with a database that nobody has open; nothing if it is sound.

    Opens it as a service would, so it is for scratch copies.
    """
    try:
        problems = _problems_in_tables(database)
        return problems or _problems_in_search(database, exact_below)
    except StoreCorruptError as exc:
        return [exc.reason]
    except (sqlite3.Error, EngineError, ValueError, KeyError) as exc:
        return [str(exc)]


def _identity_in(connection: sqlite3.Connection) -> ModelIdentity:
    (model,) = connection.execute("SELECT value FROM meta WHERE name = 'model'").fetchone()
    return ModelIdentity(**json.loads(model))


def _problems_in_tables(database: Path) -> list[str]:
    problems: list[str] = []
    with closing(sqlite3.connect(database)) as connection:
        check_format(connection, database)
        verdicts = [row[0] for row in connection.execute("PRAGMA integrity_check(5)")]
        if verdicts != ["ok"]:
            problems += [f"SQLite: {verdict}" for verdict in verdicts]
        vector_bytes = _identity_in(connection).dim * 4
        for condition, problem in (
            (
                f"SELECT count(*) FROM embeddings WHERE length(vector) != {vector_bytes}",
                "embeddings of the wrong length",
            ),
            (
                "SELECT count(*) FROM memories WHERE id NOT IN (SELECT id FROM embeddings)",
                "memories without an embedding",
            ),
            (
                "SELECT count(*) FROM embeddings WHERE id NOT IN (SELECT id FROM memories)",
                "embeddings without a memory",
            ),
            (
                "SELECT count(*) FROM memories WHERE NOT json_valid(metadata)",
                "memories with broken metadata",
            ),
        ):
            (n,) = connection.execute(condition).fetchone()
            if n:
                problems.append(f"{n} {problem}")
    return problems


def _problems_in_search(database: Path, exact_below: int) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        identity = _identity_in(connection)
    with closing(Store(database, identity=identity)) as store:
        index, _ = load_index(store, database.with_name("no cache"), exact_below=exact_below)
        ids, vectors = store.embeddings()
        if len(index) != len(ids):
            return [f"{len(index)} memories can be searched of {len(ids)}"]
        if len(ids):
            _, (similarity,) = index.nearest(vectors[:1])
            if similarity < _SAME_VECTOR:
                return ["a search does not find a memory by its own vector"]
    return []
