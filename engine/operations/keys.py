"""Operations on the keys. They touch no memories, and are answered while those are not open."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from engine.keys.records import Key, KeyChanges, RingChange, RingVersion
from engine.operations.operation import Directory, DirectoryOperation, Lane, Remedy


@dataclass(frozen=True, slots=True)
class ListKeys(DirectoryOperation[list[Key]]):
    """All keys that are not revoked, oldest first."""

    lane = Lane.LOOP

    def run(self, directory: Directory) -> list[Key]:
        return directory.keys.list_keys()


@dataclass(frozen=True, slots=True)
class GetKey(DirectoryOperation[Key]):
    """One key. Raises `KeyNotFoundError`."""

    lane = Lane.LOOP

    key_id: str

    def run(self, directory: Directory) -> Key:
        return directory.keys.get(self.key_id)


@dataclass(frozen=True, slots=True)
class CreateKey(DirectoryOperation[Key]):
    """Store a new key; the one that this request made when it was sent before.

    Raises `KeyNotFoundError` when that one has been revoked.
    """

    if_unknown = Remedy.SEND_AGAIN

    key: Key
    request_id: str = field(kw_only=True)

    def run(self, directory: Directory) -> Key:
        return directory.keys.create(self.key, request_id=self.request_id)


@dataclass(frozen=True, slots=True)
class ChangeKey(DirectoryOperation[Key]):
    """Change what a key may do. Raises `KeyNotFoundError`."""

    if_unknown = Remedy.SEND_AGAIN

    key_id: str
    changes: KeyChanges

    def run(self, directory: Directory) -> Key:
        return directory.keys.change(self.key_id, self.changes)


@dataclass(frozen=True, slots=True)
class RevokeKey(DirectoryOperation[None]):
    """Refuse a key from now on; idempotent. Raises `KeyNotFoundError`: there never was one."""

    if_unknown = Remedy.SEND_AGAIN

    key_id: str

    def run(self, directory: Directory) -> None:
        directory.keys.revoke(self.key_id)
        directory.write_rates.forget(self.key_id)


@dataclass(frozen=True, slots=True)
class FollowKeys(DirectoryOperation[RingChange | None]):
    """What has changed since, as soon as something has; None when nothing does in time."""

    lane = Lane.LOOP

    version: RingVersion
    wait_s: float

    def run(self, directory: Directory) -> Future[RingChange | None]:
        return directory.next_keys(self.version, self.wait_s)


@dataclass(frozen=True, slots=True)
class NoteKeyUses(DirectoryOperation[None]):
    """Take over when keys were used last."""

    used_us: Mapping[str, int]
    """By id, microseconds since the epoch."""

    def run(self, directory: Directory) -> None:
        directory.keys.note_uses(self.used_us)


@dataclass(frozen=True, slots=True)
class AdmitWrite(DirectoryOperation[None]):
    """Count a write that is about to happen. Raises `RateLimitedError`, `KeyNotFoundError`."""

    lane = Lane.LOOP

    key_id: str

    def run(self, directory: Directory) -> None:
        directory.write_rates.admit(directory.keys.get(self.key_id))
