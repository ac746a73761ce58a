"""What a store says of itself: its history, how far it goes, and what it was restored from."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.errors import StoreCorruptError
from engine.store.foreign_json import parse_json, record_of
from engine.store.layout.rows import ORIGIN, PRUNED_LSN, last_id_of, read_meta, set_meta
from engine.store.layout.schema import connect, translating_sqlite_errors
from engine.store.layout.tables import FORMAT_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFacts:
    """What a snapshot of a store holds."""

    epoch: str
    lsn: int
    total_memories: int
    last_id: int
    """The highest id ever given out."""
    model: dict[str, str | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Which state of which history a restored store began as; what came later has newer LSNs."""

    epoch: str
    lsn: int
    as_lsn: int
    """The LSN that this state has in the store's own history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreState:
    """The live database at one moment."""

    format: int
    facts: StoreFacts
    origin: Origin | None
    """What it was restored from; None when it never was."""
    pruned_lsn: int
    """Up to which LSN it may have forgotten deletions."""


def state_in(database: Path) -> StoreState:
    """What the live database says of itself, read at once."""
    with (
        translating_sqlite_errors(database),
        closing(connect(database, mode="rw")) as connection,
    ):
        connection.execute("BEGIN")
        (format_version,) = connection.execute("PRAGMA user_version").fetchone()
        # The facts of older formats may be without checksums.
        is_old = format_version < FORMAT_VERSION
        meta = _unchecked_meta(connection) if is_old else read_meta(connection)
        return StoreState(
            format=format_version,
            facts=facts_of(connection),
            origin=Origin(**json.loads(meta[ORIGIN])) if ORIGIN in meta else None,
            pruned_lsn=int(meta.get(PRUNED_LSN, "0")),
        )


def facts_in(database: Path) -> StoreFacts:
    """What the live database holds; also one of an older format."""
    with (
        translating_sqlite_errors(database),
        closing(connect(database, mode="rw")) as connection,
    ):
        return facts_of(connection)


def write_origin(connection: sqlite3.Connection, origin: Origin) -> None:
    """Record what a database is being restored from."""
    set_meta(connection, ORIGIN, json.dumps(asdict(origin)))


def _unchecked_meta(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT name, value FROM main.meta"))


def facts_of(connection: sqlite3.Connection) -> StoreFacts:
    """What the main database of a connection holds. Raises `StoreCorruptError`."""
    meta = _unchecked_meta(connection)
    (total,) = connection.execute("SELECT count(*) FROM main.memories").fetchone()
    try:
        facts = {
            "epoch": meta["epoch"],
            "lsn": int(meta["lsn"]),
            "total_memories": total,
            "last_id": last_id_of(connection),
            "model": parse_json(meta["model"]),
        }
        return record_of(StoreFacts, facts)
    except (KeyError, ValueError) as exc:
        raise StoreCorruptError("the database", f"its facts cannot be used: {exc}") from exc
