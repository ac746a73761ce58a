"""Data directories of the original service: taken over whole, or refused and left as they are."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from engine.errors import LegacyImportError, StorageError
from engine.legacy.directory import LegacyData, find_legacy, fingerprint, read_legacy, set_aside
from engine.records import FloatMatrix

DIM = 8


def unit_vectors(n: int, dim: int = DIM) -> FloatMatrix:
    vectors = np.random.default_rng(n).standard_normal((n, dim)).astype(np.float32)
    normalised: FloatMatrix = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normalised


def row(n: int, **changes: Any) -> dict[str, Any]:
    timestamp = f"2025-01-0{n + 1}T12:00:00.000001+00:00"
    return {"id": n, "text": f"text {n}", "source": f"s{n}.md", "timestamp": timestamp, **changes}


def write_index(data_dir: Path, vectors: FloatMatrix, index: Any = None) -> None:
    index = faiss.IndexFlatIP(vectors.shape[1]) if index is None else index
    index.add(vectors)
    faiss.write_index(index, str(data_dir / "index.faiss"))


def write_rows(data_dir: Path, rows: object) -> None:
    (data_dir / "metadata.json").write_text(json.dumps(rows, indent=2))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    write_index(tmp_path, unit_vectors(3))
    write_rows(tmp_path, [row(0), row(1, topic="tides", nested={"a": [1]}), row(2)])
    (tmp_path / "config.json").write_text(
        json.dumps({"model": "all-MiniLM-L6-v2", "dimension": DIM, "created_at": "2025-01-01"})
    )
    return tmp_path


def contents(data_dir: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(data_dir)): path.read_bytes()
        for path in data_dir.rglob("*")
        if path.is_file()
    }


def read(data_dir: Path) -> LegacyData:
    return read_legacy(data_dir, dim=DIM)


def microseconds(*when: int) -> int:
    return int(datetime(*when, tzinfo=timezone.utc).timestamp()) * 1_000_000  # type: ignore[misc, arg-type]


def test_a_directory_is_read_whole_and_left_as_it_is(data_dir: Path) -> None:
    before = contents(data_dir)
    found = read(data_dir)
    assert [(m.id, m.text, m.source) for m in found.memories] == [
        (n, f"text {n}", f"s{n}.md") for n in range(3)
    ]
    assert found.memories[0].timestamp_us == microseconds(2025, 1, 1, 12) + 1
    assert [m.metadata for m in found.memories] == [
        {},
        {"topic": "tides", "nested": {"a": [1]}},
        {},
    ]
    assert found.vectors.dtype == np.float32
    assert np.array_equal(found.vectors, unit_vectors(3))
    assert found.model_name == "all-MiniLM-L6-v2"
    assert found.fingerprint == hashlib.sha256(before["metadata.json"]).hexdigest()
    assert contents(data_dir) == before


def test_an_empty_store_is_read_as_empty(tmp_path: Path) -> None:
    write_index(tmp_path, unit_vectors(0))
    write_rows(tmp_path, [])
    found = read(tmp_path)
    assert (found.memories, found.vectors.shape, found.model_name) == ([], (0, DIM), None)


def test_ids_keep_their_gaps_and_order(data_dir: Path) -> None:
    write_rows(data_dir, [row(0, id=2**53 - 1), row(1, id=0), row(2, id=41)])
    assert [m.id for m in read(data_dir).memories] == [2**53 - 1, 0, 41]


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        ("2025-01-02T03:04:05", microseconds(2025, 1, 2, 3, 4, 5)),
        ("2025-01-02 03:04:05Z", microseconds(2025, 1, 2, 3, 4, 5)),
        ("2025-01-02T03:04:05.5+02:00", microseconds(2025, 1, 2, 1, 4, 5) + 500_000),
        ("2025-01-02T03:04:05.123456789-0130", microseconds(2025, 1, 2, 4, 34, 5) + 123_456),
        ("2025-01-02T03:04", microseconds(2025, 1, 2, 3, 4)),
        ("2025-01-02", microseconds(2025, 1, 2)),
        ("1969-12-31T23:59:59.999999Z", -1),
    ],
)
def test_timestamps_without_a_zone_are_utc(data_dir: Path, timestamp: str, expected: int) -> None:
    write_rows(data_dir, [row(0, timestamp=timestamp), row(1), row(2)])
    assert read(data_dir).memories[0].timestamp_us == expected


def test_a_missing_timestamp_is_the_time_the_file_was_written(data_dir: Path) -> None:
    rows = [row(0, timestamp=None), row(1), row(2)]
    del rows[1]["timestamp"]
    write_rows(data_dir, rows)
    os.utime(data_dir / "metadata.json", ns=(0, 1_700_000_000_123_456_789))
    assert [m.timestamp_us for m in read(data_dir).memories[:2]] == [1_700_000_000_123_456] * 2


def test_vectors_a_little_off_are_normalised_and_exact_ones_untouched(data_dir: Path) -> None:
    vectors = unit_vectors(3)
    write_index(data_dir, vectors * np.array([[1], [1.004], [0.996]], np.float32))
    found = read(data_dir).vectors
    assert np.array_equal(found[0], vectors[0])
    assert np.allclose(found, vectors, atol=1e-6)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


REFUSED_ROWS: list[tuple[Any, str]] = [
    ("text", "row 1 is str, expected an object"),
    (row(1, text=5), "row 1: 'text' is int, expected a string"),
    (row(1, text=None), "row 1: 'text' is NoneType, expected a string"),
    (row(1, source=["a"]), "row 1: 'source' is ['a'], expected a string"),
    ({"id": 1, "text": "x"}, "row 1: 'source' is missing"),
    (row(1, id="1"), "row 1: 'id' is '1', expected an integer"),
    (row(1, id=True), "row 1: 'id' is True"),
    (row(1, id=1.0), "row 1: 'id' is 1.0"),
    (row(1, id=-1), "row 1: 'id' is -1"),
    (row(1, id=2**53), f"row 1: 'id' is {2**53}"),
    (row(1, id=0), "row 1: id 0 is that of row 0 too"),
    (row(1, timestamp="yesterday"), "row 1: 'timestamp' is 'yesterday', expected an ISO-8601"),
    (row(1, timestamp=17), "row 1: 'timestamp' is 17"),
    (row(1, timestamp="2025-02-30"), "row 1: 'timestamp'"),
    (row(1, timestamp="0001-01-01T00:00:00+10:00"), "row 1: 'timestamp'"),
    (row(1, text="\ud800"), "row 1 holds a lone surrogate"),
    (row(1, note={"a": "\udfff"}), "row 1 holds a lone surrogate"),
    (row(1, score=float("nan")), "row 1 holds NaN"),
    (row(1, score=[float("-inf")]), "row 1 holds NaN or Infinity"),
]


def assert_refused(data_dir: Path, file: str, problem: str) -> None:
    before = contents(data_dir)
    assert find_legacy(data_dir)
    with pytest.raises(LegacyImportError) as refusal:
        read(data_dir)
    assert str(data_dir / file) in str(refusal.value)
    assert problem in str(refusal.value)
    assert "Nothing was imported" in str(refusal.value)
    assert contents(data_dir) == before


@pytest.mark.parametrize(("bad", "problem"), REFUSED_ROWS)
def test_a_row_that_is_no_memory_refuses_everything(
    data_dir: Path, bad: object, problem: str
) -> None:
    write_rows(data_dir, [row(0), bad, row(2)])
    assert_refused(data_dir, "metadata.json", problem)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no whole JSON"),
        (b"{}", "holds dict, expected an array"),
        (b"\xff\xfe", "no whole JSON in UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", ""),
    ],
)
def test_metadata_that_is_no_array_is_refused(data_dir: Path, content: bytes, problem: str) -> None:
    (data_dir / "metadata.json").write_bytes(content)
    assert_refused(data_dir, "metadata.json", problem)


def test_truncated_files_are_refused_at_every_length(data_dir: Path) -> None:
    for name in ("metadata.json", "index.faiss", "config.json"):
        whole = (data_dir / name).read_bytes()
        for length in range(len(whole)):
            (data_dir / name).write_bytes(whole[:length])
            with pytest.raises(LegacyImportError, match=name):
                read(data_dir)
        (data_dir / name).write_bytes(whole)
    assert len(read(data_dir).memories) == 3


def test_a_damaged_index_header_is_refused_or_harmless(data_dir: Path) -> None:
    index = data_dir / "index.faiss"
    whole = index.read_bytes()
    expected = read(data_dir).vectors
    n_header = len(whole) - expected.nbytes
    outcomes = []
    for position in range(n_header):
        for flip in (0x01, 0x80, 0xFF):
            index.write_bytes(
                whole[:position] + bytes([whole[position] ^ flip]) + whole[position + 1 :]
            )
            try:
                assert np.array_equal(read(data_dir).vectors, expected)
                outcomes.append("harmless")
            except LegacyImportError:
                outcomes.append("refused")
    assert outcomes.count("refused") > n_header


@pytest.mark.parametrize("n_vectors", [2, 4])
def test_counts_that_differ_are_refused(data_dir: Path, n_vectors: int) -> None:
    write_index(data_dir, unit_vectors(n_vectors))
    assert_refused(
        data_dir,
        "index.faiss",
        f"holds {n_vectors} vectors, but metadata.json has 3 rows",
    )


def spoil(value: float) -> FloatMatrix:
    vectors = unit_vectors(3)
    vectors[1] = value
    return vectors


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda d: write_index(d, spoil(np.nan)), "row 1: the vector's length is nan"),
        (lambda d: write_index(d, spoil(np.inf)), "row 1: the vector's length is inf"),
        (lambda d: write_index(d, spoil(0)), "row 1: the vector's length is 0, expected 1"),
        (lambda d: write_index(d, spoil(2)), "row 1: the vector's length is 5.657"),
        (lambda d: write_index(d, unit_vectors(3, 16)), "vectors of 16 dimensions"),
        (lambda d: write_index(d, unit_vectors(3), faiss.IndexFlatL2(DIM)), "IxF2"),
        (
            lambda d: write_index(
                d, unit_vectors(3), faiss.IndexHNSWFlat(DIM, 4, faiss.METRIC_INNER_PRODUCT)
            ),
            "expected a flat inner-product index",
        ),
        (lambda d: (d / "index.faiss").unlink(), "is missing"),
    ],
)
def test_an_index_that_cannot_be_taken_over_is_refused(
    data_dir: Path, make: Callable[[Path], None], problem: str
) -> None:
    make(data_dir)
    assert_refused(data_dir, "index.faiss", problem)


@pytest.mark.parametrize(
    ("config", "problem"),
    [('{"model": "a', "no whole JSON"), ("[]", "expected an object"), ('{"model": 3}', "'model'")],
)
def test_an_odd_config_is_refused(data_dir: Path, config: str, problem: str) -> None:
    (data_dir / "config.json").write_text(config)
    assert_refused(data_dir, "config.json", problem)


def test_vectors_without_their_texts_are_found_and_refused(data_dir: Path) -> None:
    (data_dir / "metadata.json").unlink()
    assert_refused(data_dir, "metadata.json", "is missing")


def test_the_message_does_not_show_a_memory_text(data_dir: Path) -> None:
    write_rows(data_dir, [row(0), row(1, text=["private words"]), row(2)])
    with pytest.raises(LegacyImportError) as refusal:
        read(data_dir)
    assert "private" not in str(refusal.value)


def test_our_own_files_are_not_taken_for_the_original_ones(tmp_path: Path) -> None:
    assert not find_legacy(tmp_path)
    (tmp_path / "memories.db").touch()
    (tmp_path / "index.faiss").touch()
    (tmp_path / "config.json").touch()
    assert not find_legacy(tmp_path)


def test_files_set_aside_are_whole_and_no_longer_found(data_dir: Path) -> None:
    before = contents(data_dir)
    aside = set_aside(data_dir)
    assert aside == data_dir / "legacy_1"
    assert contents(data_dir) == {f"legacy_1/{name}": content for name, content in before.items()}
    assert not find_legacy(data_dir)
    assert len(read(aside).memories) == 3


def test_a_second_directory_set_aside_does_not_touch_the_first(data_dir: Path) -> None:
    before = contents(data_dir)
    set_aside(data_dir)
    for name, content in before.items():
        (data_dir / name).write_bytes(content)
    assert set_aside(data_dir) == data_dir / "legacy_2"
    assert len(contents(data_dir)) == 6


@pytest.mark.parametrize("n_renames", range(4))
def test_setting_aside_goes_on_after_dying_at_any_rename(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, n_renames: int
) -> None:
    before = contents(data_dir)
    print_before = fingerprint(data_dir)
    rename, calls = Path.rename, list[str]()

    def dying(self: Path, target: Path) -> Path:
        if len(calls) == n_renames:
            raise OSError(5, "died")
        calls.append(self.name)
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying)
        if n_renames < 3:
            with pytest.raises(StorageError):
                set_aside(data_dir)
            assert find_legacy(data_dir)
            assert fingerprint(data_dir) == print_before
        else:
            set_aside(data_dir)
    (data_dir / "memories.db").write_bytes(b"ours")
    ours = not (data_dir / "index.faiss").exists()
    if ours:
        (data_dir / "index.faiss").write_bytes(b"our cache")
    if find_legacy(data_dir):
        set_aside(data_dir)
    assert {p.name: p.read_bytes() for p in (data_dir / "legacy_1").iterdir()} == before
    assert not find_legacy(data_dir)
    if ours:
        assert (data_dir / "index.faiss").read_bytes() == b"our cache"
