"""The keys as whoever checks callers holds them: all in memory, followed change by change."""

from __future__ import annotations

import hmac
import secrets
from typing import Final

from engine.errors import NotReadyError
from engine.keys.key_text import PREFIX, digest_of, id_of
from engine.keys.records import ROOT_ID, SCOPES, Key, RingChange, RingVersion
from engine.namespaces import EVERY

_DIGEST_BYTES: Final = 32


def root_key(text: str) -> Key:
    """The key that may do everything; without a text, one that nobody can present."""
    return Key(
        id=ROOT_ID,
        digest=digest_of(text) if text else secrets.token_bytes(_DIGEST_BYTES),
        name=ROOT_ID,
        scopes=SCOPES,
        namespaces=(EVERY,),
        created_us=0,
    )


class KeyRing:
    """All keys by id, and the root key. Of one event loop."""

    def __init__(self, root: Key) -> None:
        """Know the root key alone; no other is let in before the first `follow`."""
        self.root = root
        self.version = RingVersion()
        self._keys: dict[str, Key] = {}
        self._used_us: dict[str, int] = {}

    def follow(self, change: RingChange) -> None:
        """Become the state that a change leads to."""
        if change.is_whole:
            self._keys.clear()
        self._keys.update((key.id, key) for key in change.keys)
        for key_id in change.revoked:
            self._keys.pop(key_id, None)
        self.version = change.version

    def key_of(self, text: str, now_us: int) -> Key | None:
        """The key that a caller presents; None when it is none, revoked or expired.

        Raises:
            NotReadyError: it looks like one of ours, and those are not known yet.
        """
        key = self._keys.get(id_of(text), self.root)
        if not hmac.compare_digest(digest_of(text), key.digest):
            if self.version == RingVersion() and text.startswith(PREFIX):
                raise NotReadyError("the keys are not known yet; the service is starting")
            return None
        if key.has_expired(now_us):
            return None
        self._used_us[key.id] = now_us
        return key

    def current(self, key: Key, now_us: int) -> Key | None:
        """What a key that was presented before is by now; None when it is revoked or expired."""
        known = self.root if key.id == ROOT_ID else self._keys.get(key.id)
        return None if known is None or known.has_expired(now_us) else known

    def take_uses(self) -> dict[str, int]:
        """When each key that was used since the last call was used last, by id."""
        used_us, self._used_us = self._used_us, {}
        used_us.pop(ROOT_ID, None)
        return used_us

    def put_back(self, used_us: dict[str, int]) -> None:
        """Take uses again that could not be reported."""
        self._used_us = {**used_us, **self._used_us}
