"""Bounds and defaults of what travels. Constants alone: a command line starts with them."""

from __future__ import annotations

from typing import Final

MAX_ID: Final = 2**53 - 1
"""Ids stay exact in every JSON reader, the ones that know only doubles included."""

TEXT_CHARS: Final = 50_000
SOURCE_CHARS: Final = 500
KEY_CHARS: Final = 500
METADATA_BYTES: Final = 64 * 1024

BODY_BYTES: Final = 32 * 1024 * 1024
"""Of a request that is not read as a stream, unless the service is told otherwise."""

QUERY_CHARS: Final = 10_000
HITS: Final = 5
MAX_HITS: Final = 100
MAX_QUERIES: Final = 100
MAX_METADATA_FILTERS: Final = 100
"""Names; SQLite would refuse a thousand."""
VECTOR_WEIGHT: Final = 0.7
HALF_LIFE_DAYS: Final = (0.01, 36_500)
"""From a quarter of an hour to a century."""
RECENCY_WEIGHT: Final = 0.1
MAX_RECENCY_WEIGHT: Final = 0.2
"""More, and what is new would come before what is meant."""
NOVEL_BELOW: Final = 0.88
"""Similarity from which a text is not novel."""

MAX_ADDED: Final = 500
"""Memories of a batch."""
MAX_DELETED: Final = 1000
"""Ids of a batch."""
DUPLICATE_FROM: Final = 0.90
"""Similarity of duplicates; nobody may ask for less than the next."""
LEAST_DUPLICATE: Final = 0.5

PAGE: Final = 20
MAX_PAGE: Final = 100
CURSOR_CHARS: Final = 500

MAX_BUILD_SOURCES: Final = 1000
PATH_CHARS: Final = 4096
IDEMPOTENCY_KEY: Final = r"^[!-~]{1,200}$"

BACKUP_PREFIX_CHARS: Final = 50
BACKUP_NAME_CHARS: Final = 200

NAMESPACE: Final = r"^[a-z0-9][a-z0-9._-]{0,99}$"
NAMESPACE_GLOB: Final = r"^(\*|[a-z0-9][a-z0-9._-]{0,99}\*?)$"
"""A name, or the beginning of names and a `*`."""
MAX_GLOBS: Final = 20
KEY_NAME_CHARS: Final = 100
MAX_WRITES_PER_MINUTE: Final = 100_000
"""More than the service can do."""
