"""Whether a database is as it was written, down to the last byte that an answer depends on.

Five things together: the layout must be the one we make; SQLite's own check finds damage to pages
and to the order of indexes; every row has a checksum; what is derived from other rows (metadata by
value, an embedding for each memory, the last id) must agree with them; and facts, ids and times are
such as we can have written, since a checksum is no seal.
"""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from engine.errors import EngineError, StoreCorruptError
from engine.namespaces import is_name
from engine.records import ModelIdentity
from engine.store.distrust import distrusted
from engine.store.foreign_json import object_of, parse_json, record_of
from engine.store.layout.row_checksum import is_intact, rotten_rows
from engine.store.layout.rows import AT, PRUNED_LSN, canonical_json, last_id_of
from engine.store.layout.tables import CHECKSUM, FORMAT_VERSION, MEMORIES, TABLES, tables_of

_LARGE_BYTES = 8 << 20
_NICENESS = 19
_NAMED = 5
"""Problems of a kind that are named; there may be thousands."""
_MAX_ID = (1 << 53) - 1
_EARLIEST_US, _LATEST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
"""Years 1 to 9999."""
_COUNTS = {
    "lsn": _MAX_ID,
    "last_id": _MAX_ID,
    PRUNED_LSN: _MAX_ID,
    "created_us": _LATEST_US,
    "changed_us": _LATEST_US,
}
"""Facts that are counts, and the highest that can be."""
_TIMES, _NUMBERS = ("created_us", "updated_us"), ("id", "lsn")
_NEEDED = ("epoch", "lsn", "created_us", "model")
_SEQUENCES = {
    "memories": _MAX_ID,
    "namespaces": _MAX_ID,
    "imports": _MAX_ID,
    "requests": 3 << 61,
}
"""The highest number that each table can have given out; the next ones must be numbers too."""
_CHECKED = [table.name for table in TABLES if table.is_checked]
"""The indexes and the other tables are derived from `memories`."""
_ORPHANS = (
    ("memories", "embeddings", "memory {} has no embedding"),
    ("embeddings", "memories", "an embedding of memory {}, which does not exist"),
)


def check_sound(database: Path) -> None:
    """Raise `StoreCorruptError`, which names the bad rows, unless a database is sound."""
    if problems := problems_in(database):
        raise StoreCorruptError(str(database), "; ".join(problems))


