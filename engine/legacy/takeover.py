"""Taking over a data directory of the original service: all of it, once, or nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from engine.errors import LegacyImportError
from engine.legacy.directory import METADATA_FILE, find_legacy, fingerprint, read_legacy, set_aside
from engine.namespaces import DEFAULT
from engine.records import NewMemory
from engine.store.database import Store, now_us
from engine.store.layout.tables import FIRST_NAMESPACE_ID

LEGACY_PRECISION: Final = "fp32"
"""The original service embedded with the official model in this precision."""

_IMPORTED = "legacy_fingerprint"

_log = logging.getLogger(__name__)


def import_legacy(store: Store, data_dir: Path) -> None:
    """Import the original files in `data_dir`, if there are any, and move them to `legacy_<n>`.

    Vectors, ids and timestamps are taken over. One transaction: killed at any instant, the next
    start either imports again or only moves the files.

    Raises:
        LegacyImportError: the files cannot be taken over; nothing was changed.
    """
    if not find_legacy(data_dir):
        return
    with store.transaction() as transaction:
        known = transaction.get_meta(_IMPORTED)
    if known is None or known != fingerprint(data_dir):
        _import(store, data_dir)
    set_aside(data_dir)


def _import(store: Store, data_dir: Path) -> None:
    metadata_file = data_dir / METADATA_FILE
    if store.lsn:
        raise LegacyImportError(
            f"{metadata_file} is of the original service, but {store.path} already holds "
            "memories of this one: move one of them elsewhere"
        )
    if store.identity.precision != LEGACY_PRECISION:
        raise LegacyImportError(
            f"the vectors of {data_dir} are {LEGACY_PRECISION}: start with "
            f"MODEL_PRECISION={LEGACY_PRECISION} (or without that variable) to take them over"
        )
    data = read_legacy(data_dir, dim=store.identity.dim)
    if data.model_name is not None and Path(data.model_name).name != store.identity.name:
        raise LegacyImportError(
            f"the vectors of {data_dir} come from {data.model_name}, not {store.identity.name}"
        )
    with store.transaction() as transaction:
        for memory, vector in zip(data.memories, data.vectors, strict=True):
            transaction.insert(
                NewMemory(text=memory.text, source=memory.source, metadata=memory.metadata),
                vector,
                time_us=memory.timestamp_us,
                lsn=1,
                memory_id=memory.id,
            )
        transaction.set_meta(_IMPORTED, data.fingerprint)
        transaction.namespaces.note(FIRST_NAMESPACE_ID, DEFAULT, changed_us=now_us(), lsn=1)
        transaction.set_lsn(1, now_us())
    store.publish_lsn(1)
    _log.info("imported %d memories of the original service", len(data.memories))
