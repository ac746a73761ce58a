"""In-process stand-ins for the embedding pool and the index: a dict and brute force."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from deployments import rendering
from deployments.calls.part_reports import PartReport
from deployments.calls.planned_builds import PlannedBuild, PlannedBuilds
from engine.errors import (
    BackupNotFoundError,
    InvalidInputError,
    MemoryNotFoundError,
    NotFoundError,
    PathNotAllowedError,
)
from engine.offsite.cloud_sync import SyncStatus
from engine.offsite.download import Download
from engine.offsite.snapshots import RemoteSnapshot
from engine.records import (
    AddOutcome,
    BackupCheck,
    BackupSummary,
    BuildPlan,
    BuildReport,
    Chunk,
    DedupeReport,
    DeletedMemory,
    DeleteOutcome,
    DuplicatePair,
    EmbeddedQuery,
    Embeddings,
    FloatMatrix,
    FloatVector,
    IndexStats,
    Memory,
    MemoryFilter,
    MemoryId,
    MemoryPage,
    MemoryPatch,
    ModelIdentity,
    Neighbour,
    NewMemory,
    QueryPieces,
    SearchHit,
    SearchQuery,
    SimilarMemory,
    SkippedFile,
    UpsertOutcome,
)
from engine.store.exports import ExportFacts
from engine.store.read_snapshot import ExportedMemory
from engine.store.rows import place_of
from engine.words.sameness import same_words, says_the_same
from engine.writing.deduplication import DuplicateRule
from engine.writing.lines import ImportAttempt, ImportOutcome, ImportStatus

DIM = 16
_START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def embedding_of(text: str) -> FloatVector:
    """Shape (DIM,): words hashed into buckets, so that texts sharing words are similar."""
    vector = np.full(DIM, 0.05, dtype=np.float32)
    for word in text.casefold().split():
        digest = hashlib.blake2b(word.encode(), digest_size=4).digest()
        vector[int.from_bytes(digest, "big") % DIM] += 1.0
    unit: FloatVector = vector / np.linalg.norm(vector)
    return unit


def query_of(text: str) -> EmbeddedQuery:
    """A query of one piece a word."""
    words = text.split()
    pieces = QueryPieces(
        rows=np.stack([embedding_of(word) for word in words]).astype(np.float16),
        word_of=np.arange(len(words), dtype=np.int16),
        words=words,
    )
    return EmbeddedQuery(vector=embedding_of(text), pieces=pieces)


class FakeEmbedder:
    """Deterministic embeddings; remembers what it was asked for."""

    def __init__(self) -> None:
        self.queries: list[str] = []
        self.batches: list[list[str]] = []

    async def embed_query(self, text: str) -> EmbeddedQuery:
        self.queries.append(text)
        return query_of(text)

    async def embed_queries(self, texts: Sequence[str]) -> list[EmbeddedQuery]:
        self.batches.append(list(texts))
        return [query_of(text) for text in texts]

    async def embed_one(self, text: str) -> Embeddings:
        self.queries.append(text)
        return Embeddings(firsts=embedding_of(text)[None])

    async def embed(self, texts: Sequence[str], max_windows: int = 1) -> Embeddings:
        self.batches.append(list(texts))
        return Embeddings(firsts=np.stack([embedding_of(text) for text in texts]))

    async def embed_long(self, texts: Sequence[str], max_windows: int = 1) -> Embeddings:
        return await self.embed(texts, max_windows)

    async def reports(self) -> list[PartReport]:
        return [
            PartReport(
                replica=name,
                cpu_s=1.5,
                resident_bytes=2**20,
                totals={"batches": len(self.batches)},
                levels={"queue_depth": 0},
            )
            for name in ("e1", "e2")
        ]


class FakeIndex:
    """A dict of memories searched by brute force. Set `fails` to make every call raise."""

    def __init__(self) -> None:
        self.memories: dict[MemoryId, Memory] = {}
        self.vectors: dict[MemoryId, FloatVector] = {}
        self.outcomes: dict[str, Any] = {}
        self.ingests: list[tuple[list[NewMemory], FloatMatrix, ImportAttempt | None]] = []
        self.exports: dict[str, list[ExportedMemory]] = {}
        self.saved: dict[str, dict[MemoryId, Memory]] = {}
        self.uploaded: list[str] = []
        self.files: dict[str, list[str]] = {}
        self.fails: BaseException | None = None
        self.trouble: str | None = None
        self._builds = PlannedBuilds()
        self._next_id = 0

    def _check(self) -> None:
        if self.fails is not None:
            raise self.fails

    def _now(self) -> str:
        instant = _START + timedelta(microseconds=self._next_id)
        return instant.isoformat(timespec="microseconds")

    def _put(self, new: NewMemory, embedding: FloatVector) -> MemoryId:
        memory_id = MemoryId(self._next_id)
        self._next_id += 1
        self.memories[memory_id] = Memory(
            id=memory_id,
            text=new.text,
            source=new.source,
            key=new.key,
            timestamp=self._now(),
            updated_at=self._now(),
            metadata=new.metadata,
        )
        self.vectors[memory_id] = embedding
        return memory_id

    def _passing(self, where: MemoryFilter) -> list[Memory]:
        return [m for m in self.memories.values() if _passes(m, where)]

    def _cosines(self, embedding: FloatVector, memories: list[Memory]) -> list[Neighbour]:
        found = [
            Neighbour(memory=m, similarity=float(self.vectors[m.id] @ embedding)) for m in memories
        ]
        return sorted(found, key=lambda n: (-n.similarity, n.memory.id))

    async def count(self) -> int:
        self._check()
        return len(self.memories)

    async def report(self) -> PartReport:
        self._check()
        return PartReport(replica="i1", cpu_s=2.5, resident_bytes=2**21)

    async def problem(self) -> str | None:
        self._check()
        return self.trouble

    async def stats(self) -> IndexStats:
        self._check()
        return IndexStats(
            total_memories=len(self.memories),
            model=ModelIdentity(name="fake", dim=DIM, precision="fp32", fingerprint="0" * 64),
            created_at=_START.isoformat(),
            last_updated=None,
            lsn=self._next_id,
            store_bytes=4096,
            index_bytes=1024,
            backup_count=len(self.saved),
            backup_error=None,
            vector_index="exact",
            n_rows=len(self.memories),
            n_terms=0,
            pending_writes=0,
            n_stored=len(self.memories),
            n_vectors=len(self.memories),
            n_documents=len(self.memories),
        )

    async def search(
        self, embeddings: FloatMatrix, queries: Sequence[SearchQuery]
    ) -> list[list[SearchHit]]:
        self._check()
        return [
            [
                SearchHit(
                    memory=near.memory,
                    similarity=near.similarity,
                    score=max(near.similarity, 0.0) if query.hybrid else None,
                    rrf_score=1 / (60 + rank) if query.hybrid else None,
                    bm25_score=0.0 if query.hybrid else None,
                )
                for rank, near in enumerate(self._cosines(row, self._passing(query.where)))
                if query.threshold is None or near.similarity >= query.threshold
            ][: query.k]
            for row, query in zip(embeddings, queries, strict=True)
        ]

    async def nearest(self, embedding: FloatVector, text: str) -> Neighbour | None:
        self._check()
        found = self._cosines(embedding, list(self.memories.values()))
        if not found:
            return None
        return replace(found[0], says_the_same=self._repeated(text, embedding) is not None)

    def _repeated(self, text: str, embedding: FloatVector) -> Neighbour | None:
        """The earliest memory that says the same."""
        near = sorted(
            self._cosines(embedding, list(self.memories.values())), key=lambda n: n.memory.id
        )
        return next(
            (
                each
                for each in near
                if says_the_same(text, each.memory.text, are_similar=each.similarity >= 0.9)
            ),
            None,
        )

    async def add(
        self, memories: Sequence[NewMemory], embeddings: FloatMatrix, *, request_id: str
    ) -> list[AddOutcome]:
        self._check()
        if request_id in self.outcomes:
            earlier: list[AddOutcome] = self.outcomes[request_id]
            return earlier
        outcomes = []
        for new, row in zip(memories, embeddings, strict=True):
            near = self._repeated(new.text, row) if new.deduplicate else None
            if near is not None:
                outcomes.append(
                    AddOutcome(
                        id=None,
                        duplicate_of=near.memory.id,
                        similarity=near.similarity,
                        duplicate_text=near.memory.text[:200],
                    )
                )
                continue
            similar = [
                SimilarMemory(id=n.memory.id, similarity=n.similarity, text=n.memory.text[:200])
                for n in self._cosines(row, list(self.memories.values()))[:3]
                if new.deduplicate and n.similarity >= 0.9
            ]
            outcomes.append(AddOutcome(id=self._put(new, row), similar=similar))
        self.outcomes[request_id] = outcomes
        return outcomes

    async def known_embeddings(self, texts: Sequence[str]) -> dict[int, FloatMatrix]:
        self._check()
        stored = {m.text: self.vectors[m.id][None] for m in self.memories.values()}
        return {at: stored[text] for at, text in enumerate(texts) if text in stored}

    async def ingest(
        self,
        memories: Sequence[NewMemory],
        embeddings: FloatMatrix,
        *,
        request_id: str,
        after: str | None,
        attempt: ImportAttempt | None,
    ) -> list[ImportOutcome]:
        self._check()
        self.ingests.append((list(memories), embeddings, attempt))
        outcomes: list[ImportOutcome] = []
        for new, row in zip(memories, embeddings, strict=True):
            if new.key is not None:
                upserted = await self.upsert(new, row, request_id=request_id)
                status: ImportStatus = "added" if upserted.created else "updated"
                outcomes.append(ImportOutcome(status=status, id=upserted.id))
                continue
            near = self._repeated(new.text, row) if new.deduplicate else None
            if near is not None:
                outcomes.append(
                    ImportOutcome(
                        status="duplicate",
                        id=None,
                        duplicate_of=near.memory.id,
                        similarity=near.similarity,
                        duplicate_text=near.memory.text[:200],
                    )
                )
            else:
                outcomes.append(ImportOutcome(status="added", id=self._put(new, row)))
        return outcomes

    async def begin_export(self, where: MemoryFilter, *, with_embeddings: bool) -> ExportFacts:
        self._check()
        found = sorted(self._passing(where), key=lambda m: m.id)
        export_id = f"export {len(self.exports)}"
        self.exports[export_id] = [
            ExportedMemory(
                memory=memory,
                vector=self.vectors[memory.id].tobytes() if with_embeddings else None,
            )
            for memory in found
        ]
        return ExportFacts(export_id=export_id, lsn=self._next_id, total=len(found))

    async def read_export(self, export_id: str, max_bytes: int) -> bytes:
        self._check()
        page = b""
        while self.exports[export_id] and len(page) < max_bytes:
            page += rendering.exported(self.exports[export_id].pop(0))
        return page

    async def end_export(self, export_id: str) -> None:
        self.exports.pop(export_id, None)

    async def upsert(
        self, memory: NewMemory, embedding: FloatVector, *, request_id: str
    ) -> UpsertOutcome:
        self._check()
        for old in self.memories.values():
            if (old.source, old.key) == (memory.source, memory.key):
                self.memories[old.id] = replace(old, text=memory.text, metadata=memory.metadata)
                self.vectors[old.id] = embedding
                return UpsertOutcome(id=old.id, created=False)
        return UpsertOutcome(id=self._put(memory, embedding), created=True)

    async def get(self, memory_id: MemoryId) -> Memory:
        self._check()
        if memory_id not in self.memories:
            raise MemoryNotFoundError(memory_id)
        return self.memories[memory_id]

    async def update(
        self,
        memory_id: MemoryId,
        patch: MemoryPatch,
        vectors: FloatMatrix | None,
        *,
        request_id: str,
    ) -> Memory:
        old = await self.get(memory_id)
        assert (vectors is None) == (patch.text is None)
        new = replace(
            old,
            text=old.text if patch.text is None else patch.text,
            source=old.source if patch.source is None else patch.source,
            metadata=old.metadata if patch.metadata is None else patch.metadata,
        )
        self.memories[memory_id] = new
        if vectors is not None:
            self.vectors[memory_id] = vectors[0]
        return new

    async def delete(self, ids: Sequence[MemoryId], *, request_id: str) -> DeleteOutcome:
        self._check()
        if request_id in self.outcomes:
            earlier: DeleteOutcome = self.outcomes[request_id]
            return earlier
        gone = [self.memories.pop(i) for i in ids if i in self.memories]
        found = {memory.id for memory in gone}
        outcome = DeleteOutcome(
            deleted=[DeletedMemory(id=memory.id, text=memory.text[:100]) for memory in gone],
            missing=[i for i in ids if i not in found],
        )
        self.outcomes[request_id] = outcome
        return outcome

    async def delete_by_source(self, pattern: str, *, request_id: str) -> int:
        self._check()
        ids = [m.id for m in self.memories.values() if pattern in m.source]
        return len((await self.delete(ids, request_id=request_id)).deleted)

    async def list_memories(
        self,
        where: MemoryFilter,
        *,
        offset: int,
        limit: int,
        newest_first: bool = False,
        cursor: str | None = None,
    ) -> MemoryPage:
        self._check()
        found = sorted(self._passing(where), key=lambda m: m.id, reverse=newest_first)
        start = offset if cursor is None else place_of(cursor)[1]
        end = start + limit
        return MemoryPage(
            memories=found[start:end],
            total=len(found),
            next_cursor=f"0.{end}" if end < len(found) else None,
        )

    async def deduplicate(
        self, threshold: float, *, by: DuplicateRule, dry_run: bool, request_id: str
    ) -> DedupeReport:
        self._check()
        kept: list[Memory] = []
        pairs: list[DuplicatePair] = []
        for memory in sorted(self.memories.values(), key=lambda m: m.id):
            best = next(
                (
                    near
                    for near in self._cosines(self.vectors[memory.id], kept)
                    if near.similarity >= threshold
                    and (by == "similarity" or same_words(near.memory.text, memory.text))
                ),
                None,
            )
            if best is None:
                kept.append(memory)
                continue
            pairs.append(
                DuplicatePair(
                    id_a=best.memory.id,
                    id_b=memory.id,
                    similarity=best.similarity,
                    text_a=best.memory.text,
                    text_b=memory.text,
                )
            )
        if not dry_run:
            self.memories = {memory.id: memory for memory in kept}
        return DedupeReport(
            n_pairs=len(pairs),
            n_removed=len(pairs),
            remaining=len(kept),
            dry_run=dry_run,
            best_pairs=pairs[:20],
        )

    async def plan_build(self, sources: Sequence[str] | None, *, replace_all: bool) -> PlannedBuild:
        self._check()
        names = sorted(self.files) if sources is None else list(sources)
        if any(name.startswith(("/", "..")) for name in names):
            raise PathNotAllowedError(next(n for n in names if n.startswith(("/", ".."))))
        readable = [name for name in names if name in self.files]
        if not readable:
            raise InvalidInputError("No readable file")
        chunks = [
            Chunk(source=f"{name}:chunk_{n}", text=text)
            for name in readable
            for n, text in enumerate(self.files[name])
        ]
        plan = BuildPlan(
            files=readable,
            chunks=chunks,
            to_embed=list(range(len(chunks))),
            skipped=[SkippedFile(path="photo.png", reason="not a text format")],
            replace_all=replace_all,
        )
        return self._builds.begin(plan)

    async def texts_of_build(self, build_id: str, start: int) -> list[str]:
        self._check()
        return self._builds.texts(build_id, start)

    async def put_embeddings(self, build_id: str, start: int, embeddings: FloatMatrix) -> None:
        self._check()
        self._builds.put(build_id, start, embeddings)

    async def drop_build(self, build_id: str) -> None:
        self._builds.drop(build_id)

    async def apply_build(self, build_id: str, *, request_id: str) -> BuildReport:
        self._check()
        plan, embeddings = self._builds.take(build_id)
        assert embeddings.shape == (len(plan.to_embed), DIM)
        for position, row in zip(plan.to_embed, embeddings, strict=True):
            chunk = plan.chunks[position]
            assert np.array_equal(row, embedding_of(chunk.text))
            self._put(NewMemory(text=chunk.text, source=chunk.source), row)
        return BuildReport(
            files_processed=len(plan.files),
            memories_added=len(plan.to_embed),
            memories_removed=0,
            unchanged=0,
            skipped=plan.skipped,
            backup_location="backups/pre_build_20260101_000000",
        )

    async def backups(self) -> list[BackupSummary]:
        self._check()
        return [self._summary(name) for name in reversed(self.saved)]

    def _summary(self, name: str) -> BackupSummary:
        return BackupSummary(
            name=name,
            created_s=_START.timestamp(),
            path=f"backups/{name}",
            total_memories=len(self.saved[name]),
            size_bytes=4096,
        )

    async def backup(self, prefix: str) -> BackupSummary:
        self._check()
        name = f"{prefix}_20260101_000000_{len(self.saved)}"
        self.saved[name] = dict(self.memories)
        return self._summary(name)

    async def verify_backup(self, name: str) -> BackupCheck:
        self._check()
        if name not in self.saved:
            raise BackupNotFoundError(name)
        return BackupCheck(name=name, problems=[])

    async def restore(self, name: str, *, request_id: str) -> int:
        await self.verify_backup(name)
        if request_id not in self.outcomes:
            self.memories = dict(self.saved[name])
            self.outcomes[request_id] = len(self.memories)
        n_left: int = self.outcomes[request_id]
        return n_left

    async def sync_status(self) -> SyncStatus:
        self._check()
        return SyncStatus(
            location="s3://bucket/prefix/",
            latest_remote=next(reversed(self.uploaded), None),
            latest_local=next(reversed(self.saved), None),
            remote_count=len(self.uploaded),
            local_count=len(self.saved),
            last_upload_at=None,
            last_error=None,
            pending=None,
        )

    async def sync_snapshots(self) -> list[RemoteSnapshot]:
        self._check()
        return [self._snapshot(name) for name in reversed(self.uploaded)]

    async def sync_upload(self, prefix: str, *, overwrite: bool) -> str:
        name = (await self.backup(prefix)).name
        self.uploaded.append(name)
        return name

    async def sync_download(self, name: str | None) -> Download:
        self._check()
        if name not in (None, *self.uploaded):
            raise BackupNotFoundError(name or "")
        if not self.uploaded:
            raise NotFoundError("There is no snapshot in the cloud yet")
        snapshot = self._snapshot(name or self.uploaded[-1])
        backup = self._summary(name or self.uploaded[-1])
        is_newest = name in (None, self.uploaded[-1])
        return Download(snapshot=snapshot, backup=backup, n_fetched=1, is_newest=is_newest)

    async def sync_restore(self, name: str, *, request_id: str) -> tuple[Download, int]:
        return await self.sync_download(name), await self.restore(name, request_id=request_id)

    def _snapshot(self, name: str) -> RemoteSnapshot:
        generation = self.uploaded.index(name) + 1
        return RemoteSnapshot(
            generation=generation,
            id="0" * 16,
            name=name,
            key=f"backups/{generation:010d}-{'0' * 16}-{name}/manifest.json",
            modified_s=_START.timestamp(),
        )


def _passes(memory: Memory, where: MemoryFilter) -> bool:
    created = datetime.fromisoformat(memory.timestamp)
    created_us = (created - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1)
    return (
        (where.source is None or where.source in memory.source)
        and (where.source_prefix is None or memory.source.startswith(where.source_prefix))
        and all(memory.metadata.get(k) == v for k, v in (where.metadata or {}).items())
        and (where.since_us is None or created_us >= where.since_us)
        and (where.until_us is None or created_us <= where.until_us)
    )
