"""Data directories with memories in them, made without a service: embed once, add in process."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.support.corpora import Passage
from deployments.settings import load_settings
from engine.index_options import IndexOptions
from engine.memory_index import MemoryIndex
from engine.model.embedder import Embedder
from engine.model.files import default_model_dir
from engine.model.precision import choose_precision
from engine.records import Embeddings, FloatMatrix, NewMemory, RowArray

CACHE_DIR = Path(tempfile.gettempdir()) / "faiss-memory-benchmarks"
_BLOCK_TEXTS = 1_000
_CALLERS = 2


def service_embedder(model_dir: Path | None = None) -> Embedder:
    """The embedder that a service would run here, of the model set up, or of `model_dir`."""
    directory = model_dir or default_model_dir(os.environ, Path.home())
    return Embedder(directory, precision=choose_precision("auto"))


def embed_cached(
    embedder: Embedder, texts: Sequence[str], cache_dir: Path = CACHE_DIR
) -> FloatMatrix:
    """Embed texts in blocks that later runs find again; shape (len(texts), dim)."""
    return embed_whole_cached(embedder, texts, cache_dir, max_windows=1).firsts


def embed_whole_cached(
    embedder: Embedder, texts: Sequence[str], cache_dir: Path = CACHE_DIR, *, max_windows: int = 999
) -> Embeddings:
    """Embed every window of texts in blocks that later runs find again."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(texts), _BLOCK_TEXTS)
    vectors, rows = [np.empty((0, embedder.dim), np.float32)], [np.empty(0, np.int64)]
    with ThreadPoolExecutor(_CALLERS) as pool:
        for start in track(
            starts, "embedding", console=Console(stderr=True), disable=len(starts) < 2
        ):
            block = texts[start : start + _BLOCK_TEXTS]
            of_block, rows_of_block = _embed_block(embedder, block, cache_dir, pool, max_windows)
            vectors.append(of_block)
            rows.append(start + rows_of_block)
    return _as_embeddings(np.concatenate(vectors), np.concatenate(rows))


def _as_embeddings(vectors: FloatMatrix, rows: RowArray) -> Embeddings:
    """Windows in the order of their texts, `rows` saying whose each is."""
    _, firsts, counts = np.unique(rows, return_index=True, return_counts=True)
    return Embeddings(
        firsts=vectors[firsts],
        later={
            int(text): vectors[firsts[text] + 1 : firsts[text] + counts[text]]
            for text in np.flatnonzero(counts > 1)
        },
    )


def _embed_block(
    embedder: Embedder,
    texts: Sequence[str],
    cache_dir: Path,
    pool: ThreadPoolExecutor,
    max_windows: int,
) -> tuple[FloatMatrix, RowArray]:
    """Vectors of the windows of texts, text by text, and whose each is."""
    identity = embedder.identity
    key = hashlib.sha256(f"{identity.fingerprint} {identity.precision} {max_windows}".encode())
    for text in texts:
        key.update(hashlib.sha256(text.encode()).digest())
    file = cache_dir / f"{key.hexdigest()[:24]}.npz"
    if file.is_file():
        with np.load(file) as cached:
            return cached["vectors"], cached["rows"]
    runs = embedder.plan_runs(texts, [max_windows] * len(texts))
    vectors = np.concatenate(list(pool.map(embedder.embed_run, runs)))
    rows = np.concatenate([run.rows for run in runs])
    order = np.lexsort((np.concatenate([run.windows for run in runs]), rows))
    incoming = file.with_suffix(".tmp.npz")
    np.savez(incoming, vectors=vectors[order], rows=rows[order])
    incoming.replace(file)
    return vectors[order], rows[order]


def open_index(data_dir: Path, embedder: Embedder, *, with_backups: bool = True) -> MemoryIndex:
    """The index of a data directory, as the service under its default settings opens it."""
    settings = load_settings(data_dir=data_dir, workspace_dir=data_dir.parent)
    options = IndexOptions(
        data_dir=data_dir,
        workspace_dir=data_dir.parent,
        identity=embedder.identity,
        dedup_threshold=settings.dedup_threshold,
        exact_below=settings.exact_below,
        max_backups=settings.max_backups if with_backups else 0,
        max_pending_jobs=settings.max_queued_writes,
    )
    return MemoryIndex(options, count_pieces=embedder.count_pieces)


def fill(
    data_dir: Path, passages: Sequence[Passage], embeddings: FloatMatrix, embedder: Embedder
) -> None:
    """Add every passage, duplicates too, to a new data directory; id n is passage n of them."""
    data_dir.mkdir(parents=True)
    index = open_index(data_dir, embedder, with_backups=False)
    try:
        for start in range(0, len(passages), _BLOCK_TEXTS):
            block = passages[start : start + _BLOCK_TEXTS]
            memories = [
                NewMemory(text=p.memory_text, source=f"corpus/{start + i}", deduplicate=False)
                for i, p in enumerate(block)
            ]
            rows = embeddings[start : start + len(block)]
            index.add(memories, rows, request_id=f"fill-{start}").result()
    finally:
        index.close()


def disk_bytes(directory: Path) -> int:
    """Bytes of all files, hard links counted once."""
    stats = [path.stat() for path in directory.rglob("*") if path.is_file()]
    return sum({stat.st_ino: stat.st_size for stat in stats}.values())
