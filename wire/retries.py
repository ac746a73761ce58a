"""Which answers are worth asking again for. Constants alone: a command line starts with them."""

from __future__ import annotations

from typing import Final

PASSING: Final = frozenset({429, 502, 503, 504})
"""Overloaded, starting, or gone for a moment: soon the same request may succeed.

A write that is sent again under its `Idempotency-Key` happens once, whatever became of the first.
"""

PASSING_IN_TIME: Final = PASSING | {507}
"""A full disk too, once somebody makes room: for what nobody waits for meanwhile."""
