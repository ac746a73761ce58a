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

from benchmarks.corpora import Passage
from deployments.settings import load_settings
from engine.embedder import Embedder
from engine.index_options import IndexOptions
from engine.memory_index import MemoryIndex
from engine.model_files import default_model_dir
from engine.precision import choose_precision
from engine.records import FloatMatrix, NewMemory

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
    cache_dir.mkdir(parents=True, exist_ok=True)
    blocks = [texts[start : start + _BLOCK_TEXTS] for start in range(0, len(texts), _BLOCK_TEXTS)]
    console = Console(stderr=True)
    with ThreadPoolExecutor(_CALLERS) as pool:
        parts = [
            _embed_block(embedder, block, cache_dir, pool)
            for block in track(blocks, "embedding", console=console, disable=len(blocks) < 2)
        ]
    return np.concatenate(parts)


def _embed_block(
    embedder: Embedder, texts: Sequence[str], cache_dir: Path, pool: ThreadPoolExecutor
) -> FloatMatrix:
    identity = embedder.identity
    key = hashlib.sha256(f"{identity.fingerprint} {identity.precision}".encode())
    for text in texts:
        key.update(hashlib.sha256(text.encode()).digest())
    file = cache_dir / f"{key.hexdigest()[:24]}.npy"
    if file.is_file():
        cached: FloatMatrix = np.load(file)
        return cached
    embeddings = np.empty((len(texts), embedder.dim), np.float32)
    runs = embedder.plan_runs(texts)
    for run, rows in zip(runs, pool.map(embedder.embed_run, runs), strict=True):
        embeddings[run.rows] = rows
    incoming = file.with_suffix(".tmp.npy")
    np.save(incoming, embeddings)
    incoming.replace(file)
    return embeddings


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
