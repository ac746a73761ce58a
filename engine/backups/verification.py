"""Whether a database is sound, and can be searched."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from engine.errors import EngineError, StoreCorruptError
from engine.search.postings_cache import load_index
from engine.store.database import Store, recorded_identity
from engine.store.layout.namespaces import NamespaceFacts
from engine.store.soundness import problems_in
from engine.store.upgrade import upgrade

NO_CODES = 1 << 62
"""For `exact_below`: nothing is quantised for a single look."""

_SAME_VECTOR = 0.999


def problems_of(database: Path, *, exact_below: int) -> list[str]:
    """What is wrong with a database that nobody has open; nothing if it is sound.

    Opens it as a service would, so it is for scratch copies.
    """
    try:
        upgrade(database)
        return problems_in(database) or _problems_in_search(database, exact_below)
    except StoreCorruptError as exc:
        return [exc.reason]
    except (sqlite3.Error, EngineError, ValueError, KeyError) as exc:
        return [str(exc)]


def _problems_in_search(database: Path, exact_below: int) -> list[str]:
    with closing(Store(database, identity=recorded_identity(database))) as store:
        for namespace in store.namespaces():
            if problem := _problem_in(store, namespace, exact_below):
                return [problem]
    return []


def _problem_in(store: Store, namespace: NamespaceFacts, exact_below: int) -> str | None:
    index, _ = load_index(store, namespace.id, None, exact_below=exact_below)
    if len(index) != namespace.n_memories:
        return f"{len(index)} memories can be searched of {namespace.n_memories}"
    _, vectors = store.embeddings(namespace.id)
    says_something = np.flatnonzero(vectors.any(axis=1))[:1]
    if len(says_something):
        _, similarities = index.nearest(vectors[says_something], 1, at_least=_SAME_VECTOR)
        if not similarities[0, 0] >= _SAME_VECTOR:  # NaN is not
            return "a search does not find a memory by its own vector"
    return None
