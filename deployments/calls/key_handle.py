"""The keys' part of `deployments.calls.handles`: the index actor's keys over a Serve handle."""

from __future__ import annotations

from collections.abc import Mapping

from deployments.calls.parcels import ParcelHandle
from deployments.calls.replica_calls import ReplicaCalls
from engine.keys.records import Key, KeyChanges, RingChange, RingVersion

_AGAIN = "send it again: it changes nothing twice"


class ServeKeyClient:
    """`KeyClient` over a Serve handle; see `deployments.calls.protocols`."""

    _handle: ParcelHandle
    _calls: ReplicaCalls

    async def list_keys(self) -> list[Key]:
        """All keys that are not revoked."""
        return await self._calls.answer(lambda: self._handle.list_keys.remote())

    async def get_key(self, key_id: str) -> Key:
        """One key."""
        return await self._calls.answer(lambda: self._handle.get_key.remote(key_id))

    async def create_key(self, key: Key, *, request_id: str) -> Key:
        """Store a new key."""
        return await self._calls.write(
            lambda _: self._handle.create_key.remote(key, request_id=request_id)
        )

    async def change_key(self, key_id: str, changes: KeyChanges) -> Key:
        """Change what a key may do."""
        return await self._calls.write(
            lambda _: self._handle.change_key.remote(key_id, changes), if_unknown=_AGAIN
        )

    async def revoke_key(self, key_id: str) -> None:
        """Refuse a key from now on."""
        await self._calls.write(lambda _: self._handle.revoke_key.remote(key_id), if_unknown=_AGAIN)

    async def follow_keys(self, version: RingVersion, wait_s: float) -> RingChange | None:
        """What has changed since, as soon as something has."""
        return await self._calls.answer(lambda: self._handle.follow_keys.remote(version, wait_s))

    async def note_key_uses(self, used_us: Mapping[str, int]) -> None:
        """Report when keys were used last."""
        await self._calls.answer(lambda: self._handle.note_key_uses.remote(used_us))

    async def admit_write(self, key_id: str) -> None:
        """Count a write that is about to happen."""
        await self._calls.answer(lambda: self._handle.admit_write.remote(key_id))
