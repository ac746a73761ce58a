"""What a namespace may be called, and globs: a name, or the beginning of names and a `*`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

DEFAULT: Final = "default"
"""Where calls go that name no other."""
EVERY: Final = "*"
"""The glob of all of them."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


def is_name(text: str) -> bool:
    """Whether a namespace may be called that."""
    return _NAME.fullmatch(text) is not None


def is_covered(name: str, globs: Iterable[str]) -> bool:
    """Whether one of several globs is of a namespace."""
    return any(
        name.startswith(glob[:-1]) if glob.endswith(EVERY) else name == glob for glob in globs
    )
