"""Builds the workspace by itself: when the service has started, and when files there change.

A client like any other: it asks the running service over HTTP, so that such a build and one
asked for by hand are the same thing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

import structlog

from scripts.cli.errors import RefusedError, UnreachableError
from scripts.cli.importing.stored_passages import forget_file
from scripts.cli.importing.watching import follow, passes_in_time
from scripts.cli.service import Service

_RETRY_S = 2.0

logger = structlog.stdlib.get_logger("auto_build")


class WorkspaceBuilder:
    """Keeps the memories of a workspace's files as the files are: a `FileSync` of all of them."""

    def __init__(self, service: Service, workspace: Path, *, data_dir: Path) -> None:
        """Prepare; nothing is asked yet.

        Args:
            service: whose workspace it is.
            workspace: what `/index/build` reads.
            data_dir: not watched, should it lie in the workspace.
        """
        self._service = service
        self._workspace = workspace.resolve()
        self._data_dir = data_dir.resolve()

    def run(self, *, watching: bool) -> None:
        """Build on a thread of its own that ends with the process; then watch, if asked to."""
        target = self._watch if watching else self.build
        Thread(target=target, name="auto build", daemon=True).start()

    def start(self) -> None:
        """See `FileSync`."""

    def sync(self, present: Sequence[Path], gone: Sequence[Path]) -> None:
        """Bring the memories up to the files, and forget those of deleted ones; see `FileSync`."""
        # First the build: when the whole workspace is gone, all of it was not deleted.
        if not self._build():
            return
        for path in gone:
            n_removed = forget_file(self._service, path.relative_to(self._workspace).as_posix())
            logger.info("deleted file forgotten", memories_removed=n_removed)

    def build(self) -> bool:
        """Build the whole workspace; returns whether it could be read."""
        while True:
            try:
                return self._build()
            except (UnreachableError, RefusedError) as exc:
                logger.info("asking again", error=type(exc).__name__)
                time.sleep(_RETRY_S)

    def _build(self) -> bool:
        """Build once. What has not changed is not embedded again.

        A workspace without a readable file is no failure: there may be one tomorrow.
        """
        try:
            answer = self._service.post("/index/build", {})
        except RefusedError as exc:
            if passes_in_time(exc):
                raise
            logger.warning("workspace not built", status=exc.status)
            return False
        counts = ("files_processed", "memories_added", "memories_removed", "unchanged")
        logger.info("workspace built", **{name: answer[name] for name in counts})
        return True

    def _watch(self) -> None:
        """Follow changes for ever, those during the first build included."""
        try:
            follow(self, self._workspace, left_out=self._data_dir, tell=_log)
        except FileNotFoundError:
            logger.warning("no workspace directory to watch")


def _log(sentence: str) -> None:
    logger.info("watching the workspace", said=sentence)