def check_copy(database: Path) -> None:
    """The same for a copy that nobody else reads; a large one in a process of its own.

    Comparing checksums holds the interpreter's lock: here, it would slow every write meanwhile.
    """
    if database.stat().st_size < _LARGE_BYTES:
        check_sound(database)
        return
    command = [sys.executable, "-m", __name__, str(database)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as check:
        os.setpriority(os.PRIO_PROCESS, check.pid, _NICENESS)
        if check.wait() == 0:
            return
    check_sound(database)  # whatever it was that went wrong there, this tells


def problems_in(database: Path) -> list[str]:
    """What is wrong with a database; nothing if it is sound.

    Reads all of it: about a second for 100,000 memories. Of an older format, what its rows say of
    each other is looked at once it is upgraded.
    """
    try:
        with distrusted(database) as connection:
            connection.text_factory = bytes  # what rotted need not be UTF-8
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            look = _problems if version == FORMAT_VERSION else _problems_of_rows
            return list(look(connection))
    except StoreCorruptError as exc:
        return [exc.reason]
    except (EngineError, ValueError, ArithmeticError, TypeError, RecursionError) as exc:
        return [f"it cannot be read: {exc}"]


def check_rows(database: Path) -> None:
    """Raise `StoreCorruptError` unless the rows of a delta are as they were written."""
    with closing(sqlite3.connect(database)) as connection:
        connection.text_factory = bytes
        for table in _CHECKED:
            for key in rotten_rows(connection, table):
                raise StoreCorruptError(str(database), _rotten(table, key))


def _rotten(table: str, key: object) -> str:
    return f"{table} row {_text(key)} is not as it was written"


def _problems_of_rows(connection: sqlite3.Connection) -> Iterator[str]:
    if problems := list(_problems_of_structure(connection)):
        yield from problems
        return
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for table in tables_of(version):
        if table.columns_of(version)[-1].name == CHECKSUM:
            rotten = itertools.islice(rotten_rows(connection, table.name), _NAMED)
            yield from (_rotten(table.name, key) for key in rotten)


def _problems_of_structure(connection: sqlite3.Connection) -> Iterator[str]:
    verdicts = [_text(row[0]) for row in connection.execute(f"PRAGMA integrity_check({_NAMED})")]
    if verdicts != ["ok"]:
        yield from (f"SQLite: {verdict}" for verdict in verdicts)


def _problems(connection: sqlite3.Connection) -> Iterator[str]:
    if problems := list(_problems_of_structure(connection)):
        yield from problems
        return  # what else is asked of it need not come to an end
    yield from _problems_of_facts(connection)
    derived = 0
    for table in _CHECKED:
        if table == MEMORIES.name:
            rotten, derived = _read_memories(connection)
        else:
            rotten = list(itertools.islice(rotten_rows(connection, table), _NAMED))
        yield from (_rotten(table, key) for key in rotten)
    if derived != _sum_of(connection.execute("SELECT * FROM metadata_values")):
        yield "metadata by value does not agree with the memories"
    yield from _problems_of_namespaces(connection)
    for table, other, problem in _ORPHANS:
        rows = connection.execute(
            f"SELECT id FROM {table} WHERE id NOT IN (SELECT id FROM {other}) LIMIT {_NAMED}"
        )
        yield from (problem.format(memory_id) for (memory_id,) in rows)
    noted = connection.execute("SELECT value FROM meta WHERE name = 'last_id'").fetchone()
    if noted is not None and int(noted[0]) != last_id_of(connection):
        yield f"the last id is {last_id_of(connection)}, though {_text(noted[0])} was given out"


def _problems_of_facts(connection: sqlite3.Connection) -> Iterator[str]:
    facts = {
        _text(name): _text(value)
        for name, value in connection.execute("SELECT name, value FROM meta")
    }
    for name in _NEEDED:
        if name not in facts:
            yield f"it does not say its {name}"
    for name, highest in _COUNTS.items():
        value = facts.get(name, "0")
        if not (value.isascii() and value.isdecimal() and int(value[:20]) <= highest):
            yield f"its {name} is {value:.30}"
    if not facts.get("epoch", "").isalnum():
        yield "its epoch is none"
    try:
        record_of(ModelIdentity, parse_json(facts.get("model", "")))
    except ValueError as exc:
        yield f"it does not say which model made it: {exc}"
    for table, number in connection.execute("SELECT name, seq FROM sqlite_sequence"):
        highest = _SEQUENCES.get(_text(table), 0)
        if type(number) is not int or not 0 <= number <= highest:
            yield f"the last number of {_text(table)!r:.30} is {_text(number)!r:.30}"


def _problems_of_namespaces(connection: sqlite3.Connection) -> Iterator[str]:
    for namespace_id, name, changed_us, lsn, _ in connection.execute("SELECT * FROM namespaces"):
        is_named = name is None or is_name(_text(name))
        is_dated = changed_us is None or _EARLIEST_US <= changed_us <= _LATEST_US
        if not (is_named and is_dated and 0 < namespace_id <= _MAX_ID and 0 <= lsn <= _MAX_ID):
            yield f"namespace {namespace_id} is none"
    rows = connection.execute(
        "SELECT DISTINCT namespace_id FROM memories WHERE namespace_id NOT IN "
        f"(SELECT id FROM namespaces WHERE name IS NOT NULL) LIMIT {_NAMED}"
    )
    yield from (f"memories of namespace {number}, which does not exist" for (number,) in rows)


def _text(value: Any) -> Any:  # noqa: ANN401 - a column's value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _read_memories(connection: sqlite3.Connection) -> tuple[list[object], int]:
    """Ids of rows that are not as written, and the sum of the metadata values of the others."""
    rotten: list[object] = []
    total = 0
    for row in connection.execute("SELECT * FROM memories"):
        if not (is_intact(row) and _is_possible(row)):
            rotten.append(row[0])
        elif row[AT["metadata"]] != b"{}":
            total += _sum_of(
                (row[AT["namespace_id"]], name.encode(), canonical_json(value).encode(), row[0])
                for name, value in object_of(json.loads(row[AT["metadata"]])).items()
            )
    return rotten[:_NAMED], total


def _is_possible(row: tuple[Any, ...]) -> bool:
    times, numbers = (row[AT[name]] for name in _TIMES), (row[AT[name]] for name in _NUMBERS)
    return all(_EARLIEST_US <= time_us <= _LATEST_US for time_us in times) and all(
        0 <= number <= _MAX_ID for number in numbers
    )


def _sum_of(rows: Any) -> int:  # noqa: ANN401 - an iterator of rows
    """Equal for the same rows in another order."""
    return sum(map(hash, map(tuple, rows)))


if __name__ == "__main__":
    sys.exit(1 if problems_in(Path(sys.argv[1])) else 0)
