"""An operation is a value: its fields are the arguments, and it says how it is run and sent.

Whoever asks has only the value; whoever answers runs it, in its lane, on what it concerns. A new
operation is one class here and nothing elsewhere but its caller.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeVar

if TYPE_CHECKING:  # whoever only asks needs no index
    from engine.keys.key_store import KeyStore
    from engine.keys.records import RingChange, RingVersion
    from engine.keys.write_rates import WriteRates
    from engine.memory_index import MemoryIndex
    from engine.namespace import Namespace
    from engine.offsite.cloud_sync import CloudSync, SyncStatus
    from engine.records import MemoryQuota

T_co = TypeVar("T_co", covariant=True)


class Lane(Enum):
    """Where an operation runs, and so what it waits for and what waits for it."""

    LOOP = "loop"
    """At once, in the midst of anything: it blocks nothing, not even for a lock."""
    READ = "read"
    """In one of few threads; when too many wait, it is refused."""
    SLOW = "slow"
    """In other threads: what takes seconds holds no read up."""
    WRITE = "write"
    """Handed at once to the engine's only writer, which has a bounded queue of its own."""
    CLOUD = "cloud"
    """In threads that may wait for a bucket that does not answer."""


class Remedy(Enum):
    """What a caller can do when nobody knows whether what was asked has happened."""

    SEND_AGAIN = "send again"
    """By its request id it happens once."""
    LIST_BACKUPS = "list backups"
    LIST_SNAPSHOTS = "list snapshots"


class Operation(ABC, Generic[T_co]):
    """Something that can be asked, answered by a `T_co`. It may raise any `EngineError`."""

    __slots__ = ()

    lane: ClassVar[Lane] = Lane.READ
    is_long: ClassVar[bool] = False
    """Whether it may take as long as a build."""
    is_sent_again: ClassVar[bool] = True
    """Whether a second process may answer when the first died over it."""
    if_unknown: ClassVar[Remedy | None] = None
    """For what changes something; None: nothing is lost with the answer."""

    @property
    def n_chars(self) -> int:
        """Of the texts in it that take the index a noticeable time."""
        return 0

    def until(self, _deadline_s: float) -> Operation[T_co]:
        """The same, to be applied before a time, in seconds since the epoch, or not at all.

        Only a `Write` heeds it.
        """
        return self


@dataclass(frozen=True, slots=True)
class Within:
    """The namespace that something concerns, and how many memories its caller may have there."""

    namespace: str
    quota: MemoryQuota | None = None

    def of(self, index: MemoryIndex) -> Namespace:
        """The memories. Raises `InvalidInputError` for what is no name."""
        return index.namespace(self.namespace, quota=self.quota)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryOperation(Operation[T_co]):
    """Concerns the memories of one namespace, which is never left unsaid."""

    within: Within

    @abstractmethod
    def run(self, index: Namespace) -> T_co | Future[T_co]:
        """The answer, or where it will be."""


class DirectoryOperation(Operation[T_co]):
    """Concerns the data directory as a whole, and what is done with it."""

    __slots__ = ()

    @abstractmethod
    def run(self, directory: Directory) -> T_co | Future[T_co]:
        """The answer, or where it will be."""


class Directory(Protocol):
    """A data directory in the process that has it open."""

    @property
    def index(self) -> MemoryIndex:
        """All memories. Raises `NotReadyError` while they are still being restored."""

    @property
    def offsite(self) -> CloudSync:
        """The copy in the cloud. Raises as `index` does, and `InvalidInputError` without one."""

    @property
    def keys(self) -> KeyStore:
        """The keys, which are there before the memories are."""

    @property
    def write_rates(self) -> WriteRates:
        """How often each of them writes."""

    def next_keys(self, version: RingVersion, wait_s: float) -> Future[RingChange | None]:
        """What has changed of them since, as soon as something has; None when nothing does."""

    def problem(self) -> Future[str | None]:
        """What keeps memories from being stored and backed up, if something does."""

    def offsite_status(self) -> Future[SyncStatus]:
        """How the copy in the cloud stands; asks the bucket, but not for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Write(MemoryOperation[T_co]):
    """Durable and visible to searches when it is answered.

    The index remembers the outcome beside the write: sent again after the process died, it is
    answered by that instead of being applied twice.
    """

    lane = Lane.WRITE
    if_unknown = Remedy.SEND_AGAIN

    request_id: str
    deadline_s: float | None = None
    """Seconds since the epoch, put in at each sending: past it nothing is applied."""

    def until(self, deadline_s: float) -> Write[T_co]:
        """The same with a deadline."""
        return dataclasses.replace(self, deadline_s=deadline_s)

    @abstractmethod
    def run(self, index: Namespace) -> Future[T_co]:
        """Hand it to the writer. Raises `OverloadedError`."""
