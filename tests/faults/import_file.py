"""A file to import in which every kind of line meets every other, again and again."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DIM = 384
_WORDS = (
    *("amber", "barley", "copper", "delta", "ember", "falcon", "granite", "harbour", "indigo"),
    *("juniper", "kettle", "lantern", "meadow", "nickel", "orchard", "pepper", "quarry", "ribbon"),
)
_LINES_A_KEY = 40
_MAX_SOURCE_CHARS = 500


class ImportFile:
    """Lines from a seed. Most bring an embedding, since computing one takes longest."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._numpy = np.random.default_rng(seed)
        self._good: list[bytes] = []
        self._waiting: list[dict[str, Any]] = []
        """Lines that say again what one before said, soon after it."""
        self._number = 0

    def write(self, path: Path, n_lines: int) -> None:
        """Write a file of so many lines."""
        kinds: dict[Callable[[], bytes], int] = {
            self._fresh: 58,
            self._embedded_here: 5,
            self._said_before: 14,
            self._keyed: 14,
            self._twin: 2,
            self._soon_again: 5,
            self._bad: 2,
        }
        chosen = self._random.choices(list(kinds), list(kinds.values()), k=n_lines)
        with path.open("wb") as file:
            for self._number, kind in enumerate(chosen, 1):
                file.write(kind() + b"\n")

    # Kinds of lines

    def _fresh(self) -> bytes:
        return self._line(self._memory(embedding=self._embedding()))

    def _embedded_here(self) -> bytes:
        return self._line(self._memory())

    def _said_before(self) -> bytes:
        """The very bytes of an earlier line: a duplicate, another copy, or a key's old value."""
        return self._random.choice(self._good) if self._good else self._fresh()

    def _keyed(self) -> bytes:
        """A key that comes again and again, with one of a few texts."""
        key = self._random.randrange(1 + self._number // _LINES_A_KEY)
        place = self._random.choice(_WORDS)
        memory = self._memory(text=f"Person {key} lives at the {place}.", key=f"k{key}")
        memory["source"] = "people"
        if self._random.random() < 0.9:
            memory["embedding"] = self._embedding()
        if "embedding" in memory:
            said = {name: memory[name] for name in ("text", "source", "embedding")}
            self._waiting.append(said)
        return self._line(memory)

    def _twin(self) -> bytes:
        """A text with a foreign embedding; soon after, the same text is embedded here."""
        memory = self._memory(embedding=self._embedding())
        self._waiting.append({"text": memory["text"], "source": "twin", "deduplicate": False})
        return self._line(memory)

    def _soon_again(self) -> bytes:
        return self._line(self._waiting.pop()) if self._waiting else self._fresh()

    def _bad(self) -> bytes:
        bad: list[bytes] = [
            b'{"text": "cut off", "sou',
            b"[1, 2]",
            json.dumps({"text": " ", "source": "bad"}).encode(),
            json.dumps({"text": "x", "source": "s" * (_MAX_SOURCE_CHARS + 1)}).encode(),
            json.dumps({"text": "x", "source": "bad", "embedding": [1.0]}).encode(),
        ]
        return self._random.choice(bad)

    # Their parts

    def _memory(self, **more: Any) -> dict[str, Any]:
        number, chance = self._number, self._random.random
        words = " ".join(self._random.choices(_WORDS, k=self._random.randrange(3, 12)))
        memory = {"text": f"Note {number}: {words}.", "source": f"notes/{number % 7}"} | more
        if chance() < 0.4:
            memory["metadata"] = {"n": number, "tags": [words[:3], "ü"], "deep": {"none": None}}
        if chance() < 0.5:
            memory["timestamp"] = self._instant(2020)
        if chance() < 0.2:
            memory["updated_at"] = self._instant(2021)
        if chance() < 0.1:
            memory["deduplicate"] = False
        return memory

    def _instant(self, year: int) -> str:
        pick = self._random.randrange
        return f"{year}-{pick(1, 13):02}-{pick(1, 29):02}T{pick(24):02}:00:00.{pick(10**6):06}Z"

    def _embedding(self) -> str:
        vector = self._numpy.standard_normal(DIM)
        unit = (vector / np.linalg.norm(vector)).astype("<f4")
        return base64.b64encode(unit.tobytes()).decode()

    def _line(self, memory: dict[str, Any]) -> bytes:
        line = json.dumps(memory).encode()
        self._good.append(line)
        return line
