"""Engine values as the JSON objects of the contract."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict
from datetime import tzinfo
from itertools import groupby
from typing import Any, Final, Literal, cast

from pydantic_core import to_json

from engine import records
from engine.keys.records import ROOT_ID, Key
from engine.offsite.cloud_sync import SyncStatus
from engine.offsite.download import Download
from engine.offsite.snapshots import RemoteSnapshot
from engine.records import (
    AddOutcome,
    BackupSummary,
    Beginning,
    DedupeReport,
    Memory,
    SearchHit,
    SearchHits,
    TimelineEntry,
)
from engine.store.layout.rows import iso_time
from engine.store.read_snapshot import ExportedMemory
from wire.answers import (
    BackupOut,
    BeginningOut,
    DeduplicateAnswer,
    DuplicatePairOut,
    HitExplanation,
    HitOut,
    Likeness,
    ListedOut,
    MemoryOut,
    NearestOut,
    ScoreParts,
    SearchAnswer,
    SearchExplanation,
    SimilarOut,
    SnapshotAnswer,
    SyncDownloadAnswer,
    SyncStatusAnswer,
    TimelineAnswer,
    TimelineDay,
    TimelineMemory,
)
from wire.keys import KeyOut
from wire.times import day_of

_MEMORY_FIELDS = tuple(MemoryOut.__annotations__)
_RANKED_BY: Final[tuple[Literal["score", "rrf_score", "bm25_score"], ...]] = (
    "score",
    "rrf_score",
    "bm25_score",
)
_SCORE_DECIMALS = 6
_PAIR_DECIMALS = 4
_PAIR_TEXT_CHARS = 120


def score(value: float) -> float:
    """A score as answers give it: six decimals."""
    return round(float(value), _SCORE_DECIMALS)


def memory(record: Memory) -> MemoryOut:
    """MEM; the caller's metadata stays in its own object and can shadow nothing."""
    return cast(MemoryOut, {name: getattr(record, name) for name in _MEMORY_FIELDS})


def key(record: Key) -> KeyOut:
    """A key without its text, which nobody has, or its digest."""
    made_us = None if record.id == ROOT_ID else record.created_us
    return KeyOut(
        id=record.id,
        name=record.name,
        scopes=list(record.scopes),
        namespaces=list(record.namespaces),
        expires_at=_iso_time(record.expires_us),
        max_memories=record.max_memories,
        writes_per_minute=record.writes_per_minute,
        created_at=_iso_time(made_us),
        last_used_at=_iso_time(record.last_used_us),
    )


def _iso_time(time_us: int | None) -> str | None:
    return None if time_us is None else iso_time(time_us)


def exported(found: ExportedMemory) -> bytes:
    """A line of an export: MEM, and its embedding when that was asked for."""
    shown: dict[str, Any] = {**memory(found.memory)}
    if found.vector is not None:
        shown["embedding"] = base64.b64encode(found.vector).decode()
    return to_json(shown) + b"\n"


def nearest(record: Memory, similarity: float) -> NearestOut:
    """MEM and how similar it is."""
    return {**memory(record), "similarity": score(similarity)}


def hit(found: SearchHit) -> HitOut:
    """MEM and its scores; those of the fusion only when there was one."""
    shown = cast(HitOut, nearest(found.memory, found.similarity))
    for name in _RANKED_BY:
        if (value := getattr(found, name)) is not None:
            shown[name] = score(value)
    if found.explanation is not None:
        shown["explain"] = _explained(found.explanation)
    return shown


def search_answer(query: str, hits: SearchHits, *, are_named: bool = False) -> SearchAnswer:
    """One search's answer; its hits say which namespace they are of if `are_named`."""
    shown = [hit(found) for found in hits]
    if are_named:
        for found, each in zip(hits, shown, strict=True):
            each["namespace"] = found.namespace
    answer: SearchAnswer = {"query": query, "results": shown, "count": len(hits)}
    if hits.explanation is not None:
        answer["explain"] = cast(SearchExplanation, asdict(hits.explanation))
    return answer


