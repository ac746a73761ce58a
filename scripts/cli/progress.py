"""How far a long command is: a bar on a terminal, a line now and then elsewhere; always stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from scripts.cli.terminal import counted, note

_LINE_EVERY_S = 10.0
_LEAST_SHARE = 0.01
"""Less tells nothing about the rest."""


class Progress(Protocol):
    """What a command tells."""

    def update(self, *, n: int, done: float) -> None:
        """So many memories are through, and this share (0 to 1) of the work; 0 when unknown."""


class _Quiet:
    def update(self, *, n: int, done: float) -> None:
        pass


class _Lines:
    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._began_s = self._told_s = time.monotonic()
        self._n_before: int | None = None

    def update(self, *, n: int, done: float) -> None:
        now_s = time.monotonic()
        if self._n_before is None:
            self._n_before = n
        if now_s - self._told_s < _LINE_EVERY_S:
            return
        self._told_s = now_s
        spent_s = now_s - self._began_s
        rate = (n - self._n_before) / spent_s
        left = ""
        if done >= _LEAST_SHARE:
            left = f", {done:.0%}, about {_duration(spent_s * (1 - done) / done)} left"
        note(f"{self._verb}: {counted(n, 'memory')}, {rate:,.0f}/s{left}")


@contextmanager
def progress(verb: str, *, quiet: bool = False) -> Iterator[Progress]:
    """Show how far something is while the block runs."""
    if quiet:
        yield _Quiet()
    elif not sys.stderr.isatty():
        yield _Lines(verb)
    else:
        from scripts.cli.progress_bar import bar

        with bar(verb) as shown:
            yield shown


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
