"""Operations on namespaces as wholes, and on what goes from one into another."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from engine.operations.operation import Directory, DirectoryOperation, Lane, Remedy, Within
from engine.records import MemoryId, MoveOutcome, NamespaceSummary


@dataclass(frozen=True, slots=True)
class ListNamespaces(DirectoryOperation[list[NamespaceSummary]]):
    """Every namespace that was written to, by name."""

    def run(self, directory: Directory) -> list[NamespaceSummary]:
        return directory.index.namespaces()


@dataclass(frozen=True, slots=True)
class RenameNamespace(DirectoryOperation[None]):
    """Call a namespace otherwise. Raises `InvalidInputError`: there is none, or one of the name."""

    lane = Lane.WRITE
    if_unknown = Remedy.SEND_AGAIN

    name: str
    to: str
    request_id: str = field(kw_only=True)

    def run(self, directory: Directory) -> Future[None]:
        return directory.index.rename_namespace(self.name, self.to, request_id=self.request_id)


@dataclass(frozen=True, slots=True)
class DeleteNamespace(DirectoryOperation[int]):
    """Delete a namespace with all its memories; how many those were."""

    lane = Lane.WRITE
    is_long = True
    if_unknown = Remedy.SEND_AGAIN

    name: str
    request_id: str = field(kw_only=True)

    def run(self, directory: Directory) -> Future[int]:
        return directory.index.delete_namespace(self.name, request_id=self.request_id)


@dataclass(frozen=True, slots=True)
class MoveMemories(DirectoryOperation[MoveOutcome]):
    """Put memories of one namespace into another, all or none.

    Raises `InvalidInputError`: the source and key of one are taken there.
    """

    lane = Lane.WRITE
    is_long = True
    if_unknown = Remedy.SEND_AGAIN

    within: Within
    to: str
    ids: Sequence[MemoryId] | None
    source_prefix: str | None
    request_id: str = field(kw_only=True)

    def run(self, directory: Directory) -> Future[MoveOutcome]:
        return directory.index.move(
            self.within.namespace,
            self.to,
            ids=self.ids,
            source_prefix=self.source_prefix,
            quota=self.within.quota,
            request_id=self.request_id,
        )
