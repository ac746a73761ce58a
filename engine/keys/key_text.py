"""The text of a key: `fm_<id>_<secret>`, an id of 8 random bytes and a secret of 32, both in hex.

What is stored is SHA-256 of it. A slow hash with a salt is for passwords, which can be guessed:
nobody guesses 256 random bits, and every request would pay for it. The id makes the look-up one
access of a dictionary, so that one comparison in constant time is enough however many keys there
are; it is no secret.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

PREFIX: Final = "fm_"
_ID_BYTES = 8
_SECRET_BYTES = 32
_ID = slice(len(PREFIX), len(PREFIX) + 2 * _ID_BYTES)


def new_key_text() -> str:
    """The text of a new key; it is to be shown once and kept nowhere."""
    return f"{PREFIX}{secrets.token_hex(_ID_BYTES)}_{secrets.token_hex(_SECRET_BYTES)}"


def id_of(text: str) -> str:
    """The id in the text of a key; of another text, something that is no id of ours."""
    return text[_ID] if text.startswith(PREFIX) else ""


def digest_of(text: str) -> bytes:
    """What is stored of a key's text; surrogates are bytes that are no UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
