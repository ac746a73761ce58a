"""Keys as tests make them."""

from __future__ import annotations

from typing import Any

from engine.keys.key_text import digest_of, id_of, new_key_text
from engine.keys.records import Key


def new_key(**fields: Any) -> tuple[Key, str]:
    """A key that may do everything but what is given, and its text."""
    text = new_key_text()
    known: dict[str, Any] = {
        "id": id_of(text),
        "digest": digest_of(text),
        "name": "a key",
        "scopes": ("read", "write", "admin"),
        "namespaces": ("*",),
        "created_us": 1,
    }
    return Key(**{**known, **fields}), text
