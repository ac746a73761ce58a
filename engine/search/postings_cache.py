"""The analysed posting lists on disk, so that a restart need not read every text again.

A cache and nothing more: it says which history (epoch) and LSN it reflects, zip's CRC-32 guards
each array, and one that is stale is caught up, one that is broken thrown away.
"""

from __future__ import annotations

import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.disk.durable_files import replacing
from engine.errors import StorageError
from engine.records import IdArray
from engine.search.bm25 import BM25Index
from engine.search.search_index import IndexEntry, SearchIndex, searchable_tokens
from engine.search.source_order import group_of
from engine.search.vectors.later_windows import LaterWindows
from engine.search.vectors.vector_index import VectorIndex
from engine.store.database import Store, StoredVectors
from engine.store.layout.tables import FIRST_NAMESPACE_ID
from engine.words.analyser import ANALYSER

CACHE_NAME = "postings.npz"
"""Of the first namespace; those of others have its number in their name."""
_CACHES = "postings*.npz"
_FORMAT = 1
_CATCH_UP_ROWS = 2_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedPostings:
    """Posting lists as of an LSN; row i is the memory `ids[i]`."""

    lsn: int
    ids: IdArray
    keywords: BM25Index


def postings_of(index: SearchIndex, *, epoch: str, lsn: int) -> dict[str, Any]:
    """The posting lists of an index that reflects `lsn`, as arrays of their own."""
    index = index if len(index) == index.n_rows else index.compacted()
    return arrays_of(index.keywords, index.ids, epoch=epoch, lsn=lsn)


def arrays_of(keywords: BM25Index, ids: IdArray, *, epoch: str, lsn: int) -> dict[str, Any]:
    """What the cache holds of posting lists whose row i is the memory `ids[i]`."""
    arrays = {f"bm25_{name}": array for name, array in keywords.to_arrays().items()}
    facts = {"format": _FORMAT, "epoch": epoch, "lsn": lsn, "analyser": ANALYSER}
    return {**{name: np.array(fact) for name, fact in facts.items()}, "ids": ids.copy(), **arrays}


def cache_path(data_dir: Path, namespace_id: int) -> Path:
    """The cache of a namespace."""
    if namespace_id == FIRST_NAMESPACE_ID:
        return data_dir / CACHE_NAME
    return data_dir / f"postings_{namespace_id}.npz"


def caches_in(data_dir: Path) -> list[Path]:
    """All there are."""
    return sorted(data_dir.glob(_CACHES))


def remove_caches(data_dir: Path) -> None:
    """Drop them all: what they show has been replaced."""
    for path in caches_in(data_dir):
        path.unlink(missing_ok=True)


def replace_cache(path: Path, postings: dict[str, Any]) -> None:
    """Write the cache. Durable when this returns."""
    with replacing(path) as file:
        np.savez(file, **postings)


def write_cache(path: Path, postings: dict[str, Any]) -> None:
    """The same; a failure costs the next start some time and nothing else."""
    try:
        replace_cache(path, postings)
    except StorageError as exc:
        _log.warning("the posting lists were not cached: %s", exc)


def load_index(
    store: Store, namespace_id: int, cache: Path | None, *, exact_below: int
) -> tuple[SearchIndex, int]:
    """The indexes of a namespace: from the cache as far as it is good, the rest from the texts.

    Returns:
        The indexes, and how many memories the cache did not know.
    """
    cached = _usable_cache(cache, store)
    stored = store.vectors(namespace_id)
    keep = np.isin(cached.ids, stored.ids, assume_unique=True)
    if len(cached.ids):
        keep &= ~np.isin(cached.ids, store.ids_changed_since(cached.lsn), assume_unique=True)
    known_ids = cached.ids[keep]
    keywords = cached.keywords if keep.all() else cached.keywords.compacted(keep)
    vector_index = VectorIndex(store.identity.dim, exact_below=exact_below)
    if len(known_ids):
        vector_index.add(stored.firsts[np.searchsorted(stored.ids, known_ids)])
    later = _later_windows(
        known_ids, stored, VectorIndex(vector_index.dim, exact_below=exact_below)
    )
    groups = _groups_of(known_ids, store, namespace_id)
    index = SearchIndex(vector_index, keywords, known_ids, groups, later)
    _catch_up(index, store, cached.lsn, stored, namespace_id)
    for vectors in (index.vectors, index.later.vectors):
        if vectors.needs_switch():
            vectors.adopt(vectors.build_quantised())
    return index, len(index) - len(known_ids)


