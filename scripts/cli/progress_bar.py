"""The bar that `progress` shows on a terminal. Apart, since rich takes long to import."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_WHOLE = 1.0


class Bar:
    """Memories, rate and time left."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self._began_s = time.monotonic()
        self._n_before: int | None = None

    def update(self, *, n: int, done: float) -> None:
        """See `scripts.cli.progress.Progress`."""
        if self._n_before is None:
            self._n_before = n
        rate = (n - self._n_before) / max(time.monotonic() - self._began_s, 0.001)
        self._progress.update(
            self._task, completed=done, total=_WHOLE if done else None, n=n, rate=rate
        )


@contextmanager
def bar(verb: str) -> Iterator[Bar]:
    """A bar that is gone when the block ends."""
    columns = (
        TextColumn(verb, markup=False),
        BarColumn(),
        TextColumn("{task.fields[n]:,} memories, {task.fields[rate]:,.0f}/s", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield Bar(progress, progress.add_task("", total=None, n=0, rate=0.0))
