"""The index actor's part that keeps the keys: it has the one disk, and every ingress asks it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from engine.keys.key_store import KEYS_NAME, KeyStore
from engine.keys.records import Key, KeyChanges, RingChange, RingVersion
from engine.keys.write_rates import WriteRates

T = TypeVar("T")


class KeyReplica:
    """Implements `deployments.calls.protocols.KeyClient` for callers in other processes."""

    def open_keys(self, data_dir: Path) -> None:
        """Open the keys of a data directory, which the caller owns. Raises `StorageError`."""
        self._keys = KeyStore(data_dir / KEYS_NAME)
        self._rates = WriteRates()
        self._has_changed = asyncio.Event()

    def close_keys(self) -> None:
        """Let go of them; nothing happens when they were never opened."""
        keys: KeyStore | None = getattr(self, "_keys", None)
        if keys is not None:
            keys.close()

    async def list_keys(self) -> list[Key]:
        """All keys that are not revoked."""
        return self._keys.list_keys()

    async def get_key(self, key_id: str) -> Key:
        """One key."""
        return self._keys.get(key_id)

    async def create_key(self, key: Key, *, request_id: str) -> Key:
        """Store a new key."""
        return await self._change(lambda: self._keys.create(key, request_id=request_id))

    async def change_key(self, key_id: str, changes: KeyChanges) -> Key:
        """Change what a key may do."""
        return await self._change(lambda: self._keys.change(key_id, changes))

    async def revoke_key(self, key_id: str) -> None:
        """Refuse a key from now on."""
        await self._change(lambda: self._keys.revoke(key_id))
        self._rates.forget(key_id)

    async def follow_keys(self, version: RingVersion, wait_s: float) -> RingChange | None:
        """What has changed since, as soon as something has; None when nothing does in time."""
        has_changed = self._has_changed
        change = self._keys.changes_since(version)
        if change is None:
            try:
                await asyncio.wait_for(has_changed.wait(), wait_s)
            except asyncio.TimeoutError:
                return None
            change = self._keys.changes_since(version)
        return change

    async def note_key_uses(self, used_us: Mapping[str, int]) -> None:
        """Take over when keys were used last."""
        await asyncio.to_thread(self._keys.note_uses, used_us)

    async def admit_write(self, key_id: str) -> None:
        """Count a write that is about to happen."""
        self._rates.admit(self._keys.get(key_id))

    async def _change(self, change: Callable[[], T]) -> T:
        """Change keys in a thread, and tell whoever follows, also when the caller has gone."""

        async def changed() -> T:
            try:
                return await asyncio.to_thread(change)
            finally:
                self._has_changed.set()
                self._has_changed = asyncio.Event()

        return await asyncio.shield(asyncio.ensure_future(changed()))
