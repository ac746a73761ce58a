"""Texts without their secrets, where a request asks for that (`redact`)."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from pydantic import BaseModel

from engine.errors import InvalidInputError
from engine.words.redaction import redact
from wire import limits
from wire.answers import Redactions
from wire.requests import AddBatchItem, AddBatchRequest

ModelT = TypeVar("ModelT", bound=BaseModel)


def redacted(given: ModelT, wanted: bool | None) -> tuple[ModelT, Redactions]:
    """A body, an item or a line whose `text` has no secrets, and what its answer says of them.

    Raises:
        InvalidInputError: what stands for the secrets makes the text too long.
    """
    text: str | None = getattr(given, "text", None)
    if not wanted or text is None:
        return given, {}
    found = redact(text)
    if not found.counts:
        return given, {}
    if len(found.text) > limits.TEXT_CHARS:
        raise InvalidInputError(
            f"text: without its secrets it has {len(found.text)} characters, "
            f"at most {limits.TEXT_CHARS} are allowed"
        )
    return given.model_copy(update={"text": found.text}), {"redacted": dict(found.counts)}


async def redacted_items(body: AddBatchRequest) -> tuple[list[AddBatchItem], list[Redactions]]:
    """Likewise each memory of a batch; other requests get their turn in between."""
    items, redactions = [], []
    for item in body.memories:
        wanted = body.redact if item.redact is None else item.redact
        one, redaction = redacted(item, wanted)
        items.append(one)
        redactions.append(redaction)
        if wanted:
            await asyncio.sleep(0)
    return items, redactions
