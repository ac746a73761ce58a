"""Keeps an ingress's keys those of the index actor, and reports which were used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from fastapi import FastAPI

from deployments.calls.protocols import IndexClient
from engine.errors import EngineError
from engine.keys.ring import KeyRing
from engine.operations.keys import FollowKeys, NoteKeyUses

_WAIT_S = 1.0
"""How long one call waits for a change. An index that is to be replaced waits for it, too."""
_PAUSE_S = 0.2
_REPORT_EVERY_S = 60.0

_log = structlog.stdlib.get_logger("ingress")


class FollowedKeys:
    """One call is always under way that the index actor answers when a key is changed.

    While it does not answer, the keys are those last known: it alone can change them.
    """

    def __init__(self, index: IndexClient, ring: KeyRing) -> None:
        self._index = index
        self._ring = ring
        self._reported_s = time.monotonic()

    @asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        """Follow as long as the application runs."""
        following = asyncio.ensure_future(self._follow())
        try:
            yield
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following

    async def _follow(self) -> None:
        while True:
            try:
                change = await self._index.ask(FollowKeys(self._ring.version, _WAIT_S))
                if change is not None:
                    self._ring.follow(change)
                if time.monotonic() - self._reported_s >= _REPORT_EVERY_S:
                    await self._report()
            except EngineError:
                await asyncio.sleep(_PAUSE_S)
            except Exception as exc:  # noqa: BLE001 - who no longer follows lets revoked keys in
                _log.error("keys_not_followed", error=type(exc).__name__)
                await asyncio.sleep(_PAUSE_S)

    async def _report(self) -> None:
        self._reported_s = time.monotonic()
        used_us = self._ring.take_uses()
        if used_us:
            try:
                await self._index.ask(NoteKeyUses(used_us))
            except BaseException:
                self._ring.put_back(used_us)
                raise
