"""How files become objects of the bucket: here, as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from engine.errors import RemoteSealedError

PLAIN_MANIFEST = "manifest.json"
SEALED_MANIFEST = "manifest.sealed"


class Seal(Protocol):
    """Turns files into objects and back; `key` is an object's place in the bucket."""

    manifest_name: str
    """What manifests are called; tells encrypted ones from others in a listing."""

    def object_key(self, sha256: str) -> str:
        """Where a file with this content is."""

    def object_bytes(self, n_bytes: int) -> int:
        """How large the object of a file is."""

    def token(self, name: str) -> str:
        """A backup's name as part of a key."""

    def name_of(self, token: str) -> str:
        """The name in a key. Raises `RemoteSealedError` with another passphrase."""

    def seal_file(self, path: Path, key: str, scratch: Path) -> Path:
        """A file that holds the object: `scratch`, or `path` itself where nothing changes."""

    def open_file(self, path: Path, key: str) -> None:
        """Turn a file that holds an object into the file it was made of."""

    def seal(self, content: bytes, key: str) -> bytes:
        """The object of some bytes."""

    def open(self, content: bytes, key: str) -> bytes:
        """The bytes of an object."""


class Unsealed:
    """Nothing is encrypted."""

    manifest_name = PLAIN_MANIFEST

    def object_key(self, sha256: str) -> str:
        """The hash is the name."""
        return f"objects/{sha256}"

    def object_bytes(self, n_bytes: int) -> int:
        """The same."""
        return n_bytes

    def token(self, name: str) -> str:
        """The name itself."""
        return name

    def name_of(self, token: str) -> str:
        """The name itself."""
        return token

    def seal_file(self, path: Path, key: str, scratch: Path) -> Path:
        """The file itself."""
        return path

    def open_file(self, path: Path, key: str) -> None:
        """Nothing to do."""

    def seal(self, content: bytes, key: str) -> bytes:
        """The same."""
        return content

    def open(self, content: bytes, key: str) -> bytes:
        """The same, unless it is encrypted."""
        if key.endswith(SEALED_MANIFEST):
            raise RemoteSealedError(
                "the snapshots are encrypted: set CLOUD_SYNC_PASSPHRASE or "
                "CLOUD_SYNC_PASSPHRASE_FILE to what they were encrypted with"
            )
        return content
