"""How one index behaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine import defaults
from engine.backups.catalogue import Backups
from engine.backups.of_live_store import Bursts
from engine.records import ModelIdentity
from engine.writing.live_state import IndexSettings

BACKUPS_NAME = "backups"


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """Where the data is, limits and thresholds."""

    data_dir: Path
    workspace_dir: Path
    unbuilt_names: frozenset[str] = frozenset()
    """Top-level names of the workspace that are built only when they are asked for."""
    identity: ModelIdentity
    dedup_threshold: float = defaults.DEDUP_THRESHOLD
    """Cosine from which an added memory is a duplicate."""
    exact_below: int = defaults.EXACT_BELOW
    """Memories from which searches use RaBitQ codes."""
    compact_from: int = defaults.COMPACT_FROM
    """Dead rows from which the indexes are compacted, if they are a quarter of all."""
    cache_after: int = defaults.CACHE_AFTER
    """Changes after which the posting lists are cached anew, if they are a tenth of all."""
    lock_timeout_s: float = 30.0
    """How long to wait for another process to let go of the data directory."""
    max_pending_jobs: int = 1_024
    max_pending_memories: int = 8_192
    index_memory_bytes: int | None = None
    """That all indexes in memory should take; those used least recently are given back. None is no
    bound."""
    longest_write_s: float = 30.0
    """A commit that takes longer counts as one that hangs."""
    max_backups: int = defaults.MAX_BACKUPS
    """Automatic backups kept; 0 makes none."""
    max_requested_backups: int = 100
    max_scheduled_backups: int = 48
    """Those with the prefix `scheduled`: a day of half hours. They push out no other."""
    max_safety_backups: int = 10
    """Those made before a restore, a build or the like."""
    backup_pause_s: float = 0.5
    """A burst of writes is over, and backed up, after this long without one."""
    backup_longest_burst_s: float = 30.0
    deltas_share: float = 0.25
    """A backup starts a new base when its deltas outgrow this share of the old one."""
    merge_below_bytes: int = 512 * 1024
    """Deltas of a backup are merged while they take less together."""
    max_pieces: int = 256
    """Pieces that the model embeds: the most a chunk of a file may have."""

    def index_settings(self) -> IndexSettings:
        """How indexes are loaded and held."""
        return IndexSettings(
            data_dir=self.data_dir,
            exact_below=self.exact_below,
            large_from=self.cache_after,
            max_bytes=self.index_memory_bytes,
        )

    def bursts(self) -> Bursts | None:
        """When automatic backups are made; None: never."""
        if not self.max_backups:
            return None
        return Bursts(pause_s=self.backup_pause_s, longest_s=self.backup_longest_burst_s)

    def open_backups(self) -> Backups:
        """The backup directories; see `Backups`."""
        return Backups(
            self.data_dir / BACKUPS_NAME,
            keep={
                "automatic": self.max_backups,
                "requested": self.max_requested_backups,
                "scheduled": self.max_scheduled_backups,
                "safety": self.max_safety_backups,
            },
            deltas_share=self.deltas_share,
            merge_below_bytes=self.merge_below_bytes,
        )
