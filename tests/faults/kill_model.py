"""What the memories of a kill loop may be after a kill, and how that is checked."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

_CONSONANTS = "bcdfghjkmnpqrtvw"
_WORDS = ("amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "harbor", "island")
_LONG_EVERY = 40
_RECENT_DEAD = 40


class Violation(AssertionError):
    """A promise was broken."""


@dataclass(frozen=True, slots=True)
class Version:
    """One state of a memory: which text, which metadata, and its id once that is known."""

    text: int
    metadata: int
    id: int | None = None

    def matches(self, memory: Mapping[str, Any]) -> bool:
        """Whether a memory that the service shows is in this state."""
        return (
            memory["text"] == text_of(self.text)
            and memory["metadata"] == {"n": self.metadata}
            and self.id in {None, memory["id"]}
        )


def word_of(number: int) -> str:
    """A word that only this number has, with nothing that stemming could take away."""
    return "zq" + "".join(_CONSONANTS[int(digit, 16)] for digit in f"{number:x}") + "x"


def text_of(number: int) -> str:
    """The text of a number; one in forty does not fit a proxy's buffer."""
    words = random.Random(number).choices(_WORDS, k=6)
    text = f"{word_of(number)} {' '.join(words)}"
    return text if number % _LONG_EVERY else text + " and so on" * 2_000


States = frozenset[Version | None]
"""What one memory may be: None is absent."""


@dataclass(slots=True, eq=False)
class Slot:
    """One memory, known by its source, which no other memory has."""

    source: str
    keyed: bool
    states: States = frozenset({None})
    history: deque[str] = field(default_factory=lambda: deque(maxlen=12))

    @property
    def version(self) -> Version | None:
        """Its state, where that is certain."""
        [state] = self.states
        return state

    @property
    def is_certain(self) -> bool:
        return len(self.states) == 1


Change = Mapping[str, Version | None]
"""What a request makes of the memories with these sources."""


class Model:
    """Every memory of one loop. Callers see to it that a slot has one user at a time."""

    def __init__(self) -> None:
        self.slots: dict[str, Slot] = {}
        self._owner_of_id: dict[int, str] = {}
        self._unknown: list[tuple[dict[str, States], dict[str, States]]] = []
        """Requests without an answer: what their memories were, and what they may be.

        Without those that have been written since.
        """
        self._dead: deque[int] = deque(maxlen=_RECENT_DEAD)
        """Texts that were replaced or deleted lately."""
        self._touched: set[str] = set()

    def acknowledge(self, change: Change, note: str) -> None:
        """A request was answered: it is done."""
        for source, version in change.items():
            slot = self.slots[source]
            self._dead.extend(state.text for state in slot.states if state is not None)
            self._set(slot, frozenset({version}), note)

    def leave_open(self, change: Change, note: str) -> None:
        """A request was not answered: done whole or not at all."""
        self._leave_open({source: frozenset({new}) for source, new in change.items()}, note)

    def _leave_open(self, after: dict[str, States], note: str) -> None:
        before = {source: self.slots[source].states for source in after}
        for source, states in after.items():
            self._set(self.slots[source], before[source] | states, f"{note}?")
        self._unknown.append((before, after))

    def _set(self, slot: Slot, states: States, note: str) -> None:
        for before, after in self._unknown:
            before.pop(slot.source, None)
            after.pop(slot.source, None)
        slot.states = states
        slot.history.append(note)
        self._touched.add(slot.source)
        for state in states:
            if state is not None and state.id is not None:
                self._own(state.id, slot.source)

    def _own(self, memory_id: int, source: str) -> None:
        owner = self._owner_of_id.setdefault(memory_id, source)
        if owner != source:
            raise Violation(f"id {memory_id} was given to {owner} and then to {source}")

    # Backups

    def snapshot(self) -> dict[str, States]:
        """What a backup made now holds."""
        return {source: slot.states for source, slot in self.slots.items()}

    def restore(self, snapshot: Mapping[str, States], *, answered: bool) -> None:
        """The service went back to a snapshot, or may have."""
        absent: States = frozenset({None})
        after = {source: snapshot.get(source, absent) for source in self.slots}
        if not answered:
            self._leave_open(after, "restore")
            return
        self._unknown.clear()
        for source, states in after.items():
            if states != self.slots[source].states:
                self._set(self.slots[source], states, "restore")

    # After a restart

    def settle(self, memories: Iterable[Mapping[str, Any]]) -> None:
        """Compare with what the service shows, which is certain from now on."""
        shown: dict[str, Mapping[str, Any]] = {}
        for memory in memories:
            if memory["source"] in shown:
                raise Violation(f"twice: {memory['source']}, ids {memory['id']} and before")
            shown[memory["source"]] = memory
        if unexpected := shown.keys() - self.slots.keys():
            raise Violation(f"never sent: {sorted(unexpected)}")
        for source, slot in self.slots.items():
            if not _matches(slot.states, shown.get(source)):
                raise Violation(
                    f"{source} is {_brief(shown.get(source))}, not one of {set(slot.states)}; "
                    f"its last changes: {list(slot.history)}"
                )
        for before, after in self._unknown:
            if not any(
                all(_matches(states, shown.get(source)) for source, states in side.items())
                for side in (before, after)
            ):
                raise Violation(f"half of a request was applied: {sorted(after)[:20]}")
        self._unknown.clear()
        for source, slot in self.slots.items():
            if slot.is_certain and slot.version is None:
                continue
            version = _seen(slot.states, shown.get(source))
            slot.states = frozenset({version})
            if version is not None and version.id is not None:
                self._own(version.id, source)

    def touched(self) -> tuple[list[Slot], list[int]]:
        """Living slots changed since the last call, and numbers whose text must be gone."""
        slots = [self.slots[source] for source in sorted(self._touched)]
        alive = {slot.version.text for slot in self.slots.values() if slot.version is not None}
        self._touched.clear()
        dead = [number for number in dict.fromkeys(self._dead) if number not in alive]
        return [slot for slot in slots if slot.version is not None], dead


_NO_MATCH = Version(-1, -1)


def _matches(states: States, memory: Mapping[str, Any] | None) -> bool:
    return _seen(states, memory) is not _NO_MATCH


def _seen(states: States, memory: Mapping[str, Any] | None) -> Version | None:
    """The state that a memory, or its absence, is in; `_NO_MATCH` if it is none of them."""
    if memory is None:
        return None if None in states else _NO_MATCH
    for state in states:
        if state is not None and state.matches(memory):
            return replace(state, id=memory["id"])
    return _NO_MATCH


def _brief(memory: Mapping[str, Any] | None) -> str:
    if memory is None:
        return "absent"
    return f"id {memory['id']}, {memory['text'][:30]!r}, {memory['metadata']}"