def _groups_of(ids: IdArray, store: Store, namespace_id: int) -> IdArray:
    if not len(ids):
        return np.empty(0, dtype=np.int64)
    groups = {memory_id: group_of(source) for memory_id, source in store.sources(namespace_id)}
    return np.array([groups[memory_id] for memory_id in ids.tolist()], dtype=np.int64)


def _later_windows(ids: IdArray, stored: StoredVectors, vectors: VectorIndex) -> LaterWindows:
    windows = LaterWindows(vectors, np.empty(0, dtype=np.int64))
    for row in np.flatnonzero(np.isin(ids, list(stored.later))).tolist() if stored.later else []:
        windows.add(row, stored.later[int(ids[row])])
    return windows


def _catch_up(
    index: SearchIndex, store: Store, lsn: int, stored: StoredVectors, namespace_id: int
) -> None:
    entries: list[IndexEntry] = []
    for memory_id, text, source in store.searchable_since(lsn, namespace_id):
        tokens = searchable_tokens(text, source)
        entries.append(
            IndexEntry(
                id=memory_id,
                tokens=tokens,
                vectors=stored.of(memory_id),
                group=group_of(source),
            )
        )
        if len(entries) == _CATCH_UP_ROWS:
            index.apply(entries, {})
            entries = []
    index.apply(entries, {})


def _usable_cache(path: Path | None, store: Store) -> CachedPostings:
    if path is not None and path.is_file():
        try:
            return _read_cache(path, store)
        except Exception as exc:  # noqa: BLE001 - a damaged zip file can raise almost anything
            _log.warning("%s is not used (%s); the posting lists are built anew", path, exc)
            path.unlink(missing_ok=True)  # it must not come to fit by chance later
    return CachedPostings(lsn=-1, ids=np.empty(0, dtype=np.int64), keywords=BM25Index())


def problem_of_cache(path: Path) -> str | None:
    """Why a cache cannot be read; None for a good one, and for none at all."""
    try:
        if path.is_file():
            _check_members(path)
            with np.load(path, allow_pickle=False) as arrays:
                _parsed(arrays)
    except Exception as exc:  # noqa: BLE001 - as above
        return f"it cannot be read ({exc})"
    return None


def _check_members(path: Path) -> None:
    """Compare every member with its CRC-32; numpy reads only as far as a header says."""
    with zipfile.ZipFile(path) as file:
        if any(member.compress_type != zipfile.ZIP_STORED for member in file.infolist()):
            raise ValueError("it is compressed, which ours is not")
        if (damaged := file.testzip()) is not None:
            raise ValueError(f"{damaged} is damaged")


def _read_cache(path: Path, store: Store) -> CachedPostings:
    """The cache of this history, at or before the store's LSN; else ValueError and the like."""
    _check_members(path)
    with np.load(path, allow_pickle=False) as arrays:
        if str(arrays["epoch"]) != store.epoch:
            raise ValueError("of another history")
        if str(arrays["analyser"]) != ANALYSER:
            raise ValueError("its terms are those of another analyser")
        cached = _parsed(arrays)
    if cached.lsn > store.lsn:
        raise ValueError("it is ahead of the store")
    return cached


def _parsed(arrays: Any) -> CachedPostings:  # noqa: ANN401 - numpy's NpzFile
    if int(arrays["format"]) != _FORMAT:
        raise ValueError("of another format")
    cached = CachedPostings(
        lsn=int(arrays["lsn"]),
        ids=arrays["ids"],
        keywords=BM25Index.from_arrays(
            {name[5:]: arrays[name] for name in arrays.files if name.startswith("bm25_")}
        ),
    )
    ids = cached.ids
    if ids.dtype != np.int64 or ids.ndim != 1 or len(np.unique(ids)) != len(ids):
        raise ValueError("its ids are none")
    if cached.keywords.n_documents != len(ids):
        raise ValueError("it has not as many documents as ids")
    return cached
