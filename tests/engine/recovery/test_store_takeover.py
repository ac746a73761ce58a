"""Stores that come from elsewhere: the original service, or another model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import faiss
import pytest

from engine.disk.data_lock import DataLock
from engine.errors import LegacyImportError, ModelMismatchError
from engine.memory_index import MemoryIndex
from engine.records import FloatMatrix, MemoryId, MemoryPatch
from engine.recovery.reembed import UNFINISHED_NAME, reembed
from engine.store.database import DATABASE_NAME, recorded_precision
from tests.support.fakes import DIM
from tests.support.index_under_test import (
    IDENTITY,
    add,
    embeddings_of,
    open_index,
    search,
    texts_of,
)

TEXTS = ["red green blue", "one two three"]


def write_original(directory: Path, *, rows: list[dict[str, object]] | None = None) -> Path:
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    index = faiss.IndexFlatIP(DIM)
    index.add(embeddings_of(TEXTS))
    faiss.write_index(index, str(data / "index.faiss"))
    known = [
        {"id": n * 5, "text": text, "source": "s", "timestamp": "2025-01-02T03:04:05", "tag": "x"}
        for n, text in enumerate(TEXTS)
    ]
    (data / "metadata.json").write_text(json.dumps(rows if rows is not None else known))
    (data / "config.json").write_text("{}")
    return data


def test_an_original_directory_is_taken_over_once(tmp_path: Path) -> None:
    data = write_original(tmp_path)
    original = {path.name: path.read_bytes() for path in data.iterdir()}
    index = open_index(tmp_path)
    assert index.count() == 2
    memory = index.get(MemoryId(5))
    assert (memory.text, memory.source, memory.metadata) == (TEXTS[1], "s", {"tag": "x"})
    assert memory.timestamp == "2025-01-02T03:04:05.000000+00:00"
    assert texts_of(search(index, TEXTS[0], k=1)) == [TEXTS[0]]
    assert add(index, "new") == [6]
    index.close()
    assert {p.name: p.read_bytes() for p in (data / "legacy_1").iterdir()} == original
    index = open_index(tmp_path)
    assert index.count() == 3
    index.close()


def test_a_kill_between_import_and_moving_the_files_imports_nothing_twice(tmp_path: Path) -> None:
    data = write_original(tmp_path)
    open_index(tmp_path).close()
    for path in (data / "legacy_1").iterdir():
        path.rename(data / path.name)
    index = open_index(tmp_path)
    assert index.count() == 2
    assert not (data / "metadata.json").exists()
    index.close()


def test_a_bad_row_refuses_all_and_names_file_and_row(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"id": 0, "text": "fine", "source": "s", "timestamp": "2025-01-02T03:04:05"},
        {"id": 1, "text": 7, "source": "s", "timestamp": "2025-01-02T03:04:05"},
    ]
    data = write_original(tmp_path, rows=rows)
    with pytest.raises(LegacyImportError, match=r"metadata\.json.*row 1"):
        open_index(tmp_path)
    assert (data / "metadata.json").exists()
    write_original(tmp_path)  # mended
    index = open_index(tmp_path)
    assert index.count() == 2
    index.close()


def test_an_original_directory_is_not_mixed_into_other_memories_or_another_precision(
    tmp_path: Path,
) -> None:
    write_original(tmp_path)
    with pytest.raises(LegacyImportError, match="MODEL_PRECISION=fp32"):
        open_index(tmp_path, identity=dataclasses.replace(IDENTITY, precision="int8"))
    other = tmp_path / "other"
    index = open_index(other)
    add(index, "a")
    index.close()
    write_original(other)
    with pytest.raises(LegacyImportError, match="already holds"):
        open_index(other)


def test_re_embedding_replaces_vectors_and_identity_together(tmp_path: Path) -> None:
    index: MemoryIndex = open_index(tmp_path)
    add(index, *TEXTS)
    index.close()
    other = dataclasses.replace(IDENTITY, precision="int8")
    database = tmp_path / "data" / DATABASE_NAME
    with DataLock(tmp_path / "data", timeout_s=0):
        interrupted = reembed(database, other, embeddings_of)
        next(interrupted)
        interrupted.close()
        assert recorded_precision(database) == "fp32"
        steps = list(reembed(database, other, lambda texts: embeddings_of(texts)[:, ::-1]))
    assert steps == [(0, 2), (2, 2)]
    with pytest.raises(ModelMismatchError):
        open_index(tmp_path)
    index = open_index(tmp_path, identity=other)
    assert index.nearest(embeddings_of([TEXTS[1]])[0, ::-1].copy(), TEXTS[1]) is not None
    nearest = index.nearest(embeddings_of([TEXTS[1]])[0, ::-1].copy(), TEXTS[1])
    assert nearest is not None
    assert nearest.memory.text == TEXTS[1]
    assert nearest.similarity == pytest.approx(1.0)
    index.close()


def test_an_interrupted_re_embedding_goes_on_where_it_was(tmp_path: Path) -> None:
    index = open_index(tmp_path)
    add(index, *(f"text {n}" for n in range(1_100)))
    index.close()
    other = dataclasses.replace(IDENTITY, precision="int8")
    database = tmp_path / "data" / DATABASE_NAME
    embedded: list[str] = []

    def embed(texts: Sequence[str]) -> FloatMatrix:
        embedded.extend(texts)
        return embeddings_of(texts)[:, ::-1]

    interrupted = reembed(database, other, embed)
    assert [next(interrupted), next(interrupted)] == [(0, 1_100), (512, 1_100)]
    interrupted.close()  # as a kill would: what it has committed is on disk
    index = open_index(tmp_path)  # meanwhile the store is as it was, and changes
    index.update(
        MemoryId(1), MemoryPatch(text="other words"), embeddings_of(["other words"]),
        request_id="u",
    ).result()  # fmt: skip
    index.delete([MemoryId(2)], request_id="d").result()
    index.close()
    embedded.clear()
    first, *_ = reembed(database, other, embed)
    assert first == (510, 1_099)
    assert embedded == ["other words", *(f"text {n}" for n in range(512, 1_100))]
    index = open_index(tmp_path, identity=other)
    nearest = index.nearest(embeddings_of(["other words"])[0, ::-1].copy(), "other words")
    assert nearest is not None
    assert nearest.memory.text == "other words"
    assert index.verify_backup(index.backup("after").name).problems == []
    index.close()
    assert not (database.parent / UNFINISHED_NAME).exists()


@pytest.mark.parametrize("damage", ["truncated", "rotten", "another model"])
def test_an_unusable_unfinished_re_embedding_is_made_anew(tmp_path: Path, damage: str) -> None:
    index = open_index(tmp_path)
    add(index, *(f"text {n}" for n in range(600)))
    index.close()
    other = dataclasses.replace(IDENTITY, precision="int8")
    third = dataclasses.replace(other, fingerprint="e" * 64)
    database = tmp_path / "data" / DATABASE_NAME
    interrupted = reembed(database, third if damage == "another model" else other, embeddings_of)
    assert [next(interrupted), next(interrupted)] == [(0, 600), (512, 600)]
    interrupted.close()
    unfinished = database.with_name(UNFINISHED_NAME)
    content = bytearray(unfinished.read_bytes())
    if damage == "truncated":
        unfinished.write_bytes(content[: len(content) // 2])
    elif damage == "rotten":
        content[-100] ^= 1  # in a vector
        unfinished.write_bytes(content)
    first, *_ = reembed(database, other, embeddings_of)
    assert first == (0, 600)
    open_index(tmp_path, identity=other).close()


def test_a_backup_after_re_embedding_holds_the_new_vectors(tmp_path: Path) -> None:
    index = open_index(tmp_path, max_backups=0)
    add(index, *TEXTS)
    index.backup("before")
    index.close()
    other = dataclasses.replace(IDENTITY, precision="int8")
    list(reembed(tmp_path / "data" / DATABASE_NAME, other, lambda t: embeddings_of(t)[:, ::-1]))
    index = open_index(tmp_path, identity=other, max_backups=0)
    add(index, "later")
    index.restore(index.backup("after").name).result()
    nearest = index.nearest(embeddings_of([TEXTS[1]])[0, ::-1].copy(), TEXTS[1])
    assert nearest is not None
    assert nearest.similarity == pytest.approx(1.0)
    index.close()
