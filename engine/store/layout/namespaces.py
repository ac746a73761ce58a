"""Namespaces: which there are, and how they may be called. Every memory is in exactly one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from engine.errors import InvalidInputError, RottenRowError
from engine.namespaces import DEFAULT, is_covered, is_name
from engine.store.layout.row_checksum import is_intact, with_checksum
from engine.store.layout.tables import FIRST_NAMESPACE_ID, NAMESPACES

NO_NAMESPACE: Final = 0
"""The id of none: nothing is in it."""

_COUNTED_AT_ONCE: Final = 1_000


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


@dataclass(slots=True)
class _Counted:
    """The memories that are in what some globs mean."""

    globs: tuple[str, ...]
    n: int = 0


class Namespaces:
    """Those of a store as of the last commit, held in memory. One thread changes it."""

    def __init__(self, known: Iterable[NamespaceFacts]) -> None:
        self._of_id: dict[int, NamespaceFacts] = {}
        self._of_name: dict[str, NamespaceFacts] = {}
        self._counted: dict[tuple[str, ...], _Counted] = {}
        self._counted_in: dict[int, list[_Counted]] = {}
        """By namespace: which counts it is in, so that a write costs no look at all others."""
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

    def ids(self) -> list[int]:
        """Of all."""
        return list(self._of_id)

    def count_in(self, globs: tuple[str, ...]) -> int:
        """Memories in all that at least one glob means. For the thread that changes it."""
        counted = self._counted.get(globs)
        if counted is None:
            if len(self._counted) >= _COUNTED_AT_ONCE:
                self._counted.clear()
                self._counted_in.clear()
            counted = self._counted[globs] = _Counted(globs)
            for facts in self._of_id.values():
                self._count(facts, [counted])
        return counted.n

    def note(self, facts: NamespaceFacts) -> None:
        """One is new, or has changed."""
        before = self._of_id.get(facts.id)
        growth = facts.n_memories - (before.n_memories if before else 0)
        self.n_memories += growth
        self._of_id[facts.id] = self._of_name[facts.name] = facts
        if before is not None and before.name == facts.name:
            for counted in self._counted_in.get(facts.id, ()):
                counted.n += growth
            return
        if before is not None:
            self._leave_out(before)
        self._count(facts, self._counted.values())

    def forget(self, namespace_id: int) -> None:
        """One was deleted."""
        before = self._of_id.pop(namespace_id, None)
        if before is not None:
            self.n_memories -= before.n_memories
            self._leave_out(before)

    def _count(self, facts: NamespaceFacts, among: Iterable[_Counted]) -> None:
        for counted in among:
            if is_covered(facts.name, counted.globs):
                counted.n += facts.n_memories
                self._counted_in.setdefault(facts.id, []).append(counted)

    def _leave_out(self, facts: NamespaceFacts) -> None:
        """It is no longer called so, or is gone."""
        if self._of_name.get(facts.name) is facts:
            del self._of_name[facts.name]
        for counted in self._counted_in.pop(facts.id, ()):
            counted.n -= facts.n_memories


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
