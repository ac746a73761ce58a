"""Which snapshots stay in the bucket, and which objects nobody needs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from engine.offsite.object_store import StoredObject
from engine.offsite.snapshots import RemoteSnapshot

_DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteRetention:
    """The newest few, and one of each of the last days."""

    keep: int = 20
    """Newest snapshots, at least 1."""
    keep_days: int = 30
    """Days, before the newest snapshot's, of which the last snapshot stays too."""
    grace_s: float = _DAY_S
    """Objects younger than this stay: they may be part of an upload under way."""

    def superfluous(self, snapshots: Sequence[RemoteSnapshot]) -> list[RemoteSnapshot]:
        """Snapshots that may go, of all there are, newest first."""
        if not snapshots:
            return []
        today = _day_of(snapshots[0])
        seen: set[int] = set()
        superfluous = []
        for at, snapshot in enumerate(snapshots):
            day = _day_of(snapshot)
            is_last_of_its_day = day not in seen and today - day < self.keep_days
            seen.add(day)
            if at >= self.keep and not is_last_of_its_day:
                superfluous.append(snapshot)
        return superfluous


def unreferenced(
    objects: Iterable[StoredObject], needed: Collection[str], old_s: float
) -> list[str]:
    """Keys of content objects that are not needed and were written before `old_s`."""
    return [
        stored.key
        for stored in objects
        if stored.key.startswith("objects/")
        and stored.key not in needed
        and stored.modified_s < old_s
    ]


def _day_of(snapshot: RemoteSnapshot) -> int:
    return int(snapshot.modified_s // _DAY_S)
