"""A TCP proxy that holds or cuts every connection when a given byte has passed."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["to service", "to client"]

_CHUNK_BYTES = 1 << 16
_RESET = struct.pack("ii", 1, 0)
"""`SO_LINGER` of a socket whose closing sends RST, whatever waits in its buffers."""


@dataclass(slots=True, kw_only=True)
class Strike:
    """A byte to come, and what happens when it has passed."""

    n_left: dict[Direction, int]
    """Bytes until then; the direction that gets there first counts."""
    cuts: bool
    """Whether every connection is reset right after that byte, or only held."""
    passed: threading.Event = field(default_factory=threading.Event)


class CuttingProxy:
    """Connections to `port` are passed on to another port of this machine."""

    def __init__(self, target_port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.port = 0
        self._goes_on = asyncio.Event()
        self._target_port = target_port
        self._loop = loop
        self._strike: Strike | None = None
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()

    def arm(self, n_bytes: dict[Direction, int], *, cuts: bool) -> threading.Event:
        """Strike when so many more bytes have passed; the event is set then."""
        self._strike = Strike(n_left=n_bytes, cuts=cuts)
        return self._strike.passed

    def go_on(self) -> None:
        """Pass on what was held, and take connections again."""
        self._is_cut = False
        self._loop.call_soon_threadsafe(self._goes_on.set)

    async def serve(self, started: threading.Event, stop: asyncio.Event) -> None:
        """Pass connections on until `stop`."""
        self._goes_on.set()
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await stop.wait()
        server.close()
        self._reset_all()

    async def _pass_on(
        self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        self._writers.add(to_client)
        if self._is_cut:
            self._reset(to_client)
            return
        try:
            from_service, to_service = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            self._reset(to_client)
            return
        self._writers.add(to_service)
        try:
            await asyncio.gather(
                self._pump(from_client, to_service, "to service"),
                self._pump(from_service, to_client, "to client"),
            )
        except OSError:  # one side is gone: so is the other
            for writer in (to_client, to_service):
                self._reset(writer)
        for writer in (to_client, to_service):
            self._writers.discard(writer)
            writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction
    ) -> None:
        while content := await reader.read(_CHUNK_BYTES):
            while content:
                await self._goes_on.wait()
                n_now, strike = len(content), self._strike
                if strike is not None and direction in strike.n_left:
                    n_now = min(strike.n_left[direction], n_now)
                    strike.n_left[direction] -= n_now
                writer.write(content[:n_now])
                content = content[n_now:]
                await writer.drain()
                if strike is not None and strike.n_left.get(direction) == 0:
                    self._happen(strike)
        writer.write_eof()

    def _happen(self, strike: Strike) -> None:
        if strike.passed.is_set():
            return
        self._strike = None
        if strike.cuts:
            self._is_cut = True
            self._reset_all()
        else:
            self._goes_on.clear()
        strike.passed.set()

    def _reset_all(self) -> None:
        for writer in list(self._writers):
            self._reset(writer)

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        with suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()


@contextmanager
def cutting_proxy(target_port: int) -> Iterator[CuttingProxy]:
    """A running proxy in front of a port."""
    loop, stop, started = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    proxy = CuttingProxy(target_port, loop)
    thread = threading.Thread(
        target=lambda: loop.run_until_complete(proxy.serve(started, stop)), daemon=True
    )
    thread.start()
    started.wait()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
