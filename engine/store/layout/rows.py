"""How memories lie in the tables: columns, JSON forms, filter conditions."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Final, Literal

import numpy as np

from engine.errors import InvalidInputError, RottenRowError
from engine.records import (
    Beginning,
    FloatMatrix,
    FloatVector,
    Memory,
    MemoryFilter,
    MemoryId,
    ModelIdentity,
)
from engine.store.layout.row_checksum import is_intact, with_checksum
from engine.store.layout.tables import MEMORIES
from engine.words.sameness import gist_digest
from engine.workspace.passages import CONTEXT, context_of, file_of, joined

COLUMNS: Final = ", ".join(MEMORIES.names)
AT: Final = {name: at for at, name in enumerate(MEMORIES.names)}
"""Where in a row of `COLUMNS` each stands."""
PRUNED_LSN = "pruned_lsn"
"""The fact that says up to which LSN tombstones may be missing."""
ORIGIN = "origin"
"""The fact that says what a store was restored from."""
UPKEEP = "upkeep"
"""The fact that says which memory `engine.writing.upkeep` looked at last: its LSN and id."""
UPKEEP_FIRST_PASS = "upkeep_first_pass"
"""The fact that it has been through all memories of older releases."""

_CURSOR: Final = re.compile(r"(-?[0-9]{1,18})\.([0-9]{1,18})")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_VARIABLES_A_QUERY = 500
_ALIKE = 16
_FORMS: Final[tuple[Literal["NFC", "NFD"], ...]] = ("NFC", "NFD")


def iso_time(time_us: int) -> str:
    """UTC ISO-8601 with microseconds and `+00:00`."""
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat(timespec="microseconds")


def canonical_json(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """One text for equal JSON values: 1 and 1.0 alike, keys in order, true apart from 1."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def identity_fields(identity: ModelIdentity) -> dict[str, object]:
    """What the `model` row of the meta table holds."""
    return {
        "name": identity.name,
        "dim": identity.dim,
        "precision": identity.precision,
        "fingerprint": identity.fingerprint,
    }


def select_many(
    connection: sqlite3.Connection, ids: Sequence[MemoryId], namespace_id: int
) -> dict[MemoryId, Memory]:
    """The memories of a namespace among `ids`, as `connection` sees them."""
    rows = _select_by_id(connection, COLUMNS, ids, namespace_id)
    return {row[0]: memory_of(row) for row in rows}


def select_created_us(
    connection: sqlite3.Connection, ids: Sequence[MemoryId], namespace_id: int
) -> dict[MemoryId, int]:
    """When the memories of a namespace among `ids` were created, microseconds since the epoch."""
    return dict(_select_by_id(connection, "id, created_us", ids, namespace_id))


def select_beginnings(
    connection: sqlite3.Connection, ids: Sequence[MemoryId], namespace_id: int, n_chars: int
) -> dict[MemoryId, Beginning]:
    """The first characters of the memories of a namespace among `ids`."""
    rows = _select_by_id(connection, f"id, substr(text, 1, {n_chars:d})", ids, namespace_id)
    return {row[0]: Beginning(id=row[0], text=row[1]) for row in rows}


def _select_by_id(
    connection: sqlite3.Connection, columns: str, ids: Sequence[MemoryId], namespace_id: int
) -> Iterator[Any]:
    for part in _parts(ids):
        marks = ",".join("?" * len(part))
        yield from connection.execute(  # found by id: the plus keeps it from an index of namespaces
            f"SELECT {columns} FROM memories WHERE id IN ({marks}) AND +namespace_id = ?",
            (*part, namespace_id),
        )


