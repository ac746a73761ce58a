"""Lines of a request body as it arrives, unpacked, in bounded memory whatever is sent."""

from __future__ import annotations

import zlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from typing import Protocol

import zstandard

MAX_LINE_BYTES = 1 << 20
"""The longest text with every character escaped, metadata and an embedding fit well below."""

_UNPACK_BYTES = 1 << 18
"""Cut into lines at a time: a millisecond or two, whatever they hold."""
_ALWAYS_UNPACKED_BYTES = 8 << 20
_MAX_RATIO = 200
"""Exports of a million short memories pack to a fiftieth; zeros to a thousandth or less."""
_ZSTD_FEED_BYTES = 256
"""A zstd block is at least 3 bytes and unpacks to at most 128 KiB: at most 11 MiB at a time."""
_ZSTD_WINDOW_BYTES = 8 << 20
"""What RFC 8878 asks every decoder to support."""


class BodyError(Exception):
    """The body cannot be read on; says why."""


class _Unpacker(Protocol):
    def unpack(self, packed: bytes) -> Iterator[bytes]:
        """What these bytes unpack to, in pieces, some of them empty."""

    def is_complete(self) -> bool:
        """Whether the body may end here."""


class _Plain:
    def unpack(self, packed: bytes) -> Iterator[bytes]:
        yield packed

    def is_complete(self) -> bool:
        return True


class _Gzip:
    """One or more gzip members, as RFC 1952 allows."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._began = False

    def unpack(self, packed: bytes) -> Iterator[bytes]:
        while packed:
            if self._member.eof:
                self._member = zlib.decompressobj(wbits=31)
            self._began = True
            try:
                piece = self._member.decompress(packed, _UNPACK_BYTES)
            except zlib.error as exc:
                raise BodyError(f"the body is not valid gzip: {exc}") from exc
            packed = self._member.unconsumed_tail or self._member.unused_data
            yield piece

    def is_complete(self) -> bool:
        return self._member.eof or not self._began


class _Zstd:
    """One or more zstd frames."""

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
        self._frame = self._decompressor.decompressobj()
        self._began = False

    def unpack(self, packed: bytes) -> Iterator[bytes]:
        for start in range(0, len(packed), _ZSTD_FEED_BYTES):
            part = packed[start : start + _ZSTD_FEED_BYTES]
            while part:
                if self._frame.eof:
                    self._frame = self._decompressor.decompressobj()
                self._began = True
                try:
                    piece = self._frame.decompress(part)
                except zstandard.ZstdError as exc:
                    raise BodyError(f"the body is not valid zstd: {exc}") from exc
                part = self._frame.unused_data
                yield piece

    def is_complete(self) -> bool:
        return self._frame.eof or not self._began


_UNPACKERS: dict[str, type[_Unpacker]] = {
    "": _Plain,
    "identity": _Plain,
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "zstd": _Zstd,
}


def is_supported(content_encoding: str) -> bool:
    """Whether a body with this `Content-Encoding` can be read."""
    return content_encoding.strip().lower() in _UNPACKERS


class LineReader:
    """Cuts a body into lines. One too long is passed on as None, its bytes dropped."""

    def __init__(self, content_encoding: str, *, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._unpacker = _UNPACKERS[content_encoding.strip().lower()]()
        self._max_line_bytes = max_line_bytes
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._is_too_long = False
        self._n_packed = self._n_unpacked = 0

    def feed(self, packed: bytes) -> Iterator[Iterator[bytes | None]]:
        """The lines that end in these bytes of the body, without their line ends.

        They come in pieces, each to be read to its end before the next. Between them an event
        loop should do other work: a few bytes may unpack to very many, with or without lines.

        Raises:
            BodyError: the body cannot be unpacked, unpacks to suspiciously much, or is UTF-16.
        """
        self._n_packed += len(packed)
        for unpacked in self._unpacker.unpack(packed):
            if not self._n_unpacked and unpacked.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
                raise BodyError("the body is UTF-16: send it as UTF-8")
            self._n_unpacked += len(unpacked)
            if self._n_unpacked > max(_ALWAYS_UNPACKED_BYTES, _MAX_RATIO * self._n_packed):
                raise BodyError(f"the body unpacks to more than {_MAX_RATIO} times its size")
            for start in range(0, len(unpacked) or 1, _UNPACK_BYTES):
                *ends, rest = unpacked[start : start + _UNPACK_BYTES].split(b"\n")
                yield map(self._finished, ends)
                self._keep(rest)

    def end(self) -> Iterator[bytes | None]:
        """The last line, if it has no line end.

        Raises:
            BodyError: the packed body was cut off.
        """
        if not self._unpacker.is_complete():
            raise BodyError("the packed body ends too early")
        if self._rest_bytes or self._is_too_long:
            yield self._finished(b"")

    def _keep(self, rest: bytes) -> None:
        if self._rest_bytes + len(rest) > self._max_line_bytes:
            self._rest, self._rest_bytes, self._is_too_long = [], 0, True
        if not self._is_too_long and rest:
            self._rest.append(rest)
            self._rest_bytes += len(rest)

    def _finished(self, end: bytes) -> bytes | None:
        self._keep(end)
        line = None if self._is_too_long else b"".join(self._rest)
        self._rest, self._rest_bytes, self._is_too_long = [], 0, False
        return line
