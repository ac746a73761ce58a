"""From what a request asks for to the engine's filter."""

from __future__ import annotations

from dataclasses import fields

from engine.records import MemoryFilter
from wire.requests import DeleteBySourceRequest, Filters

_SAME = [field.name for field in fields(MemoryFilter) if not field.name.endswith("_us")]
"""Conditions that the request and the engine call by the same name."""


def where_of(asked: Filters | DeleteBySourceRequest) -> MemoryFilter:
    """The filter of a request; an empty one lets every memory pass."""
    since_us, until_us = asked.between_us() if isinstance(asked, Filters) else (None, None)
    given = {name: getattr(asked, name, None) or None for name in _SAME}
    return MemoryFilter(**given, since_us=since_us, until_us=until_us)
