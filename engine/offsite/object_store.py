"""What the offsite copy needs of an object store. S3 is one; see `deployments.index.s3_store`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One object of a listing."""

    key: str
    n_bytes: int
    modified_s: float
    """When it was last written, by the store's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectListing:
    """Every object under a prefix, and the store's own time when it said so."""

    objects: Sequence[StoredObject]
    now_s: float


class ObjectStore(Protocol):
    """Keys are relative to the store's own prefix. Every method may be repeated.

    All raise `RemoteError` when the store does not answer or refuses; none waits for ever.
    A listing shows every write that was acknowledged before it began.
    """

    @property
    def location(self) -> str:
        """Where it is, for messages: `s3://bucket/prefix/`."""

    def list(self, prefix: str) -> ObjectListing:
        """Every object whose key starts with `prefix`, however many there are, by key."""

    def put(self, key: str, content: bytes) -> None:
        """Write an object whole; it is there when this returns."""

    def put_file(self, key: str, path: Path) -> None:
        """Write a file of any size as an object; it is there when this returns."""

    def get(self, key: str, *, max_bytes: int) -> bytes:
        """Read an object. Raises `RemoteDamagedError` when there is none, or it is larger."""

    def get_file(self, key: str, path: Path, *, max_bytes: int) -> None:
        """Read an object into a file. Raises `RemoteDamagedError` as `get` does."""

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are gone already are no error."""

    def abort_uploads(self, before_s: float) -> None:
        """Forget uploads in parts that were begun before a time and never ended."""
