"""Exact names among many notes: ten kinds, each asked for alone, in a question, and by a part.

A note is a real text (a WordNet gloss, or a generated sentence) with an identifier in its place.
Every kind has as many notes of the same form, so that another one is always nearly the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.relevance.judged import Document, JudgedQuery, JudgedSet
from benchmarks.support.corpora import load_corpus

SHARE_OF_NOTES = 0.01
"""Of all notes, how many hold an identifier of one kind."""

_HAN = [chr(c) for c in range(0x4E00, 0x4E00 + 400)]
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_NAMES = ("alva", "bodil", "cyrus", "dagny", "edda", "floris", "greta", "hagen", "iris", "jonas")
_NOUNS = ("budget", "invoice", "report", "backup", "session", "user", "index", "order", "payment")
_VERBS = ("parse", "load", "merge", "flush", "sync", "read", "drop", "build", "check", "send")


class _Maker:
    """Made-up identifiers."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def number(self, below: int, at_least: int = 0) -> int:
        return int(self._rng.integers(at_least, below))

    def one_of(self, words: Sequence[str]) -> str:
        return words[self.number(len(words))]

    def digits(self, n: int) -> str:
        return str(self.number(10**n, 10 ** (n - 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of identifier."""

    make: Callable[[_Maker], str]
    note: str
    question: str
    part: Callable[[str], str] | None = None
    """What people remember of one; None where a part says nothing."""


KINDS: dict[str, Kind] = {
    "ticket": Kind(
        make=lambda m: f"{m.one_of(('OPS', 'WEB', 'CRM'))}-{m.digits(5)}",
        note="{id}: {text}",
        question="What was ticket {id} about?",
        part=lambda id: id.partition("-")[2],
    ),
    "version": Kind(
        make=lambda m: f"v{m.number(20)}.{m.number(40)}.{m.number(60)}",
        note="Released {id}: {text}",
        question="What changed in version {id}?",
    ),
    "phone": Kind(
        make=lambda m: f"+49 {m.digits(3)} {m.digits(7)}",
        note="{text} Call {id}.",
        question="Whose phone number is {id}?",
        part=lambda id: id.rpartition(" ")[2],
    ),
    "error_code": Kind(
        make=lambda m: f"E{m.digits(4)}{m.one_of(_LETTERS).upper()}",
        note="It failed with {id}: {text}",
        question="What does the error {id} mean?",
    ),
    "file": Kind(
        make=lambda m: f"{m.one_of(_NOUNS)}_{m.one_of(_NAMES)}_{m.digits(5)}.xlsx",
        note="{text} It is in {id}.",
        question="What do we keep in the file {id}?",
        part=lambda id: id.partition(".")[0],
    ),
    "email": Kind(
        make=lambda m: f"{m.one_of(_NAMES)}.{m.one_of(_NOUNS)}{m.digits(4)}@example.org",
        note="{text} Ask {id}.",
        question="What should I ask {id}?",
        part=lambda id: id.partition("@")[0],
    ),
    "commit": Kind(
        make=lambda m: f"{m.number(16**10, 16**9):x}",
        note="Commit {id}: {text}",
        question="What did commit {id} change?",
    ),
    "address": Kind(
        make=lambda m: f"10.{m.number(256)}.{m.number(256)}.{m.number(256)}",
        note="The host {id}: {text}",
        question="Which host has the address {id}?",
    ),
    "function": Kind(
        make=lambda m: f"{m.one_of(_VERBS)}{m.one_of(_NOUNS).title()}{m.digits(4)}",
        note="{id}() is for this: {text}",
        question="What is {id} for?",
    ),
    "han": Kind(
        make=lambda m: "".join(m.one_of(_HAN) for _ in range(4)),
        note="{text} ({id})",
        question="What do we know of {id}?",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifiers:
    """Notes, and per form and kind the queries that look for one."""

    notes: JudgedSet
    forms: dict[str, dict[str, list[JudgedQuery]]]


def identifiers_among_notes(data_dir: Path, n_notes: int, n_queries: int) -> Identifiers:
    """Make notes and queries, always the same.

    Args:
        data_dir: holds WordNet glosses.
        n_notes: in all.
        n_queries: of each form and kind.
    """
    rng = np.random.default_rng(0)
    texts = [passage.memory_text for passage in load_corpus(data_dir, n_notes).passages]
    n_of_kind = max(1, int(SHARE_OF_NOTES * n_notes))
    owners = rng.permutation(n_notes)[: n_of_kind * len(KINDS)].reshape(len(KINDS), n_of_kind)
    forms: dict[str, dict[str, list[JudgedQuery]]] = {"alone": {}, "question": {}, "part": {}}
    for (name, kind), rows in zip(KINDS.items(), owners, strict=True):
        identifiers = _distinct(kind, len(rows), rng)
        for row, identifier in zip(rows.tolist(), identifiers, strict=True):
            texts[row] = kind.note.format(id=identifier, text=texts[row])
        asked = list(zip(rows.tolist(), identifiers, strict=True))[:n_queries]
        forms["alone"][name] = [_query(row, id) for row, id in asked]
        forms["question"][name] = [_query(row, kind.question.format(id=id)) for row, id in asked]
        if kind.part is not None:
            forms["part"][name] = [_query(row, kind.part(id)) for row, id in asked]
    documents = [
        Document(id=str(row), text=text, source=f"notes/{row}", metadata={})
        for row, text in enumerate(texts)
    ]
    return Identifiers(notes=JudgedSet(name="notes", documents=documents, queries=[]), forms=forms)


def _distinct(kind: Kind, n: int, rng: np.random.Generator) -> list[str]:
    """So many identifiers whose parts, too, are of one note alone."""
    maker, made = _Maker(rng), dict[str, str]()
    while len(made) < n:
        identifier = kind.make(maker)
        made.setdefault(kind.part(identifier) if kind.part else identifier, identifier)
    return list(made.values())


def _query(row: int, text: str) -> JudgedQuery:
    return JudgedQuery(id=text, text=text, metadata={}, grades={str(row): 1})