def set_meta(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Record a fact about the store in the open transaction."""
    connection.execute(
        "INSERT INTO main.meta VALUES (?, ?, ?) ON CONFLICT (name) "
        "DO UPDATE SET value = excluded.value, checksum = excluded.checksum",
        with_checksum(name, value),
    )


def read_meta(connection: sqlite3.Connection) -> dict[str, str]:
    """Every fact recorded with `set_meta`. Raises `RottenRowError` when one is not as written."""
    rows = connection.execute("SELECT * FROM main.meta").fetchall()
    if rotten := [row[0] for row in rows if not is_intact(row)]:
        raise RottenRowError(f"the fact {rotten[0]!r} is not as it was written")
    return {name: value for name, value, _ in rows}


def last_id_of(connection: sqlite3.Connection) -> int:
    """The highest id ever given out."""
    row = connection.execute(
        "SELECT max(seq) FROM main.sqlite_sequence WHERE name = 'memories'"
    ).fetchone()
    return int(row[0] or 0)


def vector_blob(vectors: FloatVector | FloatMatrix) -> bytes:
    """The vectors of a memory, one window after the other: little-endian float32 everywhere."""
    return np.ascontiguousarray(vectors, dtype="<f4").tobytes()


def vectors_of(blob: bytes, dim: int) -> FloatMatrix:
    """What `vector_blob` was given, shape (windows, dim); it may not be written to.

    Raises:
        ValueError: the blob is of another length.
    """
    vectors: FloatMatrix = np.frombuffer(blob, "<f4").astype(np.float32, copy=False)
    return vectors.reshape(-1, dim)


def text_digest(text: str) -> bytes:
    """What `text_digests` finds a text by."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def embedded_text(text: str, source: str, metadata: str) -> str:
    """What is embedded of a memory, from its columns: see `engine.workspace.passages`."""
    return joined(context_of(source, json.loads(metadata)), text) if CONTEXT in metadata else text


def digests_of(text: str, source: str) -> tuple[bytes, ...]:
    """What `text_digests` finds a memory by that may be repeated; a passage of a file is not."""
    return () if file_of(source) is not None else (gist_digest(text),)


def select_alike(connection: sqlite3.Connection, text: str, namespace_id: int) -> list[Memory]:
    """The earliest memories of a namespace that may say the same as a text.

    Those written by a release that had no gists are known by the very same text alone.
    """
    digests = (gist_digest(text), text_digest(text))
    if not connection.execute(
        "SELECT 1 FROM text_digests WHERE namespace_id = ? AND digest IN (?, ?) LIMIT 1",
        (namespace_id, *digests),
    ).fetchone():
        return []  # as for most texts
    of_one = (
        "SELECT id FROM (SELECT id FROM text_digests "
        "WHERE namespace_id = ? AND digest = ? ORDER BY id LIMIT ?)"
    )
    rows = connection.execute(
        f"{of_one} UNION {of_one}",
        (namespace_id, digests[0], _ALIKE, namespace_id, digests[1], _ALIKE),
    ).fetchall()
    found = select_many(connection, [row[0] for row in rows], namespace_id)
    return [found[memory_id] for memory_id in sorted(found)]


def memory_of(row: tuple[Any, ...]) -> Memory:
    """The memory in a row of `COLUMNS`. Raises `RottenRowError` when it is not as written."""
    if not is_intact(row):
        raise RottenRowError(f"memory {row[AT['id']]} is not as it was written")
    return Memory(
        id=row[AT["id"]],
        text=row[AT["text"]],
        source=row[AT["source"]],
        key=row[AT["key"]],
        timestamp=iso_time(row[AT["created_us"]]),
        updated_at=iso_time(row[AT["updated_us"]]),
        metadata=json.loads(row[AT["metadata"]]),
    )


def memory_row(**values: object) -> tuple[Any, ...]:
    """A row of `COLUMNS` from a value for each, but for the checksum."""
    return with_checksum(*(values[name] for name in MEMORIES.names[:-1]))


def cursor_after(row: tuple[Any, ...]) -> str:
    """The cursor of the page that begins after a row of `COLUMNS`."""
    return f"{row[AT['created_us']]}.{row[AT['id']]}"


def place_of(cursor: str) -> tuple[int, int]:
    """Time and id of the last memory seen, from a page's cursor."""
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidInputError("cursor is not one that an answer of this service gave")
    return int(match[1]), int(match[2])


def condition_of(where: MemoryFilter, namespace_ids: Sequence[int]) -> tuple[str, list[object]]:
    """The SQL condition that a memory of these namespaces passes a filter, and its parameters."""
    marks = ",".join("?" * len(namespace_ids))
    within = "namespace_id = ?" if len(namespace_ids) == 1 else f"namespace_id IN ({marks})"
    # Few have given metadata: they are found by it, which the plus says, and not by namespace.
    conditions = [f"+{within}" if where.metadata else within]
    parameters: list[object] = [*namespace_ids]
    if where.source is not None:
        forms = _unicode_forms(where.source)
        conditions.append(_any_of("instr(source, ?) > 0", len(forms)))
        parameters += forms
    if where.source_exact is not None:
        forms = _unicode_forms(where.source_exact)
        conditions.append(_any_of("source = ?", len(forms)))
        parameters += forms
    if where.source_prefix:
        # A range of the index; the highest code point ends it, since source is compared by bytes.
        forms = _unicode_forms(where.source_prefix)
        conditions.append(_any_of("source >= ? AND source < ?", len(forms)))
        parameters += [end for form in forms for end in (form, form + chr(0x10FFFF))]
    if where.since_us is not None:
        conditions.append("created_us >= ?")
        parameters.append(where.since_us)
    if where.until_us is not None:
        conditions.append("created_us <= ?")
        parameters.append(where.until_us)
    for name, value in (where.metadata or {}).items():
        conditions.append(
            f"id IN (SELECT id FROM metadata_values WHERE {within} AND name = ? AND value = ?)"
        )
        parameters += [*namespace_ids, name, canonical_json(value)]
    return " AND ".join(conditions), parameters


def _unicode_forms(source: str) -> list[str]:
    """As given, composed and decomposed: a file's name comes in either from different systems."""
    return list(dict.fromkeys([source, *(unicodedata.normalize(f, source) for f in _FORMS)]))


def _any_of(condition: str, n: int) -> str:
    return f"({' OR '.join([condition] * n)})"


def _parts(ids: Sequence[MemoryId]) -> Iterator[Sequence[MemoryId]]:
    for start in range(0, len(ids), _VARIABLES_A_QUERY):
        yield ids[start : start + _VARIABLES_A_QUERY]
