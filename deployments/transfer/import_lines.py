"""One line of an import: what it may hold, and what is wrong with one that cannot be stored."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError
from pydantic_core import from_json

from deployments.http.redaction import redacted
from deployments.transfer.line_reader import MAX_LINE_BYTES
from engine.errors import InvalidInputError
from engine.records import FloatVector, ModelIdentity, NewMemory
from wire.answers import Redactions
from wire.requests import ImportLine
from wire.times import microseconds

_MAX_REASON_CHARS = 500
_UNIT_TOLERANCE = 1e-3
_MAX_COUNTED = 50_000
_EXACT_ENOUGH = 2e-6
"""Of the length: the model's own differ by less, and come back from an export bit for bit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodLine:
    """A line that can be stored."""

    number: int
    memory: NewMemory
    vector: FloatVector | None
    """Taken over; None to embed the text."""
    digest: bytes
    redactions: Redactions
    """What its answer says of secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLine:
    """A line that cannot."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkLine:
    """The first or the last line of an export: about the others, no memory itself."""

    number: int
    kind: Literal["header", "footer"]
    fields: dict[str, Any]


ParsedLine = GoodLine | BadLine | MarkLine


class LineParser:
    """Reads lines one after the other; a header changes how those after it are read."""

    def __init__(self, identity: ModelIdentity, *, deduplicate: bool, redact: bool) -> None:
        self._identity = identity
        self.redacts = redact
        """Whether secrets of lines that do not say themselves are replaced."""
        self._deduplicate = deduplicate
        self._takes_vectors = True
        self._copies: _Copies | None = None
        """Of the export that is being read."""

    def parse(self, number: int, line: bytes | None) -> ParsedLine | None:
        """A line's content; None for a blank one.

        Args:
            number: of the line, from 1.
            line: None for one that was too long to be kept.
        """
        if line is None:
            return BadLine(number=number, reason=f"the line is longer than {MAX_LINE_BYTES} bytes")
        line = line.strip()
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            return None
        try:
            content = from_json(line, allow_inf_nan=False, cache_strings="keys")
        except ValueError as exc:
            return BadLine(number=number, reason=f"not JSON: {exc}"[:_MAX_REASON_CHARS])
        if not isinstance(content, dict):
            return BadLine(number=number, reason="not a JSON object")
        if content.get("type") in ("header", "footer") and "text" not in content:
            return self._mark(number, content)
        try:
            return self._good(number, line, ImportLine.model_validate(content))
        except ValidationError as exc:
            return BadLine(number=number, reason=_reason(exc))
        except (ValueError, InvalidInputError) as exc:
            return BadLine(number=number, reason=str(exc))

    def _good(self, number: int, line: bytes, given: ImportLine) -> GoodLine:
        deduplicate = self._deduplicate if given.deduplicate is None else given.deduplicate
        given, redactions = redacted(given, self.redacts if given.redact is None else given.redact)
        copy = None if self._copies is None else self._copies.number(given)
        vector = None
        # An embedding of a text with secrets would be of what is not stored.
        if given.embedding is not None and self._takes_vectors and not redactions:
            vector = _vector(given.embedding, self._identity.dim)
        return GoodLine(
            number=number,
            memory=NewMemory(
                text=given.text,
                source=given.source,
                metadata=given.metadata or {},
                key=given.key,
                deduplicate=deduplicate and copy is None,
                merge_copy=copy,
                created_us=_microseconds(given.timestamp),
                updated_us=_microseconds(given.updated_at),
                own_vector=vector is not None,
            ),
            vector=vector,
            digest=hashlib.blake2b(line, digest_size=16).digest(),
            redactions=redactions,
        )

    def _mark(self, number: int, content: dict[str, Any]) -> MarkLine | BadLine:
        kind: Literal["header", "footer"] = content["type"]
        if kind == "header":
            if content.get("format") != 1:
                return BadLine(number=number, reason="an export of a format newer than this one")
            own = self._identity
            self._copies = _Copies()
            facts = {
                "model": own.name,
                "dimension": own.dim,
                "precision": own.precision,
                "fingerprint": own.fingerprint,
            }
            # Vectors of another model would be compared with ours: its texts are embedded anew.
            self._takes_vectors = all(
                content.get(name, value) == value for name, value in facts.items()
            )
        else:
            self._copies = None
        return MarkLine(number=number, kind=kind, fields=content)


class _Copies:
    """Counts the lines of an export that are alike; those of one moment follow each other."""

    def __init__(self) -> None:
        self._moment: datetime | None = None
        self._counts: Counter[bytes] = Counter()

    def number(self, line: ImportLine) -> int | None:
        """The how manyth of its text, source and time a line is; None for one without a time."""
        if line.timestamp is None:
            return None
        if line.timestamp != self._moment or len(self._counts) >= _MAX_COUNTED:
            self._moment = line.timestamp
            self._counts.clear()
        content = f"{len(line.source)} {line.source}{line.text}".encode()
        digest = hashlib.blake2b(content, digest_size=16).digest()
        self._counts[digest] += 1
        return self._counts[digest]


def _microseconds(instant: datetime | None) -> int | None:
    return None if instant is None else microseconds(instant)


def _vector(embedding: str | list[float], dim: int) -> FloatVector:
    """A line's own embedding, shape (dim,).

    Raises:
        ValueError: it cannot be one.
    """
    if isinstance(embedding, str):
        try:
            content = base64.b64decode(embedding, validate=True)
        except binascii.Error as exc:
            raise ValueError("embedding: not valid base64") from exc
        if len(content) != 4 * dim:
            raise ValueError(f"embedding: {len(content)} bytes, expected {4 * dim} (float32)")
        numbers = np.frombuffer(content, "<f4")
    else:
        if len(embedding) != dim:
            raise ValueError(f"embedding: {len(embedding)} numbers, expected {dim}")
        numbers = np.asarray(embedding, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        length = float(np.linalg.norm(numbers.astype(np.float64)))
    if not abs(length - 1) <= _UNIT_TOLERANCE:
        raise ValueError(f"embedding: its length is {length:.4g}, expected 1")
    if abs(length - 1) > _EXACT_ENOUGH:
        numbers = numbers / length
    vector: FloatVector = numbers.astype(np.float32, copy=False)
    return vector


def _reason(exc: ValidationError) -> str:
    problems = (
        f"{'.'.join(map(str, error['loc'])) or 'line'}: {error['msg']}" for error in exc.errors()
    )
    return "; ".join(problems)[:_MAX_REASON_CHARS]
