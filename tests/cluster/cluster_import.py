"""An import into a cluster, followed line by line and sent again when its door dies."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle
from typing import Any

import httpx

from tests.cluster.cluster import Machine
from tests.cluster.cluster_load import PATIENCE_S, client, say
from tests.cluster.cluster_service import wait_until_ready


class Import:
    """Texts sent as one import, on a thread of its own."""

    def __init__(self, machines: Sequence[Machine], texts: Iterable[str], source: str) -> None:
        """Begin.

        Args:
            machines: through whose doors; the next when one dies in the middle.
            texts: a line each.
            source: of every line.
        """
        self.source = source
        self.answered: list[dict[str, Any]] = []
        """Answers to lines in the latest stream."""
        self.n_streams = 0
        self._machines = machines
        self._texts = texts
        self._summary: dict[str, Any] = {}
        self._headers = {"Idempotency-Key": uuid.uuid4().hex}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def is_running(self) -> bool:
        """Whether its last summary is still to come."""
        return self._thread.is_alive()

    def finish(self) -> dict[str, Any]:
        """Wait for the summary."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), f"{len(self.answered)} lines answered"
        return self._summary

    def _run(self) -> None:
        for machine in cycle(self._machines):
            wait_until_ready(machine)
            try:
                return self._send(machine)
            except httpx.TransportError as exc:
                say(f"{self.source}: {exc!r} after {len(self.answered)} answers")

    def _send(self, machine: Machine) -> None:
        self.n_streams += 1
        self.answered = []
        with (
            client() as http,
            http.stream(
                "POST",
                f"{machine.url}/import?deduplicate=false",
                content=self._body(),
                headers=self._headers,
                # A line of progress comes each second, but the body is held back while it is full.
                timeout=httpx.Timeout(20, write=PATIENCE_S),
            ) as response,
        ):
            response.raise_for_status()
            for line in response.iter_lines():
                answer = json.loads(line)
                if answer["type"] == "item":
                    self.answered.append(answer)
                elif answer["type"] == "summary":
                    self._summary = answer
                    return
        raise httpx.RemoteProtocolError("the answer ended without a summary")

    def _body(self) -> Iterator[bytes]:
        for text in self._texts:
            yield json.dumps({"text": text, "source": self.source}).encode() + b"\n"


def exported(machine: Machine, source: str) -> list[dict[str, Any]]:
    """Every memory of a source with its embedding, by id."""
    query: dict[str, Any] = {"source_prefix": source, "embeddings": True}
    with client(PATIENCE_S) as http:
        answer = http.get(f"{machine.url}/export", params=query).raise_for_status()
    _, *memories, footer = [json.loads(line) for line in answer.text.splitlines()]
    assert footer == {"type": "footer", "count": len(memories)}
    return memories
