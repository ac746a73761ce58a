"""JSON that somebody else may have written: read within bounds, and only into expected types."""

from __future__ import annotations

import functools
import json
import types
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from engine.disk.durable_files import read_whole

T = TypeVar("T")

_MAX_CHARS = 500
_COUNTS_BELOW = 1 << 63
_NUMBERS_BELOW = 1e300


def read_json(path: Path, *, max_bytes: int) -> Any:  # noqa: ANN401 - any JSON value
    """The value in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger than `max_bytes`, no regular file, or no JSON.
    """
    return parse_json(read_whole(path, max_bytes=max_bytes))


def parse_json(content: bytes | str) -> Any:  # noqa: ANN401 - any JSON value
    """The value of a text. Raises `ValueError`, also for NaN, Infinity and deep nesting."""
    try:
        return json.loads(content, parse_constant=_refuse)
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc


def object_of(value: object) -> dict[str, Any]:
    """The value as a JSON object. Raises `ValueError` when it is another."""
    if not isinstance(value, dict):
        raise ValueError(f"{_shown(value)} in the place of an object")
    return value


def record_of(cls: type[T], value: object) -> T:
    """The instance of a flat dataclass that a JSON object describes.

    Counts are whole and at least 0, numbers finite, texts printable and at most 500 characters.

    Raises:
        ValueError: a field is missing, unknown, or not of its type.
    """
    fields, kinds = object_of(value), _kinds_of(cls)  # type: ignore[arg-type] # a class
    for name, given in fields.items():
        if name not in kinds:
            raise ValueError(f"{_shown(name)} is not known")
        if not _fits(given, kinds[name]):
            raise ValueError(f"'{name}' is {_shown(given)}")
    try:
        return cls(**fields)
    except TypeError as exc:
        raise ValueError(f"it is incomplete: {exc}") from exc


@functools.cache
def _kinds_of(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _fits(value: object, kind: Any) -> bool:  # noqa: ANN401 - a type, as annotations give it
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in arguments)
    if origin is dict:
        return isinstance(value, dict) and all(
            _fits(part, each)
            for pair in value.items()
            for part, each in zip(pair, arguments, strict=True)
        )
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return -_NUMBERS_BELOW < value < _NUMBERS_BELOW
    if type(value) is not kind:
        return False
    if isinstance(value, str):
        return len(value) <= _MAX_CHARS and value.isprintable()
    return not isinstance(value, int) or 0 <= value < _COUNTS_BELOW


def _shown(value: object) -> str:
    is_short = value is None or isinstance(value, bool | int | float | str)
    return f"{value!r:.80}" if is_short else type(value).__name__


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
