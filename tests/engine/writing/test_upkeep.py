"""Vectors that writes left to be made are made in the background, once, across restarts."""

from __future__ import annotations

import dataclasses
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from engine.errors import OverloadedError
from engine.index_options import IndexOptions
from engine.memory_index import MemoryIndex
from engine.model.tokeniser import TextFacts
from engine.namespace import Namespace
from engine.records import Embeddings, MemoryId
from engine.store.database import DATABASE_NAME
from engine.writing.upkeep import VectorTools
from tests.support.fakes import DIM, embedding_of
from tests.support.index_under_test import IDENTITY, add, count_words, open_index, search

PATIENCE_S = 30.0
WINDOW_WORDS = 60
FAR = "penguins eat sardines"
LONG = " ".join(["story"] * WINDOW_WORDS) + " " + FAR


class Model:
    """Windows of 60 words; knows no word that begins with `?`."""

    def __init__(self) -> None:
        self.embedded: list[str] = []
        self.failures = 0

    def read(self, texts: Sequence[str]) -> list[TextFacts]:
        return [
            TextFacts(
                n_windows=1 + (len(text.split()) - 1) // WINDOW_WORDS,
                is_known=not text.startswith("?"),
            )
            for text in texts
        ]

    def embed(self, texts: Sequence[str]) -> Embeddings:
        if self.failures:
            self.failures -= 1
            raise OverloadedError("full")
        self.embedded += texts
        windows = [
            [words[at : at + WINDOW_WORDS] for at in range(0, len(words), WINDOW_WORDS)]
            for words in (text.split() for text in texts)
        ]
        vectors = [
            [
                np.zeros(DIM, np.float32) if text.startswith("?") else embedding_of(" ".join(words))
                for words in each
            ]
            for text, each in zip(texts, windows, strict=True)
        ]
        return Embeddings(
            firsts=np.stack([each[0] for each in vectors]),
            later={at: np.stack(each[1:]) for at, each in enumerate(vectors) if len(each) > 1},
        )


def open_with(model: Model, directory: Path) -> MemoryIndex:
    (directory / "workspace").mkdir(parents=True, exist_ok=True)
    options = IndexOptions(
        data_dir=directory / "data", workspace_dir=directory / "workspace", identity=IDENTITY
    )
    return MemoryIndex(
        dataclasses.replace(options, lock_timeout_s=5.0),
        count_pieces=count_words,
        vector_tools=VectorTools(read=model.read, embed=model.embed),
    )


def until_found(index: Namespace, text: str, memory_id: MemoryId) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        hits = search(index, text, k=1, hybrid=False)
        if hits and hits[0].memory.id == memory_id and hits[0].similarity > 0.99:
            return
        threading.Event().wait(0.01)
    pytest.fail("the window was never made")


def test_what_stands_late_in_a_long_text_is_found_by_meaning(tmp_path: Path) -> None:
    model = Model()
    index = open_with(model, tmp_path)
    add(index, *(f"filler {n}" for n in range(5)))
    [memory_id] = add(index, LONG)

    until_found(index, FAR, memory_id)

    assert model.embedded == [LONG]
    index.close()


def test_windows_are_made_in_every_namespace_and_found_in_their_own_alone(tmp_path: Path) -> None:
    index = open_index(tmp_path)
    a, b = (index.namespace(name) for name in ("a", "b"))
    [in_a] = add(a, LONG)
    [in_b] = add(b, "short", LONG.replace("sardines", "herrings"))[1:]
    index.close()

    index = open_with(Model(), tmp_path)
    a, b = (index.namespace(name) for name in ("a", "b"))
    until_found(a, FAR, in_a)
    until_found(b, FAR.replace("sardines", "herrings"), in_b)
    assert {hit.memory.id for hit in search(b, FAR, k=9, hybrid=False)} <= {in_b - 1, in_b}
    assert search(index, FAR, k=1) == []
    index.close()


def test_a_store_without_windows_gets_them_at_the_next_start(tmp_path: Path) -> None:
    index = open_index(tmp_path)
    [first, second] = add(index, LONG, LONG.replace("sardines", "herrings"))
    index.close()

    model = Model()
    index = open_with(model, tmp_path)
    until_found(index, FAR, first)
    until_found(index, FAR.replace("sardines", "herrings"), second)
    before = index.get(first)
    index.close()
    assert sorted(model.embedded) == sorted([LONG, LONG.replace("sardines", "herrings")])

    index = open_with(model, tmp_path)
    until_found(index, FAR, first)
    index.close()
    assert len(model.embedded) == 2, "made again"
    assert before.timestamp == before.updated_at


def test_a_short_text_that_the_model_does_not_know_loses_its_vector_once(tmp_path: Path) -> None:
    index = open_index(tmp_path)
    add(index, "?unknown script", "known words")
    assert search(index, "?unknown script", k=1, hybrid=False)[0].similarity > 0.99
    index.close()

    model = Model()
    index = open_with(model, tmp_path)
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        if [h.memory.id for h in search(index, "?unknown script", hybrid=False)] == [2]:
            break
        threading.Event().wait(0.01)
    else:
        pytest.fail("its vector is still used")
    index.close()
    assert model.embedded == ["?unknown script"]


def test_a_store_of_a_release_without_gists_gets_them(tmp_path: Path) -> None:
    index = open_index(tmp_path)
    add(index, "?unknown script")
    index.close()
    with closing(sqlite3.connect(tmp_path / "data" / DATABASE_NAME)) as database, database:
        database.execute("DELETE FROM text_digests")

    index = open_with(Model(), tmp_path)
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        nearest = index.nearest(np.zeros(DIM, np.float32), "?unknown  script!")
        if nearest is not None and nearest.says_the_same:
            break
        threading.Event().wait(0.01)
    else:
        pytest.fail("it is not known by what it says")
    index.close()


def test_a_pool_that_is_busy_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.writing.upkeep._RETRY_S", 0.01)
    model = Model()
    model.failures = 2
    index = open_with(model, tmp_path)
    [memory_id] = add(index, LONG)

    until_found(index, FAR, memory_id)
    index.close()
