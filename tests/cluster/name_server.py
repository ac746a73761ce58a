"""A name server for a handful of names, as the cluster's own is for its Services."""

from __future__ import annotations

import socket
import struct
import threading

_A, _NAME_ERROR, _TTL_S = 1, 3, 5


class NameServer:
    """Answers for `addresses`, which may change; every other name does not exist."""

    def __init__(self, ip: str) -> None:
        self.addresses: dict[str, str] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((ip, 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Answer no more."""
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                query, asker = self._socket.recvfrom(512)
                self._socket.sendto(self._answer(query), asker)
            except OSError:
                return

    def _answer(self, query: bytes) -> bytes:
        name, end = _name(query)
        [kind] = struct.unpack_from("!H", query, end)
        address = self.addresses.get(name)
        found = socket.inet_aton(address) if address and kind == _A else b""
        # A response, authoritative, to the same question.
        flags = 0x8400 | (0 if address else _NAME_ERROR)
        header = query[:2] + struct.pack("!5H", flags, 1, bool(found), 0, 0)
        record = struct.pack("!HHHIH", 0xC00C, _A, 1, _TTL_S, len(found)) + found
        return header + query[12 : end + 4] + (record if found else b"")


def _name(query: bytes) -> tuple[str, int]:
    """The name asked for, and where it ends."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii").lower())
        at += 1 + length
    return ".".join(labels), at + 1
