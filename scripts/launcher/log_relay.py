"""The reading end of the pipe that replicas log to: their lines go to the launcher's stderr."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_CHUNK_BYTES = 65536


def relay_logs(pipe: Path, sink: BinaryIO) -> None:
    """Make the pipe anew and copy what comes through it to `sink`, on a thread of its own."""
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe, 0o600)
    # Open for writing too: the pipe then never reads as ended between two writers.
    fd = os.open(pipe, os.O_RDWR | os.O_CLOEXEC)
    threading.Thread(target=_copy, args=(fd, sink), name="log relay", daemon=True).start()


def _copy(fd: int, sink: BinaryIO) -> None:
    # When our own stderr is gone this ends, and replicas drop their lines from there on.
    with suppress(OSError, ValueError):
        while chunk := os.read(fd, _CHUNK_BYTES):
            sink.write(chunk)
            sink.flush()
