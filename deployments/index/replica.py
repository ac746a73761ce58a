"""The index actor: the engine's single writer behind an event loop that never blocks."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from ray.serve.handle import DeploymentHandle

from deployments.calls.handles import blocking_embed
from deployments.calls.parcels import ParcelReplica
from deployments.index.lanes import Lanes
from deployments.index.open_index import OpenIndex
from deployments.logs import configure_logging
from deployments.settings import Settings
from engine.errors import StorageError
from engine.index_options import IndexOptions
from engine.keys.key_store import KEYS_NAME, KeyStore
from engine.keys.records import RingChange, RingVersion
from engine.keys.write_rates import WriteRates
from engine.memory_index import MemoryIndex
from engine.model.tokeniser import Tokeniser
from engine.offsite.cloud_sync import CloudSync, SyncStatus
from engine.offsite.snapshots import RemoteSnapshot
from engine.operations.operation import DirectoryOperation, Lane, MemoryOperation, Operation
from engine.writing.upkeep import VectorTools

T = TypeVar("T")

_log = logging.getLogger(__name__)

_STATUS_PATIENCE_S = 2.0
_SWITCH_INTERVAL_S = 0.001
"""How long the writer thread may keep the interpreter while a search waits for it."""


class IndexReplica(ParcelReplica):
    """Runs what `deployments.calls.protocols.IndexClient` asks, for callers in other processes.

    It is the `Directory` of the operations that concern one. What an operation waits for, its lane
    says: reads run in a few threads, long work (builds, deduplication, backups) in others, writes
    in the engine's own, and some on the event loop, in the middle of anything.
    """

    def __init__(
        self,
        settings: Settings,
        options: IndexOptions,
        model_dir: Path,
        embedder: DeploymentHandle | None = None,
    ) -> None:
        """Open the data directory; the replica is ready when this returns.

        Args:
            settings: bounds, logs, the cloud.
            options: where the data is.
            model_dir: whose tokeniser measures texts.
            embedder: makes the vectors that writes left to be made; None leaves them.

        Raises:
            StorageError, EmbeddingError: see `MemoryIndex`.
        """
        super().__init__()
        configure_logging(settings, component="index")
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        os.umask(0o077)  # memories are their owner's alone
        tokeniser = Tokeniser(model_dir)
        tools = None
        if embedder is not None:
            embed = blocking_embed(embedder, timeout_s=settings.build_timeout_s)
            tools = VectorTools(read=tokeniser.facts, embed=embed)
        self._opened = OpenIndex(settings, options, tokeniser.count_pieces, tools)
        self.keys = KeyStore(options.data_dir / KEYS_NAME)
        self.write_rates = WriteRates()
        self._lanes = Lanes()
        self._listing: asyncio.Future[list[RemoteSnapshot]] | None = None
        self._look: asyncio.Future[str | None] | None = None
        self._told: str | None = None

    def __del__(self) -> None:
        """Close the store; Serve calls this when it stops the replica."""
        opened = getattr(self, "_opened", None)
        if opened is not None:
            opened.close()
        keys = getattr(self, "keys", None)
        if keys is not None:
            keys.close()

    def check_health(self) -> None:
        """Raise when only a restart can make the answers right; Serve then starts a new one."""
        self._opened.check()

    async def ask(self, operation: Operation[T]) -> T:
        """Run an operation in its lane. Raises what it raises, and `OverloadedError`."""
        work = functools.partial(self._done, self._work(operation))
        return await self._lanes.run(operation.lane, work)

    def _done(self, work: Callable[[], T | Future[T]]) -> T | Future[T]:
        """What work gives, or that it fails because the database was taken from under it."""
        try:
            return work()
        except StorageError:
            self.index.check_in_place()
            raise

    def _work(self, operation: Operation[T]) -> Callable[[], T | Future[T]]:
        """An operation with what it concerns."""
        if isinstance(operation, MemoryOperation):
            return functools.partial(operation.run, operation.within.of(self.index))
        if isinstance(operation, DirectoryOperation):
            return functools.partial(operation.run, self)
        raise TypeError(f"{type(operation).__name__} concerns neither memories nor a directory")

    # What operations on the whole directory work with

    @property
    def index(self) -> MemoryIndex:
        """Raises `NotReadyError` while a new machine waits for its memories."""
        return self._opened.index

    @property
    def offsite(self) -> CloudSync:
        """Raises as `index` does, or when it is off."""
        return self._opened.sync

    def problem(self) -> Future[str | None]:
        """What keeps memories from being stored and backed up, if something does."""
        return asyncio.run_coroutine_threadsafe(self._problem(), asyncio.get_running_loop())

    async def _problem(self) -> str | None:
        # It writes to the disk, and whoever likes may ask: one look at a time serves all.
        if self._look is None or self._look.done():
            self._look = asyncio.ensure_future(asyncio.to_thread(self._look_for_problem))
        return self._lanes.problem() or await asyncio.shield(self._look)

    def _look_for_problem(self) -> str | None:
        problem = self.index.problem()
        if problem is not None and problem != self._told:
            _log.warning("memories cannot be stored: %s", problem)
        self._told = problem
        return problem

    def next_keys(self, version: RingVersion, wait_s: float) -> Future[RingChange | None]:
        """What has changed of the keys, as soon as something has."""
        loop = asyncio.get_running_loop()
        return asyncio.run_coroutine_threadsafe(self._next_keys(version, wait_s), loop)

    async def _next_keys(self, version: RingVersion, wait_s: float) -> RingChange | None:
        try:
            return await asyncio.wait_for(asyncio.wrap_future(self.keys.after(version)), wait_s)
        except asyncio.TimeoutError:
            return None

    def offsite_status(self) -> Future[SyncStatus]:
        """How the copy in the cloud stands; a bucket is waited for, but not for long."""
        return asyncio.run_coroutine_threadsafe(self._offsite_status(), asyncio.get_running_loop())

    async def _offsite_status(self) -> SyncStatus:
        offsite = self.offsite
        if self._listing is None or self._listing.done():
            listing = self._lanes.run(Lane.CLOUD, offsite.snapshots)
            self._listing = asyncio.ensure_future(listing)
            self._listing.add_done_callback(_retrieve)
        await asyncio.wait([self._listing], timeout=_STATUS_PATIENCE_S)
        return await self._lanes.run(Lane.READ, offsite.status)


def _retrieve(listing: asyncio.Future[list[RemoteSnapshot]]) -> None:
    """A listing that failed after nobody waited any more is no news: uploads say why."""
    if not listing.cancelled():
        listing.exception()
