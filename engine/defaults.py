"""How an index behaves unless it is told otherwise. Constants alone: settings are made of them."""

from __future__ import annotations

from typing import Final

DEDUP_THRESHOLD: Final = 0.90
"""Cosine from which an added memory may be a duplicate."""
EXACT_BELOW: Final = 20_000
"""Rows from which searches use RaBitQ codes."""
COMPACT_FROM: Final = 1_000
"""Dead rows from which the indexes are compacted, if they are a quarter of all."""
CACHE_AFTER: Final = 2_000
"""Changes after which the posting lists are cached anew, if they are a tenth of all."""
MAX_BACKUPS: Final = 10
"""Automatic backups kept; 0 makes none."""
