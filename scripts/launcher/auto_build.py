"""Builds the workspace by itself: when the service has started, and when files there change.

A client like any other: it asks the running service over HTTP, so that such a build and one
asked for by hand are the same thing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import structlog
from watchfiles import Change, DefaultFilter, watch
from watchfiles.main import FileChange

from engine.workspace.passages import file_of
from engine.workspace.workspace import READABLE_SUFFIXES
from wire import limits

_PASSING = frozenset({429, 503, 507})
_RETRY_PAUSE_S = 2.0
# Changes that follow each other within a step are one: an editor's save, a `git pull`.
_STEP_MS = 500
_MAX_GATHERED_MS = 10_000
_FIRST_BUILD_AFTER_MS = 1000

logger = structlog.stdlib.get_logger("auto_build")


class WorkspaceBuilder:
    """Keeps the memories of a workspace's files as the files are."""

    def __init__(self, client: httpx.Client, workspace: Path, *, data_dir: Path) -> None:
        """Prepare; nothing is asked yet.

        Args:
            client: knows the service's address, its key and a host name that it answers to.
            workspace: what `/index/build` reads.
            data_dir: not watched, should it lie in the workspace.
        """
        self._client = client
        self._workspace = workspace.resolve()
        self._filter = _ReadableFiles(data_dir.resolve())

    def start(self, *, watching: bool) -> None:
        """Build on a thread of its own that ends with the process; then watch, if asked to."""
        target = self._watch if watching else self.build
        Thread(target=target, name="auto build", daemon=True).start()

    def build(self) -> bool:
        """Build the whole workspace; returns whether it could be read.

        What has not changed is not embedded again. A workspace without a readable file is no
        failure: there may be one tomorrow.
        """
        answer = self._ask("POST", "/index/build", json={})
        if not answer.is_success:
            logger.warning("workspace not built", status=answer.status_code)
            return False
        counts = ("files_processed", "memories_added", "memories_removed", "unchanged")
        logger.info("workspace built", **{name: answer.json()[name] for name in counts})
        return True

    def follow(self, changes: Iterable[FileChange]) -> None:
        """Bring the memories up to changed files, and forget those of deleted ones."""
        # First the build: when the whole workspace is gone, all of it was not deleted.
        if not self.build():
            return
        for change, path in changes:
            if change is Change.deleted and not Path(path).exists():
                self._forget(Path(path).relative_to(self._workspace).as_posix())

    def _watch(self) -> None:
        """Follow changes for ever, those during the first build included."""
        followed = False
        for changes in self._changes():
            if changes or not followed:
                self.follow(changes)
                followed = True

    def _changes(self) -> Iterator[set[FileChange]]:
        options: dict[str, Any] = {
            "watch_filter": self._filter,
            "debounce": _MAX_GATHERED_MS,
            "step": _STEP_MS,
            "rust_timeout": _FIRST_BUILD_AFTER_MS,
            "yield_on_timeout": True,
            "ignore_permission_denied": True,
        }
        try:
            yield from watch(self._workspace, **options)
        except FileNotFoundError:
            logger.warning("no workspace directory to watch")
        except OSError as exc:
            logger.warning("the system does not tell of changes, so it is polled", error=str(exc))
            yield from watch(self._workspace, **options, force_polling=True, poll_delay_ms=2000)

    def _forget(self, path: str) -> None:
        """Delete the memories of a file, or of every file of a directory, that is gone."""
        ids = [
            memory["id"]
            for memory in self._memories(path)
            # What somebody else put there under a key of theirs is not the file's.
            if memory["key"] is None
            and ((file := file_of(memory["source"])) == path or (file or "").startswith(f"{path}/"))
        ]
        for start in range(0, len(ids), limits.MAX_DELETED):
            some = ids[start : start + limits.MAX_DELETED]
            self._ask("POST", "/memory/delete-batch", json={"ids": some})
        logger.info("deleted file forgotten", memories_removed=len(ids))

    def _memories(self, source_prefix: str) -> Iterator[dict[str, Any]]:
        query: dict[str, Any] = {"source_prefix": source_prefix, "limit": limits.MAX_PAGE}
        while True:
            page = self._ask("GET", "/memories", params=query).json()
            yield from page.get("memories", ())
            if not page.get("next_cursor"):
                return
            query["cursor"] = page["next_cursor"]

    def _ask(self, method: str, path: str, **content: Any) -> httpx.Response:  # noqa: ANN401
        """Ask until there is an answer that asking again would not change."""
        while True:
            try:
                answer = self._client.request(method, path, **content)
                if answer.status_code not in _PASSING:
                    return answer
            except httpx.HTTPError as exc:
                logger.info("asking again", error=type(exc).__name__)
            time.sleep(_RETRY_PAUSE_S)


class _ReadableFiles(DefaultFilter):
    """What a build may read; hidden and installed directories are in the default's list."""

    def __init__(self, data_dir: Path) -> None:
        self.ignore_paths = (data_dir,)
        super().__init__()

    def __call__(self, change: Change, path: str) -> bool:
        """Whether a build would see the change."""
        if not super().__call__(change, path):
            return False
        # A directory that was moved is one change, whatever is in it.
        moved = change is Change.deleted or (change is Change.added and Path(path).is_dir())
        return moved or Path(path).suffix.lower() in READABLE_SUFFIXES
