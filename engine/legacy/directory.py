"""A data directory of the original service: found, read whole or refused, and set aside.

It holds `index.faiss` (a flat inner-product index), `metadata.json` (an array with a memory for
each vector, its metadata flattened into it) and `config.json`.
"""

from __future__ import annotations

import json
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from engine.disk.durable_files import fsync_directory, sha256_of, translating_os_errors
from engine.errors import LegacyImportError
from engine.legacy.rows import LegacyMemory, RowRefusedError, read_rows
from engine.records import FloatMatrix

INDEX_FILE = "index.faiss"
METADATA_FILE = "metadata.json"
CONFIG_FILE = "config.json"

_STORE_FILE = "memories.db"
_ASIDE = re.compile(r"legacy_(\d+)")
_FLAT_INNER_PRODUCT = b"IxFI"
_HEADER = struct.Struct("<4siq16x?iQ")
"""Type, dim, vectors, two unused, whether trained, metric, and how many floats follow."""
_MAX_LENGTH_ERROR = 0.01
_EXACT_ENOUGH = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyData:
    """Everything that is taken over."""

    memories: list[LegacyMemory]
    vectors: FloatMatrix
    """A row for each memory, in the same order."""
    model_name: str | None
    """From `config.json`; None without that file."""
    fingerprint: str
    """See `fingerprint`."""


def find_legacy(data_dir: Path) -> bool:
    """Whether `data_dir` holds files of the original service, complete or not.

    An `index.faiss` alone says nothing: without texts there is nothing to import.
    """
    if (data_dir / METADATA_FILE).is_file():
        return True
    rest = all((data_dir / name).is_file() for name in (INDEX_FILE, CONFIG_FILE))
    return rest and not (data_dir / _STORE_FILE).exists()


def fingerprint(data_dir: Path) -> str:
    """The sha256, hex, of `metadata.json`, which holds all that cannot be computed again.

    It can be taken as long as `find_legacy` says True after an import, since `set_aside` moves
    that file last: an import that was committed is recognised after any crash.
    """
    try:
        return sha256_of(data_dir / METADATA_FILE)
    except OSError as exc:
        raise _unreadable(data_dir / METADATA_FILE, exc) from exc


def read_legacy(data_dir: Path, *, dim: int) -> LegacyData:
    """Read and check everything; changes nothing.

    A timestamp without a zone is UTC; a memory without one gets the time `metadata.json` was
    written. Vectors whose length is within 1 % of 1 are normalised anew.

    Raises:
        LegacyImportError: names the file and the row, and says what to do.
    """
    memories = _memories(data_dir / METADATA_FILE)
    vectors = _vectors(data_dir / INDEX_FILE, dim)
    if len(vectors) != len(memories):
        found = f"holds {len(vectors)} vectors, but {METADATA_FILE} has {len(memories)} rows"
        raise _refusal(data_dir / INDEX_FILE, found)
    return LegacyData(
        memories=memories,
        vectors=vectors,
        model_name=_model_name(data_dir / CONFIG_FILE),
        fingerprint=fingerprint(data_dir),
    )


def set_aside(data_dir: Path) -> Path:
    """Move the original files to `legacy_<n>` and return that directory. Durable.

    To be called once the import is committed. Killed half-way, it goes on where it stopped when
    called again.

    Raises:
        StorageError: a file could not be moved.
    """
    taken = {int(m[1]) for path in data_dir.iterdir() if (m := _ASIDE.fullmatch(path.name))}
    newest = max(taken, default=0)
    unfinished = newest and not (data_dir / f"legacy_{newest}" / METADATA_FILE).exists()
    target = data_dir / f"legacy_{newest if unfinished else newest + 1}"
    with translating_os_errors(target):
        target.mkdir(exist_ok=True)
        fsync_directory(data_dir)
        for name in (INDEX_FILE, CONFIG_FILE, METADATA_FILE):
            # One that is there already was moved before a crash: what has its name now is ours.
            if (data_dir / name).exists() and not (target / name).exists():
                (data_dir / name).rename(target / name)
                fsync_directory(target)
                fsync_directory(data_dir)
    return target


def _refusal(path: Path, problem: str) -> LegacyImportError:
    return LegacyImportError(
        f"{path}: {problem}. Nothing was imported. Mend the file, or copy all three files from "
        f"one of the original service's backups, or move them out of {path.parent} to start empty."
    )


def _unreadable(path: Path, error: OSError) -> LegacyImportError:
    missing = isinstance(error, FileNotFoundError)
    return _refusal(path, "is missing" if missing else f"cannot be read: {error.strerror}")


def _load_json(path: Path, expected: type[list[Any]] | type[dict[str, Any]]) -> Any:  # noqa: ANN401
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    except RecursionError as exc:
        raise _refusal(path, "is nested too deeply") from exc
    except ValueError as exc:
        raise _refusal(path, f"is no whole JSON in UTF-8 ({exc})") from exc
    if not isinstance(content, expected):
        shape = "an array" if expected is list else "an object"
        raise _refusal(path, f"holds {type(content).__name__}, expected {shape}")
    return content


def _model_name(path: Path) -> str | None:
    if not path.exists():
        return None
    name = _load_json(path, dict).get("model")
    if name is not None and not isinstance(name, str):
        raise _refusal(path, f"'model' is {name!r}, expected a string")
    return name


def _memories(path: Path) -> list[LegacyMemory]:
    rows = _load_json(path, list)
    try:
        return read_rows(rows, default_time_us=path.stat().st_mtime_ns // 1000)
    except RowRefusedError as exc:
        raise _refusal(path, str(exc)) from exc


def _vectors(path: Path, dim: int) -> FloatMatrix:
    n = _check_header(path, dim)
    try:
        index = faiss.read_index(str(path))
    except (RuntimeError, MemoryError) as exc:
        raise _refusal(path, "is damaged") from exc
    if not n:
        return np.zeros((0, dim), np.float32)
    vectors: FloatMatrix = index.reconstruct_n(0, n)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    errors = np.abs(lengths - 1.0)
    odd = np.flatnonzero(~(errors <= _MAX_LENGTH_ERROR))  # negated, so that NaN is odd too
    if odd.size:
        row = int(odd[0])
        raise _refusal(path, f"row {row}: the vector's length is {lengths[row, 0]:.4g}, expected 1")
    return np.where(errors <= _EXACT_ENOUGH, vectors, vectors / lengths).astype(np.float32)


def _check_header(path: Path, dim: int) -> int:
    """Number of vectors in a flat inner-product index that is whole.

    FAISS makes room for what a header announces before it misses the bytes: a flipped bit there
    would cost gigabytes and minutes. And its other formats were never the original service's.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
            n_bytes = os.fstat(file.fileno()).st_size
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    if header[:4] != _FLAT_INNER_PRODUCT:
        problem = f"is of FAISS type {header[:4]!r}, expected a flat inner-product index"
        raise _refusal(path, problem)
    if len(header) < _HEADER.size:
        raise _refusal(path, "is truncated")
    _, d, n, _, metric, n_floats = _HEADER.unpack(header)
    if d != dim:
        raise _refusal(path, f"has vectors of {d} dimensions, the model makes {dim}")
    if metric != faiss.METRIC_INNER_PRODUCT or n < 0 or n_floats != n * d:
        raise _refusal(path, "has a damaged header")
    if n_bytes != _HEADER.size + 4 * n_floats:
        problem = f"is {n_bytes} bytes long, expected {_HEADER.size + 4 * n_floats}"
        raise _refusal(path, problem)
    return int(n)
