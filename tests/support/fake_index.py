"""The index of an ingress under test: a real one on hashed words, with faults around it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np

from engine.errors import RemoteDamagedError
from engine.keys.key_store import KEYS_NAME, KeyStore
from engine.keys.records import RingChange, RingVersion
from engine.keys.write_rates import WriteRates
from engine.offsite.cloud_sync import CloudSync, SyncStatus
from engine.offsite.object_store import ObjectListing, StoredObject
from engine.offsite.retention import RemoteRetention
from engine.offsite.seal import Unsealed
from engine.offsite.snapshots import RemoteSnapshots
from engine.operations.operation import DirectoryOperation, MemoryOperation, Operation
from engine.records import FloatVector, Memory, MemoryFilter, MemoryId
from tests.support.index_under_test import open_index

T = TypeVar("T")

_open: list[FakeIndex] = []


class FakeIndex:
    """Runs what is asked in this process, unless a test says otherwise.

    It is the `Directory` of the operations that concern one; its bucket is a dict.
    """

    def __init__(self) -> None:
        self.asked: list[Operation[Any]] = []
        self.answers: dict[type[Operation[Any]], Callable[[Any], Awaitable[Any]]] = {}
        """By its class: what answers an operation instead of `run`."""
        self.fails: BaseException | None = None
        """What every operation raises."""
        self.trouble: str | None = None
        """What keeps memories from being stored."""
        self._directory = TemporaryDirectory(prefix="fake-index-", ignore_cleanup_errors=True)
        self.path = Path(self._directory.name)
        self.index = open_index(self.path, max_backups=0)
        self.keys = KeyStore(self.path / "data" / KEYS_NAME)
        self.write_rates = WriteRates()
        self._offsite: CloudSync | None = None
        _open.append(self)

    def close(self) -> None:
        self.index.close()
        self.keys.close()
        if self._offsite is not None:
            self._offsite.close()
        self._directory.cleanup()

    async def ask(self, operation: Operation[T]) -> T:
        self.asked.append(operation)
        if self.fails is not None:
            raise self.fails
        answer: T = await self.answers.get(type(operation), self.run)(operation)
        return answer

    async def run(self, operation: Operation[T]) -> T:
        if isinstance(operation, MemoryOperation):
            answer = operation.run(operation.within.of(self.index))
        else:
            assert isinstance(operation, DirectoryOperation)
            answer = operation.run(self)
        return await asyncio.wrap_future(answer) if isinstance(answer, Future) else answer

    @property
    def offsite(self) -> CloudSync:
        if self._offsite is None:
            self._offsite = CloudSync(
                self.index.backup_files,
                RemoteSnapshots(DictBucket(), Unsealed()),
                self.path / "data",
                host="fake",
                retention=RemoteRetention(keep=1_000),
                interval_s=0.0,
            )
        return self._offsite

    def next_keys(self, version: RingVersion, wait_s: float) -> Future[RingChange | None]:
        async def next_keys() -> RingChange | None:
            try:
                return await asyncio.wait_for(asyncio.wrap_future(self.keys.after(version)), wait_s)
            except asyncio.TimeoutError:
                return None

        return asyncio.run_coroutine_threadsafe(next_keys(), asyncio.get_running_loop())

    def problem(self) -> Future[str | None]:
        return _done(self.trouble or self.index.problem())

    def offsite_status(self) -> Future[SyncStatus]:
        self.offsite.snapshots()
        return _done(self.offsite.status())

    @property
    def memories(self) -> dict[MemoryId, Memory]:
        """All that is stored, by id."""
        page = self.index.list_memories(MemoryFilter(), offset=0, limit=100_000)
        return {memory.id: memory for memory in page.memories}

    @property
    def vectors(self) -> list[FloatVector]:
        """Of all that is stored, by id."""
        export = self.index.begin_export(MemoryFilter(), with_embeddings=True)
        found = self.index.read_export(export.export_id, 1 << 30)
        self.index.end_export(export.export_id)
        return [np.frombuffer(each.vector or b"", np.float32) for each in found]

    def put_files(self, **texts: str) -> None:
        """Write files of the workspace, each named by its word with `.md`."""
        for name, text in texts.items():
            (self.path / "workspace" / f"{name}.md").write_text(text)


@contextmanager
def closed_at_the_end() -> Iterator[None]:
    """Close what is opened meanwhile: each has threads, and files that are open."""
    n_before = len(_open)
    try:
        yield
    finally:
        while len(_open) > n_before:
            _open.pop().close()


class DictBucket:
    """An `ObjectStore` that is a dict."""

    location = "dict://bucket/"

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, float]] = {}

    def list(self, prefix: str) -> ObjectListing:
        found = [
            StoredObject(key=key, n_bytes=len(content), modified_s=modified_s)
            for key, (content, modified_s) in sorted(self._objects.items())
            if key.startswith(prefix)
        ]
        return ObjectListing(objects=found, now_s=time.time())

    def put(self, key: str, content: bytes) -> None:
        self._objects[key] = (content, time.time())

    def put_file(self, key: str, path: Path) -> None:
        self.put(key, path.read_bytes())

    def get(self, key: str, *, max_bytes: int) -> bytes:
        if key not in self._objects:
            raise RemoteDamagedError(f"{key} is not in {self.location}")
        content, _ = self._objects[key]
        if len(content) > max_bytes:
            raise RemoteDamagedError(f"{key} is too large")
        return content

    def get_file(self, key: str, path: Path, *, max_bytes: int) -> None:
        path.write_bytes(self.get(key, max_bytes=max_bytes))

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._objects.pop(key, None)

    def abort_uploads(self, before_s: float) -> None:
        """Nothing is uploaded in parts."""


def _done(answer: T) -> Future[T]:
    done: Future[T] = Future()
    done.set_result(answer)
    return done
