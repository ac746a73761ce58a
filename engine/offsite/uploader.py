"""Uploads in the background: the newest backup only, tried again until it is there."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from engine.errors import EngineError, NotReadyError
from engine.offsite.upload import UploadReport

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedUpload:
    """An upload that somebody waits for."""

    name: str
    overwrite: bool
    done: Future[UploadReport]


class Uploader:
    """A thread that uploads backups.

    Of automatic ones only the newest matters: one that comes while another is uploaded, or while
    the bucket does not answer, takes the place of the one that waited.
    """

    def __init__(
        self,
        upload: Callable[[str, bool, bool], UploadReport],
        clean_up: Callable[[], None],
        *,
        interval_s: float,
        retry_s: float,
        longest_retry_s: float = 300.0,
    ) -> None:
        """Start the thread.

        Args:
            upload: takes a backup's name, whether someone waits for it, and whether it may
                follow another machine's snapshot.
            clean_up: removes what the bucket need not keep; after a successful upload.
            interval_s: between two automatic uploads at least.
            retry_s: after the first failure; doubled with each.
            longest_retry_s: and this at most.
        """
        self._upload = upload
        self._clean_up = clean_up
        self._interval_s = interval_s
        self._retry_s = retry_s
        self._longest_retry_s = longest_retry_s
        self._changed = threading.Condition()
        self._pending: str | None = None
        self._uploading: str | None = None
        self._wanted: deque[WantedUpload] = deque()
        self._due_s = 0.0
        """When the next automatic upload may begin, on the monotonic clock."""
        self._n_failures = 0
        self._last_error: str | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> str | None:
        """The backup that is to be uploaded next or is on its way; None when all is there."""
        with self._changed:
            return self._pending or self._uploading

    @property
    def last_error(self) -> str | None:
        """Why the last attempt failed; None after one that succeeded."""
        return self._last_error

    def notice(self, name: str) -> None:
        """There is a new backup; it is uploaded soon. Returns at once."""
        with self._changed:
            self._pending = name
            self._changed.notify()

    def upload(self, name: str, *, overwrite: bool) -> Future[UploadReport]:
        """Upload a backup now; the result is there when it can be restored from the bucket."""
        wanted = WantedUpload(name=name, overwrite=overwrite, done=Future())
        with self._changed:
            if self._closing:
                raise NotReadyError("the service is stopping")
            self._wanted.append(wanted)
            self._changed.notify()
        return wanted.done

    def close(self, *, patience_s: float) -> None:
        """Stop after the upload under way, or leave it after `patience_s`. Idempotent.

        What was not uploaded is noticed at the next start.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(patience_s)

    def _work(self) -> None:
        while True:
            wanted = self._next()
            if self._uploading is None:
                break
            self._attempt(self._uploading, wanted)
            self._uploading = None
        while self._wanted:
            wanted = self._wanted.popleft()
            if wanted.done.set_running_or_notify_cancel():
                wanted.done.set_exception(NotReadyError("the service is stopping"))

    def _next(self) -> WantedUpload | None:
        """Wait for work and show it in `_uploading`, which stays None when closing."""
        with self._changed:
            while not self._closing:
                if self._wanted:
                    wanted = self._wanted.popleft()
                    # From here on it cannot be cancelled, which would make an outcome an error.
                    if not wanted.done.set_running_or_notify_cancel():
                        continue
                    self._uploading = wanted.name
                    return wanted
                left_s = self._due_s - time.monotonic()
                if self._pending is not None and left_s <= 0:
                    self._uploading, self._pending = self._pending, None
                    return None
                self._changed.wait(left_s if self._pending is not None else None)
        return None

    def _attempt(self, name: str, wanted: WantedUpload | None) -> None:
        try:
            report = self._upload(name, wanted is not None, wanted is not None and wanted.overwrite)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the next attempt must come
            self._note_failure(name, exc, is_automatic=wanted is None)
            if wanted is not None:
                wanted.done.set_exception(exc)
            return
        with self._changed:
            self._last_error, self._n_failures = None, 0
            self._due_s = time.monotonic() + self._interval_s
        _log.info("uploaded %s: %d objects, %d bytes", name, report.n_objects, report.n_bytes)
        if wanted is not None:
            wanted.done.set_result(report)
        if report.n_bytes:
            self._tidy()

    def _note_failure(self, name: str, exc: Exception, *, is_automatic: bool) -> None:
        if not isinstance(exc, EngineError):
            _log.exception("uploading %s failed", name)
        else:
            _log.warning("%s was not uploaded: %s", name, exc)
        with self._changed:
            self._last_error = str(exc)
            if is_automatic:
                self._pending = self._pending or name
                pause_s = min(self._retry_s * 2**self._n_failures, self._longest_retry_s)
                self._due_s = time.monotonic() + pause_s * random.uniform(0.8, 1.2)
                self._n_failures += 1

    def _tidy(self) -> None:
        try:
            self._clean_up()
        except Exception as exc:  # noqa: BLE001 - whatever it is, the next upload must come
            is_known = isinstance(exc, EngineError)
            _log.warning("old snapshots stay in the cloud for now: %s", exc, exc_info=not is_known)
