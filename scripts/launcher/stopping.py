"""What asks the launcher to stop: a signal, or the end of the terminal that it works in."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


class StopRequested(BaseException):
    """A signal asked the launcher to stop."""


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Raise `StopRequested` in the block when a signal asks for it, and heed none after it."""
    catch_signals()
    try:
        yield
    finally:
        ignore_signals()


def catch_signals() -> None:
    """Raise `StopRequested` when a signal comes."""

    def stop(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            let_go_of_the_terminal()
        raise StopRequested

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # `nohup` has it ignored, and means it.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)


def let_go_of_the_terminal() -> None:
    """It is gone: whatever is printed from here on would fail, and stopping with it."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(fd).st_mode):
                os.dup2(nowhere, fd)
    os.close(nowhere)


def ignore_signals() -> None:
    """One signal is enough; stopping has its own time limit."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


class Foreground:
    """Whether this process is what a terminal's user works with: a window of `make serve` alone.

    The signal of its closing goes to `make`, which keeps it to itself.
    """

    def __init__(self) -> None:
        self._was_in_front = False

    def is_gone(self) -> bool:
        """Whether the terminal was closed while this was in its foreground."""
        try:
            self._was_in_front = os.tcgetpgrp(2) == os.getpgrp()
        except OSError:  # there is none, or none any more
            return self._was_in_front
        return False
