"""Namespaces: which there are, and how they may be called. Every memory is in exactly one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from engine.errors import InvalidInputError, RottenRowError
from engine.namespaces import DEFAULT, is_covered, is_name
from engine.store.layout.row_checksum import is_intact, with_checksum
from engine.store.layout.tables import FIRST_NAMESPACE_ID, NAMESPACES

NO_NAMESPACE: Final = 0
"""The id of none: nothing is in it."""

_REMEMBERED_PATTERNS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceFacts:
    """One namespace, as of the last commit."""

    id: int
    name: str
    changed_us: int | None
    """Time of its last write; None before the first."""
    lsn: int
    """Of its last write; 0 before the first."""
    n_memories: int


def checked_name(name: str) -> str:
    """The name. Raises `InvalidInputError` unless a namespace may be called so."""
    if not is_name(name):
        raise InvalidInputError(
            f"{name!r:.120} cannot be a namespace: 1 to 100 of a-z, 0-9, '.', '_' and '-', "
            "the first a letter or a digit"
        )
    return name


class Namespaces:
    """Those of a store as of the last commit, held in memory. One thread changes it."""

    def __init__(self, known: Iterable[NamespaceFacts]) -> None:
        self._of_id: dict[int, NamespaceFacts] = {}
        self._of_name: dict[str, NamespaceFacts] = {}
        self._matching: dict[tuple[str, ...], list[int]] = {}
        self.n_memories = 0
        """In all of them."""
        for facts in known:
            self.note(facts)

    def get(self, name: str) -> NamespaceFacts | None:
        """The one that is called so; None for none."""
        return self._of_name.get(name)

    def with_id(self, namespace_id: int) -> NamespaceFacts | None:
        """The one with this id; None for none."""
        return self._of_id.get(namespace_id)

    def every(self) -> list[NamespaceFacts]:
        """All that somebody has written to, by name."""
        known = list(self._of_name.values())
        return sorted((f for f in known if f.lsn or f.n_memories), key=lambda facts: facts.name)

    def matching(self, patterns: Sequence[str]) -> list[NamespaceFacts]:
        """All that at least one pattern means; which those are is remembered."""
        ids = self._matching.get(tuple(patterns))
        if ids is None:
            ids = [f.id for f in list(self._of_id.values()) if is_covered(f.name, patterns)]
            if len(self._matching) >= _REMEMBERED_PATTERNS:
                self._matching.clear()
            self._matching[tuple(patterns)] = ids
        return [facts for i in ids if (facts := self._of_id.get(i)) is not None]

    def note(self, facts: NamespaceFacts) -> None:
        """One is new, or has changed."""
        before = self._of_id.get(facts.id)
        self.n_memories += facts.n_memories - (before.n_memories if before else 0)
        self._of_id[facts.id] = self._of_name[facts.name] = facts
        if before is None or before.name != facts.name:
            self._matching.clear()
        if before is not None and self._of_name.get(before.name) is before:
            del self._of_name[before.name]

    def forget(self, namespace_id: int) -> None:
        """One was deleted."""
        before = self._of_id.pop(namespace_id, None)
        self._matching.clear()
        if before is None:
            return
        self.n_memories -= before.n_memories
        if self._of_name.get(before.name) is before:
            del self._of_name[before.name]


class NamespaceRows:
    """The table `namespaces` in one open transaction. A deleted one keeps its row, unnamed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def id_of(self, name: str) -> int:
        """The id of a namespace; `NO_NAMESPACE` for none."""
        row = self._connection.execute(
            "SELECT id FROM namespaces WHERE name = ?", (name,)
        ).fetchone()
        return int(row[0]) if row else NO_NAMESPACE

    def name_of(self, namespace_id: int) -> str | None:
        """What it is called; None when it was deleted."""
        row = self._connection.execute(
            "SELECT name FROM namespaces WHERE id = ?", (namespace_id,)
        ).fetchone()
        return row[0] if row else None

    def add(self, name: str) -> int:
        """A new one; its id. None was ever used before."""
        (last,) = self._connection.execute(
            "SELECT max(seq) FROM sqlite_sequence WHERE name = 'namespaces'"
        ).fetchone()
        new_id = (last or 0) + 1
        self._connection.execute(NAMESPACES.insert, with_checksum(new_id, name, None, 0))
        return int(new_id)

    def note(self, namespace_id: int, name: str | None, *, changed_us: int, lsn: int) -> None:
        """One that is called so, or is deleted (None), was written to."""
        *_, checksum = with_checksum(namespace_id, name, changed_us, lsn)
        self._connection.execute(
            "UPDATE namespaces SET (changed_us, lsn, checksum) = (?, ?, ?) WHERE id = ?",
            (changed_us, lsn, checksum, namespace_id),
        )

    def rename(self, namespace_id: int, name: str | None) -> None:
        """Call one otherwise, or nothing any more; `note` must follow in the transaction."""
        self._connection.execute(
            "UPDATE namespaces SET name = ? WHERE id = ?", (name, namespace_id)
        )

    def forget_deleted(self, up_to_lsn: int) -> None:
        """Remove the rows of those deleted at or before an LSN."""
        self._connection.execute(
            "DELETE FROM namespaces WHERE name IS NULL AND lsn <= ?", (up_to_lsn,)
        )


def add_first(connection: sqlite3.Connection, changed_us: int | None, lsn: int) -> None:
    """Lay out a new database's first namespace, `default`."""
    row = with_checksum(FIRST_NAMESPACE_ID, DEFAULT, changed_us, lsn)
    connection.execute(NAMESPACES.insert, row)


def select_namespaces(connection: sqlite3.Connection) -> list[NamespaceFacts]:
    """All that are called something, and how much they hold; reads an index of all memories."""
    counted = connection.execute("SELECT namespace_id, count(*) FROM memories GROUP BY 1")
    n_memories = dict(counted.fetchall())
    rows = connection.execute("SELECT * FROM namespaces WHERE name IS NOT NULL").fetchall()
    if rotten := [row[0] for row in rows if not is_intact(row)]:
        raise RottenRowError(f"namespace {rotten[0]} is not as it was written")
    return [
        NamespaceFacts(
            id=namespace_id,
            name=name,
            changed_us=changed_us,
            lsn=lsn,
            n_memories=n_memories.get(namespace_id, 0),
        )
        for namespace_id, name, changed_us, lsn, _ in rows
    ]
