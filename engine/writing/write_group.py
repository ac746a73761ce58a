"""The writes that share a commit: one session for each namespace that they touch."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from engine.errors import InvalidInputError, QuotaExceededError
from engine.namespaces import is_covered
from engine.records import MemoryQuota
from engine.search.search_index import SearchIndex
from engine.store.layout.namespaces import NO_NAMESPACE, NamespaceFacts
from engine.store.transaction import Transaction
from engine.writing.live_state import LiveState
from engine.writing.write_session import WriteSession, is_scoped_to


class WriteGroup:
    """An open transaction, and what it has changed that the indexes do not show yet."""

    def __init__(
        self, transaction: Transaction, state: LiveState, *, lsn: int, time_us: int
    ) -> None:
        self.transaction = transaction
        """Of no namespace in particular."""
        self.lsn = lsn
        """Of the job that runs."""
        self.time_us = time_us
        self.n_changes = 0
        """Memories written or removed, and namespaces renamed or deleted, so far."""
        self.sessions: dict[int, WriteSession] = {}
        """By the id of their namespace."""
        self.deleted: set[int] = set()
        """Namespaces that are gone."""
        self._state = state
        self._has_renamed = False
        """Whether a name may mean another namespace than before, or none."""
        self._in_use = ExitStack()

    def close(self) -> None:
        """Indexes that it used may be given back."""
        self._in_use.close()

    @contextmanager
    def job(self, lsn: int) -> Iterator[None]:
        """Run one job; if it fails, its writes alone are undone."""
        self.lsn = lsn
        before = {i: (session, session.changes()) for i, session in self.sessions.items()}
        n_changes, deleted = self.n_changes, self.deleted.copy()
        try:
            with self.transaction.savepoint():
                yield
        except BaseException:
            self.n_changes, self.deleted = n_changes, deleted
            self.sessions = {i: session for i, (session, _) in before.items()}
            for session, changes in before.values():
                session.go_back_to(changes)
            raise

    def session(self, name: str) -> WriteSession:
        """The writes to one namespace; it comes to be with the first memory."""
        namespace_id = NO_NAMESPACE if self._has_renamed else self._state.id_of(name)
        if namespace_id == NO_NAMESPACE:  # or new, or called otherwise, in this transaction
            namespace_id = self.transaction.namespaces.id_of(name)
        if namespace_id == NO_NAMESPACE:
            return WriteSession(self, NO_NAMESPACE, name)
        return self._session_of(namespace_id, name)

    def session_with_id(self, namespace_id: int) -> WriteSession | None:
        """The same by its id; None for a namespace that is gone."""
        name = self.transaction.namespaces.name_of(namespace_id)
        return None if name is None else self._session_of(namespace_id, name)

    def _session_of(self, namespace_id: int, name: str) -> WriteSession:
        if namespace_id not in self.sessions:
            self.sessions[namespace_id] = WriteSession(self, namespace_id, name)
            self._in_use.enter_context(self._state.indexes.in_use(namespace_id))
        return self.sessions[namespace_id]

    def create_namespace(self, session: WriteSession) -> int:
        """Make the namespace of a session that has none yet; its id."""
        known = self.transaction.namespaces.id_of(session.name)
        namespace_id = known or self.transaction.namespaces.add(session.name)
        self.sessions[namespace_id] = session
        return namespace_id

    def index_of(self, namespace_id: int) -> SearchIndex:
        """The index of a namespace as of the last commit."""
        return self._state.index_for_write(namespace_id)

    @property
    def dim(self) -> int:
        """Of a vector."""
        return self._state.store.identity.dim

    def rename_namespace(self, name: str, to: str) -> None:
        """Call a namespace otherwise. Raises `InvalidInputError`."""
        session = self.session(name)
        if session.namespace_id == NO_NAMESPACE:
            raise InvalidInputError(f"there is no namespace '{name}'")
        if self.transaction.namespaces.id_of(to) != NO_NAMESPACE:
            raise InvalidInputError(f"there is a namespace '{to}' already")
        self.n_changes += 1
        self._has_renamed = True
        self._forget_keys_of(name)
        session.rename(to)

    def delete_namespace(self, name: str) -> int:
        """Delete a namespace with all that it holds; how many memories that were."""
        session = self.session(name)
        if session.namespace_id == NO_NAMESPACE:
            raise InvalidInputError(f"there is no namespace '{name}'")
        self.n_changes += 1
        self._has_renamed = True
        self._forget_keys_of(name)
        n_deleted = session.transaction.delete_all(lsn=self.lsn)
        del self.sessions[session.namespace_id]
        self.deleted.add(session.namespace_id)
        self.transaction.namespaces.rename(session.namespace_id, None)
        self.transaction.namespaces.note(
            session.namespace_id, None, changed_us=self.time_us, lsn=self.lsn
        )
        return n_deleted

    def _forget_keys_of(self, name: str) -> None:
        # Whoever gives another namespace this name asks for other writes by the same keys.
        is_meant = functools.partial(is_scoped_to, namespace=name)
        self.transaction.outcomes.forget_where(is_meant)
        self.transaction.imports.forget_where(is_meant)

    def check_quota(self, quota: MemoryQuota, used: int) -> None:
        """Raise `QuotaExceededError` when the job that runs has grown beyond a quota.

        Args:
            quota: that is not to be exceeded.
            used: `n_memories` before the job.
        """
        now = self.n_memories(quota)
        if now > max(used, quota.max_memories):
            raise QuotaExceededError(used, quota.max_memories)

    def n_memories(self, quota: MemoryQuota) -> int:
        """Memories that count for a quota, what is not committed yet included."""
        names = quota.namespaces
        total = self._state.namespaces.count_in(names)
        gone = [self._state.namespaces.with_id(i) for i in self.deleted]
        total -= sum(f.n_memories for f in gone if f is not None and is_covered(f.name, names))
        return total + sum(s.growth for s in self.sessions.values() if s.is_named_by(names))

    def settle(self) -> list[NamespaceFacts]:
        """Note in the transaction which namespaces were written to; what they are from now on."""
        changed = []
        for namespace_id, session in self.sessions.items():
            if session.last_lsn is None:
                continue
            self.transaction.namespaces.note(
                namespace_id, session.name, changed_us=self.time_us, lsn=session.last_lsn
            )
            before = self._state.namespaces.with_id(namespace_id)
            changed.append(
                NamespaceFacts(
                    id=namespace_id,
                    name=session.name,
                    changed_us=self.time_us,
                    lsn=session.last_lsn,
                    n_memories=(before.n_memories if before else 0) + session.growth,
                )
            )
        return changed
