"""What a JSON file of somebody else may not make us believe."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from engine.disk.durable_files import read_whole
from engine.store.foreign_json import parse_json, record_of


@dataclass(frozen=True, kw_only=True)
class Record:
    kind: Literal["a", "b"]
    count: int
    share: float = 0.0
    name: str | None = None
    model: dict[str, str | int]


GOOD: dict[str, Any] = {"kind": "a", "count": 3, "share": 1, "name": "né", "model": {"dim": 3}}


def test_a_record_is_read_as_it_was_written() -> None:
    assert record_of(Record, GOOD) == Record(**GOOD)
    assert record_of(Record, {"kind": "b", "count": 0, "model": {}}).name is None


ODD: dict[str, list[object]] = {
    "kind": ["c", None, ["a"], 1],
    "count": [-1, 1 << 63, 10**400, 1.0, True, "3", None, float("inf")],
    "share": [float("nan"), float("inf"), 10**400, True, "1", None],
    "name": [1, "a" * 501, "line\nbreak", "\ud800", "\x1b[31m", ["a"]],
    "model": [None, [], "x", {"a": {}}, {"a": None}, {"a\n": 1}],
    "unknown": [1],
}


@pytest.mark.parametrize("odd", [{name: value} for name in ODD for value in ODD[name]])
def test_what_does_not_fit_is_refused_in_words(odd: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        record_of(Record, {**GOOD, **odd})
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize("value", [None, [], "x", 3, {}, {"kind": "a", "model": {}}])
def test_what_is_no_whole_object_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"in the place of an object|incomplete"):
        record_of(Record, value)


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "[" * 100_000, "", "{", b"\xff", "9" * 5000])
def test_what_is_no_json_is_a_value_error(text: str | bytes) -> None:
    if text == "9" * 5000:
        pytest.importorskip("tomllib")  # Python 3.10 reads a number of any length
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_only_a_regular_file_of_a_bounded_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_whole(path, max_bytes=5) == b"12345"
    with pytest.raises(ValueError, match="larger than 4"):
        read_whole(path, max_bytes=4)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for odd in ("fifo", "zero"):
        with pytest.raises(ValueError, match="no regular file"):
            read_whole(tmp_path / odd, max_bytes=5)
    with pytest.raises(OSError, match=r"."):
        read_whole(tmp_path, max_bytes=5)
