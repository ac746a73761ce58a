"""Clients of a kill loop: numbered writes over REST, each with what it makes of the memories."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

from engine.writing.rw_lock import ReadWriteLock
from tests.faults.kill_model import (
    Change,
    Model,
    Slot,
    States,
    Version,
    Violation,
    text_of,
    word_of,
)

REFUSALS = {429, 503, 507}
"""Answers by which nothing of the request is applied, now or later."""
UNKNOWN = {502, 504}
"""Answers that leave open whether the request was applied."""
MEMORIES_A_CLIENT = 70
PATIENCE_S = 120


@dataclass(slots=True)
class Shared:
    """What the clients of one loop have in common."""

    base_url: str
    seed: int
    model: Model = field(default_factory=Model)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    turn: ReadWriteLock = field(default_factory=ReadWriteLock)
    """Shared by writes; exclusive for what concerns every memory."""
    outcomes: Counter[str] = field(default_factory=Counter)
    snapshots: dict[str, dict[str, States]] = field(default_factory=dict)
    """What the backups that may be restored hold, by name; oldest first."""
    stop: threading.Event = field(default_factory=threading.Event)

    def http(self, namespace: str = "default") -> httpx.Client:
        return httpx.Client(
            base_url=self.base_url,
            headers={"X-Memory-Namespace": namespace},
            timeout=PATIENCE_S,
            trust_env=False,
        )


@dataclass(frozen=True, slots=True)
class Write:
    """A request and what it does."""

    what: str
    method: str
    path: str
    body: dict[str, Any] | None
    change: Change
    key: str


class Client:
    """Changes memories of its own, one request after the other."""

    def __init__(self, shared: Shared, number: int, namespace: str) -> None:
        self.n_acknowledged = 0
        self.namespace = namespace
        self._shared = shared
        self._number = number
        self._rng = random.Random(f"{shared.seed} client {number}")
        self._slots: list[Slot] = []
        self._unsettled: list[Write] = []
        """Without an answer, and to be sent again."""

    def run(self) -> None:
        """Send writes until told to stop. Never leaves a request half-sent."""
        with self._shared.http(self.namespace) as http:
            while not self._shared.stop.is_set():
                with self._shared.turn.shared():
                    if not self._send(http, self._next_write()):
                        self._shared.stop.wait(0.02)

    def settle(self) -> None:
        """Send what had no answer again, under the same key."""
        with self._shared.http(self.namespace) as http:
            for write in self._unsettled:
                answer = http.request(
                    write.method,
                    write.path,
                    json=write.body,
                    headers={"Idempotency-Key": write.key},
                )
                if answer.status_code != 200:
                    raise Violation(f"{write.what} sent again: {answer.status_code} {answer.text}")
                self._shared.outcomes["sent again"] += 1
                self._acknowledge(write, answer.json())
            self._unsettled.clear()

    def _send(self, http: httpx.Client, write: Write) -> bool:
        """Send a write, again while it is refused, or not; whether it was acknowledged."""
        while True:
            try:
                answer = http.request(
                    write.method,
                    write.path,
                    json=write.body,
                    headers={"Idempotency-Key": write.key},
                )
            except httpx.TransportError:
                return self._leave_open(write, "dropped")
            if answer.status_code == 200:
                self._acknowledge(write, answer.json())
                return True
            if answer.status_code in UNKNOWN:
                return self._leave_open(write, str(answer.status_code))
            if answer.status_code not in REFUSALS or "retry-after" not in answer.headers:
                raise Violation(f"{write.what}: {answer.status_code} {answer.text[:300]}")
            self._shared.outcomes[str(answer.status_code)] += 1
            if self._shared.stop.wait(0.05) or self._rng.random() < 0.5:
                return False

    def _acknowledge(self, write: Write, answer: dict[str, Any]) -> None:
        self.n_acknowledged += 1
        self._shared.outcomes[write.what] += 1
        change = dict(write.change)
        new_ids = answer.get("ids") or [answer.get("id")]
        if write.what in {"add", "add-batch", "upsert"}:
            for (source, version), new_id in zip(write.change.items(), new_ids, strict=True):
                if version is None or (version.id is not None and version.id != new_id):
                    raise Violation(f"{write.what} of {source}: {version}, answered {new_id}")
                change[source] = Version(version.text, version.metadata, new_id)
        self._shared.model.acknowledge(change, write.what)

    def _leave_open(self, write: Write, outcome: str) -> bool:
        self._shared.outcomes[outcome] += 1
        if self._rng.random() < 0.5:
            self._unsettled.append(write)
        else:
            self._shared.model.leave_open(write.change, write.what)
        return False

    # What to send

    def _next_write(self) -> Write:
        held_back = {source for write in self._unsettled for source in write.change}
        usable = [s for s in self._slots if s.is_certain and s.source not in held_back]
        living = [slot for slot in usable if slot.version is not None]
        lost = [slot for slot in usable if slot.version is None and slot.keyed]
        chance = self._rng.random()
        if len(living) < MEMORIES_A_CLIENT * 0.8 and chance < 0.7:
            return self._add(8 if chance < 0.3 else 1)
        if len(living) > MEMORIES_A_CLIENT and chance < 0.6:
            return self._delete_batch(living) if chance < 0.2 else self._delete(living)
        if chance < 0.2:
            return self._add(1)
        if chance < 0.25:
            return self._add(5)
        if chance < 0.45:
            return self._upsert([slot for slot in living if slot.keyed] + lost[:3])
        if chance < 0.85 and living:
            return self._patch(self._rng.choice(living))
        return self._delete(living) if living else self._add(1)

    def _write(
        self, what: str, method: str, path: str, body: dict[str, Any] | None, change: Change
    ) -> Write:
        key = f"{self._shared.seed}-{next(self._shared.numbers)}"
        return Write(what, method, path, body, change, key)

    def _new_slot(self, *, keyed: bool) -> Slot:
        source = f"client{self._number}/{next(self._shared.numbers)}"
        slot = self._shared.model.slots[source] = Slot(source, keyed)
        self._slots.append(slot)
        return slot

    def _fresh(self, old: Version | None = None) -> Version:
        number = next(self._shared.numbers)
        return Version(number, number, old.id if old else None)

    def _add(self, n: int) -> Write:
        change = {self._new_slot(keyed=False).source: self._fresh() for _ in range(n)}
        items = [_fields(source, version) for source, version in change.items()]
        if n == 1:
            body = {**items[0], "deduplicate": False}
            return self._write("add", "POST", "/memory/add", body, change)
        batch = {"memories": items, "deduplicate": False}
        return self._write("add-batch", "POST", "/memory/add-batch", batch, change)

    def _upsert(self, among: list[Slot]) -> Write:
        fresh = not among or self._rng.random() < 0.4
        slot = self._new_slot(keyed=True) if fresh else self._rng.choice(among)
        version = self._fresh(slot.version)
        body = {**_fields(slot.source, version), "key": "its key"}
        return self._write("upsert", "POST", "/memory/upsert", body, {slot.source: version})

    def _patch(self, slot: Slot) -> Write:
        old = slot.version
        assert old is not None
        new = self._fresh(old)
        if self._rng.random() < 0.3:
            new = Version(old.text, new.metadata, old.id)
        body: dict[str, Any] = {"metadata": {"n": new.metadata}}
        if new.text != old.text:
            body["text"] = text_of(new.text)
        return self._write("update", "PATCH", f"/memory/{old.id}", body, {slot.source: new})

    def _delete(self, living: list[Slot]) -> Write:
        slot = self._rng.choice(living)
        assert slot.version is not None
        path = f"/memory/{slot.version.id}"
        return self._write("delete", "DELETE", path, None, {slot.source: None})

    def _delete_batch(self, living: list[Slot]) -> Write:
        slots = self._rng.sample(living, 6)
        ids = [slot.version.id for slot in slots if slot.version is not None]
        change: Change = {slot.source: None for slot in slots}
        return self._write("delete-batch", "POST", "/memory/delete-batch", {"ids": ids}, change)


def _fields(source: str, version: Version) -> dict[str, Any]:
    return {
        "text": text_of(version.text),
        "source": source,
        "metadata": {"n": version.metadata},
    }


def searches_of(numbers: list[int], *, by_meaning: bool) -> list[dict[str, Any]]:
    """Searches that find the memory with this text, or the word that only it has, first."""
    return [
        {
            "query": (text_of(number) if by_meaning else word_of(number))[:10_000],
            "k": 3,
            "vector_weight": 1.0 if by_meaning else 0.0,
            "namespaces": ["*"],
        }
        for number in numbers
    ]