def listed(memories: Sequence[Memory], namespaces: Sequence[str] | None) -> list[ListedOut]:
    """Memories of a page, each with its namespace where several were asked for."""
    shown = [cast(ListedOut, memory(each)) for each in memories]
    for each, namespace in zip(shown, namespaces or (), strict=False):
        each["namespace"] = namespace
    return shown


def _explained(why: records.HitExplanation) -> HitExplanation:
    parts = {name: score(value) for name, value in asdict(why.score).items()}
    return {
        "vector_rank": why.vector_rank,
        "bm25_rank": why.bm25_rank,
        "matched": why.matched,
        "score": cast(ScoreParts, parts),
    }


def timeline(entries: Sequence[TimelineEntry], zone: tzinfo) -> TimelineAnswer:
    """Memories in order of time, by the days of a zone."""
    days = [
        TimelineDay(date=date, memories=[*map(_timeline_memory, of_day)])
        for date, of_day in groupby(entries, lambda each: day_of(each.memory.timestamp, zone))
    ]
    return {"days": days, "count": len(entries)}


def _timeline_memory(entry: TimelineEntry) -> TimelineMemory:
    found = memory(entry.memory) if entry.hit is None else hit(entry.hit)
    beside = {"before": _beginning(entry.before), "after": _beginning(entry.after)}
    return cast(TimelineMemory, {**found, **beside})


def _beginning(found: Beginning | None) -> BeginningOut | None:
    return None if found is None else {"id": found.id, "text": found.text}


def added(outcome: AddOutcome) -> Likeness:
    """What an add says of a memory beside its id: what it repeats, or what it is much like."""
    if outcome.id is None:
        return {
            "similarity": None if outcome.similarity is None else score(outcome.similarity),
            "duplicate_text": outcome.duplicate_text,
        }
    similar: list[SimilarOut] = [
        {"id": one.id, "similarity": score(one.similarity), "text": one.text}
        for one in outcome.similar
    ]
    return {"similar": similar} if similar else {}


def deduplication(report: DedupeReport) -> DeduplicateAnswer:
    """The three shapes of a deduplication's answer: nothing found, dry run, done."""
    if report.n_pairs == 0:
        return {"duplicate_pairs": 0, "removed": 0, "dry_run": report.dry_run}
    if not report.dry_run:
        return {
            "duplicate_pairs": report.n_pairs,
            "removed": report.n_removed,
            "remaining": report.remaining,
            "dry_run": False,
        }
    pairs: list[DuplicatePairOut] = [
        {
            "id_a": pair.id_a,
            "id_b": pair.id_b,
            "similarity": round(float(pair.similarity), _PAIR_DECIMALS),
            "text_a": pair.text_a[:_PAIR_TEXT_CHARS],
            "text_b": pair.text_b[:_PAIR_TEXT_CHARS],
        }
        for pair in report.best_pairs
    ]
    return {
        "duplicate_pairs": report.n_pairs,
        "would_remove": report.n_removed,
        "dry_run": True,
        "pairs": pairs,
    }


def backup(summary: BackupSummary) -> BackupOut:
    """One backup of the list."""
    return {
        "name": summary.name,
        "created": summary.created_s,
        "total_memories": summary.total_memories,
        "size_bytes": summary.size_bytes,
        "verified_at": summary.verified_at,
    }


def sync_status(status: SyncStatus) -> SyncStatusAnswer:
    """How the copy in the cloud stands."""
    return cast(SyncStatusAnswer, {"enabled": True, **asdict(status)})


def snapshot(found: RemoteSnapshot, prefix: str) -> SnapshotAnswer:
    """One snapshot of the list."""
    prefix = prefix.strip("/")
    return {
        "name": found.name or found.label,
        "s3_prefix": f"{prefix}/{found.directory}" if prefix else found.directory,
        "uploaded_at": iso_time(int(found.modified_s * 1e6)),
    }


def download(got: Download) -> SyncDownloadAnswer:
    """What a download brought."""
    return {
        "success": True,
        "backup_name": got.snapshot.name or got.backup.name,
        "files_downloaded": got.n_fetched,
        "local_path": got.backup.path,
        "timestamp": iso_time(int(got.backup.created_s * 1e6)),
        "message": "Backup downloaded from cloud",
    }
