"""All keys, durable in an SQLite file of their own beside the memories.

No backup, export or copy in a bucket holds it, so that going back to an old state of the memories
never brings a revoked key back. A row of a revoked key stays, without its digest: its id is never
used again, and a request to make it that is sent again does not make another.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, cast

from engine.disk.durable_files import (
    file_id,
    fsync_directory,
    make_directory,
    translating_os_errors,
)
from engine.errors import KeyNotFoundError, StoreCorruptError, StoreFormatError, UnavailableError
from engine.keys.records import Key, KeyChanges, RingChange, RingVersion, Scope
from engine.store.layout.row_checksum import is_intact, with_checksum
from engine.store.layout.schema import translating_sqlite_errors

KEYS_NAME: Final = "keys.db"

_APPLICATION_ID = 0x464D4B59  # FMKY
_FORMAT_VERSION = 1
_TABLES = f"""
BEGIN EXCLUSIVE;
CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    digest BLOB,        -- NULL once it is revoked
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    namespaces TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    expires_us INTEGER,
    max_memories INTEGER,
    writes_per_minute INTEGER,
    request_id TEXT NOT NULL UNIQUE,
    checksum INTEGER NOT NULL
) STRICT;
-- Apart, so that being used changes no row that says what a key may do.
CREATE TABLE uses (
    id TEXT PRIMARY KEY,
    last_used_us INTEGER NOT NULL
) STRICT;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_FORMAT_VERSION};
COMMIT;
"""


class KeyStore:
    """The file of one data directory, and all keys in memory. Any thread may call.

    Every change is durable when its method returns.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or create it, readable by its owner alone.

        Raises:
            StoreCorruptError: it cannot be trusted.
            StoreFormatError: it is none of ours, or from a newer release.
            StorageError: it cannot be used.
        """
        self._path = path
        self._lock = threading.Lock()
        self._keys: dict[str, Key] = {}
        self._revoked: set[str] = set()
        self._made_by: dict[str, str] = {}
        """By request id, the id of the key it made."""
        self._counted_by = uuid.uuid4().hex
        self._n_changes = 1
        self._changed_at: dict[str, int] = {}
        """By id, which change was its last."""
        self._followers: dict[Future[RingChange], RingVersion] = {}
        """Who waits for a change, and what each of them knows."""
        self._connection = _connected(path)
        self._file = file_id(path)
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        with self._lock:
            self._connection.close()

    def list_keys(self) -> list[Key]:
        """All keys that are not revoked, oldest first."""
        return list(self._keys.values())

    def get(self, key_id: str) -> Key:
        """One key. Raises `KeyNotFoundError`."""
        if key_id not in self._keys:
            raise KeyNotFoundError(key_id)
        return self._keys[key_id]

    def create(self, key: Key, *, request_id: str) -> Key:
        """Store a new key; the one that this request made when it was sent before.

        Raises:
            KeyNotFoundError: that one has been revoked.
            UnavailableError: the file is no longer where it was; nothing was changed.
            StoreFullError, StorageError: nothing was changed.
        """
        with self._lock:
            if made := self._made_by.get(request_id):
                return self.get(made)
            with self._transaction() as connection:
                _insert(connection, key, request_id)
            self._made_by[request_id] = key.id
            self._put(key)
            return key

    def change(self, key_id: str, changes: KeyChanges) -> Key:
        """Change what a key may do. Raises as `create` does."""
        with self._lock:
            key = replace(self.get(key_id), **changes)
            with self._transaction() as connection:
                request_id = _delete(connection, key_id)
                _insert(connection, key, request_id)
            self._put(key)
            return key

    def revoke(self, key_id: str) -> None:
        """Refuse a key from now on; nothing happens when it is revoked already.

        Raises:
            KeyNotFoundError: there never was one.
            StoreFullError, StorageError: nothing was changed.
        """
        with self._lock:
            if key_id in self._revoked:
                return
            key = self.get(key_id)
            with self._transaction() as connection:
                request_id = _delete(connection, key_id)
                _insert(connection, key, request_id, is_revoked=True)
                connection.execute("DELETE FROM uses WHERE id = ?", (key_id,))
            self._revoked.add(key_id)
            del self._keys[key_id]
            self._note_change(key_id)

    def note_uses(self, used_us: Mapping[str, int]) -> None:
        """Take over when keys were used last, by id, where that is later than what is known."""
        with self._lock:
            later = {
                key_id: at_us
                for key_id, at_us in used_us.items()
                if key_id in self._keys and at_us > (self._keys[key_id].last_used_us or 0)
            }
            with self._transaction() as connection:
                connection.executemany("INSERT OR REPLACE INTO uses VALUES (?, ?)", later.items())
            for key_id, at_us in later.items():
                self._keys[key_id] = replace(self._keys[key_id], last_used_us=at_us)

    def changes_since(self, version: RingVersion) -> RingChange | None:
        """What has changed; None for nothing. Uses are no changes."""
        # The number comes first: what is changed meanwhile may be told twice, but never not.
        now = RingVersion(self._counted_by, self._n_changes)
        keys = self._keys.copy()
        if version == now:
            return None
        if version.counted_by != self._counted_by:
            return RingChange(version=now, keys=list(keys.values()), revoked=[], is_whole=True)
        changed_at = self._changed_at.copy()
        ids = [key_id for key_id, change in changed_at.items() if change > version.n_changes]
        return RingChange(
            version=now,
            keys=[keys[key_id] for key_id in ids if key_id in keys],
            revoked=[key_id for key_id in ids if key_id not in keys],
            is_whole=False,
        )

    def after(self, version: RingVersion) -> Future[RingChange]:
        """What has changed, once something has. Whoever no longer waits cancels it."""
        follower: Future[RingChange] = Future()
        follower.add_done_callback(lambda _: self._followers.pop(follower, None))
        self._followers[follower] = version
        self._tell_followers()
        return follower

    def _tell_followers(self) -> None:
        for follower, version in self._followers.copy().items():
            change = self.changes_since(version)
            if change is None or self._followers.pop(follower, None) is None:
                continue  # nothing to tell, or another thread does it
            if follower.set_running_or_notify_cancel():
                follower.set_result(change)

    def _put(self, key: Key) -> None:
        self._keys[key.id] = key
        self._note_change(key.id)

    def _note_change(self, key_id: str) -> None:
        self._changed_at[key_id] = self._n_changes + 1
        self._n_changes += 1
        self._tell_followers()

    def _read(self) -> None:
        with _translating_errors(self._path):
            last_used_us = dict(self._connection.execute("SELECT id, last_used_us FROM uses"))
            rows = self._connection.execute("SELECT * FROM keys ORDER BY created_us, id").fetchall()
        for row in rows:
            if not is_intact(row):
                raise _damaged(self._path, f"key {row[0]} is not as it was written")
            key, request_id, is_revoked = _key_of(row)
            self._made_by[request_id] = key.id
            if is_revoked:
                self._revoked.add(key.id)
            else:
                self._keys[key.id] = replace(key, last_used_us=last_used_us.get(key.id))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _translating_errors(self._path), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection
            # SQLite, which holds it open, would not notice: what is revoked would come back.
            if file_id(self._path) != self._file:
                raise UnavailableError(
                    f"{self._path} was removed or replaced while the service runs, and no key can "
                    "be changed: put it back, or restart the service with the one that is there"
                )


def check_keys(path: Path) -> None:
    """Look at a file of keys, if there is one; changes nothing. Raises as opening it does."""
    with TemporaryDirectory() as directory:
        for file in (path, path.with_name(f"{path.name}-journal")):
            if file.exists():
                shutil.copy(file, directory)
        try:
            KeyStore(Path(directory) / path.name).close()
        except StoreCorruptError as exc:
            raise _damaged(path, exc.reason) from exc


def _insert(
    connection: sqlite3.Connection, key: Key, request_id: str, *, is_revoked: bool = False
) -> None:
    row = with_checksum(
        key.id,
        None if is_revoked else key.digest,
        key.name,
        " ".join(key.scopes),
        " ".join(key.namespaces),
        key.created_us,
        key.expires_us,
        key.max_memories,
        key.writes_per_minute,
        request_id,
    )
    connection.execute(f"INSERT INTO keys VALUES ({', '.join('?' * len(row))})", row)


def _delete(connection: sqlite3.Connection, key_id: str) -> str:
    """Returns the id of the request that made it."""
    (request_id,) = connection.execute(
        "DELETE FROM keys WHERE id = ? RETURNING request_id", (key_id,)
    ).fetchone()
    return str(request_id)


def _key_of(row: Sequence[Any]) -> tuple[Key, str, bool]:
    """A key, the id of the request that made it, and whether it is revoked."""
    key_id, digest, name, scopes, namespaces, created_us, expires_us, *limits, request_id, _ = row
    max_memories, writes_per_minute = limits
    key = Key(
        id=key_id,
        digest=digest or b"",
        name=name,
        scopes=cast(tuple[Scope, ...], tuple(scopes.split())),
        namespaces=tuple(namespaces.split()),
        created_us=created_us,
        expires_us=expires_us,
        max_memories=max_memories,
        writes_per_minute=writes_per_minute,
    )
    return key, request_id, digest is None


def _connected(path: Path) -> sqlite3.Connection:
    """Open the file for this process alone, and lay it out if it is empty."""
    with translating_os_errors(path):
        make_directory(path.parent)
        is_new = not path.exists()
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
        if is_new:
            fsync_directory(path.parent)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        with _translating_errors(path):
            _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA busy_timeout = 10000")
    connection.execute("PRAGMA trusted_schema = OFF")
    # What is in memory is all there is, so nobody else may write; and small files need no WAL.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA synchronous = EXTRA")
    (n_objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not n_objects:
        connection.executescript(_TABLES)
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != _APPLICATION_ID or version > _FORMAT_VERSION:
        raise StoreFormatError(
            f"{path} has format {version} of {application_id:#x}; this release reads the keys of "
            f"FAISS Memory up to format {_FORMAT_VERSION}: install the one that wrote it"
        )
    (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if state != "ok":
        raise _damaged(path, state)


@contextmanager
def _translating_errors(path: Path) -> Iterator[None]:
    """As for the store, with what is to be done about keys."""
    try:
        with translating_sqlite_errors(path):
            yield
    except StoreCorruptError as exc:
        raise _damaged(path, exc.reason) from exc


def _damaged(path: Path, reason: str) -> StoreCorruptError:
    quoted = shlex.quote(str(path))
    command = f"mv {quoted} {quoted}.damaged (every key is then to be made anew)"
    return StoreCorruptError(str(path), reason, command)
