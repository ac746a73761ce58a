"""Calls of any size: what is too large for one message travels in pieces.

gRPC refuses a message above its limit, and both ends hold each one whole. So a call goes as the
pickle of its arguments and comes back as that of its answer, in pieces where they are large:
no message is much larger than a piece, whatever is asked.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ray.serve.handle import DeploymentHandle

from engine.disk.leases import Leases
from engine.errors import LeaseLostError, NotReadyError, OverloadedError, TooLargeError

PIECE_BYTES = 2 << 20
_MAX_HELD_BYTES = 256 << 20
"""Of all that wait for their last piece at one replica."""
_LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True, slots=True)
class Parcel:
    """A large pickled value: where its pieces are, and of an answer the first one."""

    parcel_id: str
    n_bytes: int
    first: bytes = b""


class ParcelLostError(NotReadyError):
    """The replica that held the pieces has died, or waited for too long; the call goes anew."""

    code = "parcel_lost"


class ParcelHandle:
    """A Serve handle of the one replica of a `ParcelReplica`; its answers may be awaited only."""

    def __init__(self, handle: DeploymentHandle, *, piece_bytes: int = PIECE_BYTES) -> None:
        self._handle = handle
        self._piece_bytes = piece_bytes

    def __getattr__(self, method: str) -> ParcelMethod:
        return ParcelMethod(self._handle, method, self._piece_bytes)


class ParcelMethod:
    """One method of a replica, called as Serve's own are."""

    def __init__(self, handle: DeploymentHandle, method: str, piece_bytes: int) -> None:
        self._handle = handle
        self._method = method
        self._piece_bytes = piece_bytes

    async def remote(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the method's
        """Call it; the answer is whole when this returns."""
        request = await self._sent(pickle.dumps((args, kwargs), pickle.HIGHEST_PROTOCOL))
        answer = await self._handle.call.remote(self._method, request)
        return pickle.loads(await self._fetched(answer))

    async def _sent(self, request: bytes) -> bytes | Parcel:
        """The request; of a large one, where the replica holds it."""
        n_bytes, step = len(request), self._piece_bytes
        if n_bytes <= step:
            return request
        parcel_id = await self._handle.begin_parcel.remote(n_bytes)
        for start in range(0, n_bytes, step):
            await self._handle.put_piece.remote(parcel_id, start, request[start : start + step])
        return Parcel(parcel_id, n_bytes)

    async def _fetched(self, answer: bytes | Parcel) -> bytes | bytearray:
        if isinstance(answer, bytes):
            return answer
        content = bytearray(answer.first)
        while len(content) < answer.n_bytes:
            content += await self._handle.read_piece.remote(answer.parcel_id, len(content))
        return content


class ParcelReplica:
    """The other end: a deployment's base class, whose methods are then called by `call`."""

    def __init__(
        self, *, piece_bytes: int = PIECE_BYTES, max_held_bytes: int = _MAX_HELD_BYTES
    ) -> None:
        self._piece_bytes = piece_bytes
        self._parcels = Leases[bytearray](
            "request", max_weight=max_held_bytes, longest_pause_s=_LONGEST_PAUSE_S
        )

    async def call(self, method: str, request: bytes | Parcel) -> bytes | Parcel:
        """Call a method of this replica.

        Raises:
            NotReadyError: the caller is of another release, and asks for what there is not here.
            TooLargeError: it was called, but too many large answers wait to be fetched.
        """
        content = self._taken(request)
        try:
            run = getattr(self, method)
            args, kwargs = pickle.loads(content)
        except (AttributeError, ImportError) as exc:
            raise NotReadyError("the service is being updated; try again shortly") from exc
        answer = await run(*args, **kwargs)
        return self._held(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))

    async def begin_parcel(self, n_bytes: int) -> str:
        """Make room for a request of so many bytes. Raises `OverloadedError`."""
        return self._parcels.begin(lambda: bytearray(n_bytes), weight=n_bytes)

    async def put_piece(self, parcel_id: str, start: int, piece: bytes) -> None:
        """Take a piece of a request. Raises `ParcelLostError`."""
        with _translated(), self._parcels.using(parcel_id) as content:
            content[start : start + len(piece)] = piece

    async def read_piece(self, parcel_id: str, start: int) -> bytes:
        """A piece of an answer; with the last one it is let go. Raises `ParcelLostError`."""
        with _translated(), self._parcels.using(parcel_id) as content:
            piece = bytes(content[start : start + self._piece_bytes])
        if start + len(piece) == len(content):
            self._parcels.end(parcel_id)
        return piece

    def _taken(self, request: bytes | Parcel) -> bytes | bytearray:
        if isinstance(request, bytes):
            return request
        with _translated():
            return self._parcels.take(request.parcel_id)

    def _held(self, answer: bytes) -> bytes | Parcel:
        """The answer; of a large one, its first piece, and where the others are."""
        if len(answer) <= self._piece_bytes:
            return answer
        try:
            parcel_id = self._parcels.begin(lambda: bytearray(answer), weight=len(answer))
        except OverloadedError as exc:
            raise TooLargeError(
                f"the answer has {len(answer)} bytes, and too many large ones are being "
                "fetched; try again later"
            ) from exc
        return Parcel(parcel_id, len(answer), answer[: self._piece_bytes])


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except LeaseLostError as exc:
        raise ParcelLostError(str(exc)) from exc
