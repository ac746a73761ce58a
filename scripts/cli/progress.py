"""How far a long command is: a bar on a terminal, a line now and then elsewhere; always stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from scripts.cli.terminal import counted, note

if TYPE_CHECKING:
    from rich import progress as rich_progress

_LINE_EVERY_S = 10.0
_LEAST_SHARE = 0.01
"""Less says nothing about the rest."""


class Progress(Protocol):
    """What a command tells."""

    def update(self, *, n: int, done: float) -> None:
        """So many memories are through, and this share (0 to 1) of the work; 0 when unknown."""


class _Quiet:
    def update(self, *, n: int, done: float) -> None:
        pass


class _Rate:
    """Memories a second, of those that came through since the first update."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._n_before: int | None = None

    def spent_s(self) -> float:
        return max(time.monotonic() - self._began_s, 0.001)

    def at(self, n: int) -> float:
        if self._n_before is None:
            self._n_before = n
        return (n - self._n_before) / self.spent_s()


class _Lines:
    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._rate = _Rate()
        self._last_line_s = 0.0

    def update(self, *, n: int, done: float) -> None:
        rate, spent_s = self._rate.at(n), self._rate.spent_s()
        if spent_s - self._last_line_s < _LINE_EVERY_S:
            return
        self._last_line_s = spent_s
        left = ""
        if done >= _LEAST_SHARE:
            left = f", {done:.0%}, about {_duration(spent_s * (1 - done) / done)} left"
        note(f"{self._verb}: {counted(n, 'memory')}, {rate:,.0f}/s{left}")


class _Bar:
    def __init__(self, shown: rich_progress.Progress) -> None:
        self._shown = shown
        self._task = shown.add_task("", total=None, n=0, rate=0.0)
        self._rate = _Rate()

    def update(self, *, n: int, done: float) -> None:
        total = 1.0 if done else None
        self._shown.update(self._task, completed=done, total=total, n=n, rate=self._rate.at(n))


@contextmanager
def progress(verb: str, *, quiet: bool = False) -> Iterator[Progress]:
    """Show how far something is while the block runs."""
    if quiet:
        yield _Quiet()
    elif not sys.stderr.isatty():
        yield _Lines(verb)
    else:
        # Here, since rich takes long to import.
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn(verb, markup=False),
            BarColumn(),
            TextColumn("{task.fields[n]:,} memories, {task.fields[rate]:,.0f}/s", markup=False),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
            yield _Bar(shown)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
