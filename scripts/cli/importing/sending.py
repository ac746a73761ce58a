"""Sending memories to `POST /import`, in parts that can be repeated.

A part is a request of its own with its own idempotency key. So an answer is read when its request
is sent (HTTP/1.1 clients do not read while they send), a broken connection costs one part, and an
interrupted import continues after the last one that was acknowledged. Parts go one after another:
memories keep the order of their files, and a key that comes twice ends with its last value.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from scripts.cli.errors import CliError, RefusedError, UnreachableError
from scripts.cli.importing.journal import Tally
from scripts.cli.readers.records import Memory
from scripts.cli.service import Service
from wire.retries import PASSING

MAX_PART_LINES = 2000
MAX_PART_BYTES = 4 * 1024 * 1024
_PATIENCE_S = 120.0
"""How long a part is sent again to a service that says nothing: by then it has restarted."""
_PAUSE_S = 1.0
_COUNTED = {
    "added": "added",
    "duplicate": "duplicates",
    "updated": "updated",
    "unchanged": "unchanged",
    "error": "errors",
}


@dataclass(slots=True, kw_only=True)
class Part:
    """Consecutive memories."""

    header: dict[str, Any] | None
    """Of the export they are from."""
    lines: list[bytes] = field(default_factory=list)
    """Of NDJSON."""
    origins: list[str] = field(default_factory=list)
    """Where each was read."""
    n_bytes: int = 0
    moment: str | None = None
    """The timestamp of the last one."""

    @property
    def content(self) -> bytes:
        """The part as a body; one of an export is an export itself."""
        if self.header is None:
            return b"".join(self.lines)
        footer = {"type": "footer", "count": len(self.lines)}
        return b"".join([_line(self.header), *self.lines, _line(footer)])

    def origin(self, number: int) -> str:
        """Where a line of the body was read."""
        return self.origins[number - (1 if self.header is None else 2)]

    def takes(self, memory: Memory, n_bytes: int) -> bool:
        """Whether a memory whose line has so many bytes belongs to this part too.

        Those of an export's moment stay together, within reason: alike ones are counted there.
        """
        stretch = (
            2 if self.header is not None and memory.line.get("timestamp") == self.moment else 1
        )
        return (
            memory.header == self.header
            and len(self.lines) < stretch * MAX_PART_LINES
            and self.n_bytes + n_bytes <= stretch * MAX_PART_BYTES
        )


def parts_of(memories: Iterable[Memory]) -> Iterator[Part]:
    """Memories in parts; the same memories always give the same parts."""
    part = Part(header=None)
    for memory in memories:
        line = _line(memory.line)
        if not part.takes(memory, len(line)):
            if part.lines:
                yield part
            part = Part(header=memory.header)
        part.lines.append(line)
        part.origins.append(memory.origin)
        part.n_bytes += len(line)
        part.moment = memory.line.get("timestamp")
    if part.lines:
        yield part


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a part."""

    tally: Tally = field(default_factory=Tally)
    ids: list[int | None] = field(default_factory=list)
    """Of each memory; None where there is none."""


class Sender:
    """Sends the parts of one import."""

    def __init__(
        self,
        service: Service,
        *,
        deduplicate: bool,
        stop_on_error: bool,
        on_error: Callable[[str, str], None],
        on_duplicate: Callable[[str, dict[str, Any]], None] = lambda origin, item: None,
        on_progress: Callable[[Tally, float], None] = lambda tally, share: None,
    ) -> None:
        """Send nothing yet.

        Args:
            service: where to.
            deduplicate: for memories that do not say themselves.
            stop_on_error: whether the first memory that is refused ends the import.
            on_error: told where a memory was read and why it was refused.
            on_duplicate: told where a memory was read that was skipped, and what it repeats.
            on_progress: told what became of the part so far, and which share of it that is.
        """
        self._service = service
        self._params = {
            "on_error": "stop" if stop_on_error else "continue",
            "deduplicate": deduplicate,
        }
        self._on_error = on_error
        self._on_duplicate = on_duplicate
        self._on_progress = on_progress
        self._heard_s = 0.0
        """When the service was last known to be there."""

    def send(self, part: Part, key: str) -> Outcome:
        """Send a part, again if the connection breaks. Durable when this returns.

        Raises:
            CliError: the service refused the part, or stopped at a memory as it was told to.
            UnreachableError: the service does not come back.
        """
        self._heard_s = time.monotonic()
        while True:
            try:
                return self._send(part, key)
            except (UnreachableError, RefusedError) as exc:
                if isinstance(exc, RefusedError) and exc.status not in PASSING:
                    raise
                if time.monotonic() - self._heard_s >= _PATIENCE_S:
                    raise
                time.sleep(_PAUSE_S)

    def _send(self, part: Part, key: str) -> Outcome:
        headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": key}
        sent, errors, duplicates = Outcome(), [], []
        tally = sent.tally
        summary: dict[str, Any] | None = None
        with self._service.call(
            "POST", "/import", content=part.content, headers=headers, params=self._params
        ) as answer:
            for event in _events(answer):
                self._heard_s = time.monotonic()
                if event.get("type") == "item":
                    tally.lines += 1
                    sent.ids.append(event.get("id"))
                    name = _COUNTED[event["status"]]
                    setattr(tally, name, getattr(tally, name) + 1)
                    if name == "errors":
                        where = part.origin(event["line"])
                        errors.append((where, str(event.get("error") or "refused")))
                    elif name == "duplicates":
                        duplicates.append((part.origin(event["line"]), event))
                    self._on_progress(tally, tally.lines / len(part.origins))
                elif event.get("type") == "summary":
                    summary = event
        # An answer without its last line broke off: nobody knows what became of the rest.
        if summary is None:
            raise UnreachableError(f"The service at {self._service.url} broke off its answer.")
        for where, why in errors:
            self._on_error(where, why)
        for where, item in duplicates:
            self._on_duplicate(where, item)
        if summary.get("stopped_at") is not None:
            raise CliError(f"The import stopped: {summary.get('message') or 'at an error'}")
        return sent


def _events(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The lines of an answer; what breaks off in the middle simply ends."""
    try:
        for line in answer:
            if line.endswith(b"\n"):
                yield json.loads(line)
    except (OSError, http.client.HTTPException, ValueError):
        return
