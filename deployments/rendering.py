"""Engine values as the JSON objects of the contract."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import Any

from pydantic_core import to_json

from engine.keys.records import ROOT_ID, Key
from engine.offsite.cloud_sync import SyncStatus
from engine.offsite.download import Download
from engine.offsite.snapshots import RemoteSnapshot
from engine.records import AddOutcome, BackupSummary, DedupeReport, Memory, SearchHit
from engine.store.read_snapshot import ExportedMemory
from engine.store.rows import iso_time

Json = dict[str, Any]

_SCORE_DECIMALS = 6
_PAIR_DECIMALS = 4
_PAIR_TEXT_CHARS = 120


def score(value: float) -> float:
    """A score as answers give it: six decimals."""
    return round(float(value), _SCORE_DECIMALS)


def memory(record: Memory) -> Json:
    """MEM; the caller's metadata stays in its own object and can shadow nothing."""
    return {
        "id": record.id,
        "text": record.text,
        "source": record.source,
        "timestamp": record.timestamp,
        "metadata": record.metadata,
        "updated_at": record.updated_at,
        "key": record.key,
    }


def key(record: Key) -> Json:
    """A key without its text, which nobody has, or its digest."""
    made_us = None if record.id == ROOT_ID else record.created_us
    return {
        "id": record.id,
        "name": record.name,
        "scopes": record.scopes,
        "namespaces": record.namespaces,
        "expires_at": _iso_time(record.expires_us),
        "max_memories": record.max_memories,
        "writes_per_minute": record.writes_per_minute,
        "created_at": _iso_time(made_us),
        "last_used_at": _iso_time(record.last_used_us),
    }


def _iso_time(time_us: int | None) -> str | None:
    return None if time_us is None else iso_time(time_us)


def exported(found: ExportedMemory) -> bytes:
    """A line of an export: MEM, and its embedding when that was asked for."""
    shown = memory(found.memory)
    if found.vector is not None:
        shown["embedding"] = base64.b64encode(found.vector).decode()
    return to_json(shown) + b"\n"


def hit(found: SearchHit) -> Json:
    """MEM and its scores; those of the fusion only when there was one."""
    shown = memory(found.memory)
    shown["similarity"] = score(found.similarity)
    if found.score is not None:
        shown["score"] = score(found.score)
    if found.rrf_score is not None:
        shown["rrf_score"] = score(found.rrf_score)
    if found.bm25_score is not None:
        shown["bm25_score"] = score(found.bm25_score)
    return shown


def search_answer(query: str, hits: list[SearchHit]) -> Json:
    """One search's answer."""
    return {"query": query, "results": [hit(found) for found in hits], "count": len(hits)}


def added(outcome: AddOutcome) -> Json:
    """What an add says of a memory beside its id: what it repeats, or what it is much like."""
    if outcome.id is None:
        return {
            "duplicate_of": outcome.duplicate_of,
            "similarity": None if outcome.similarity is None else score(outcome.similarity),
            "duplicate_text": outcome.duplicate_text,
        }
    similar = [{**asdict(one), "similarity": score(one.similarity)} for one in outcome.similar]
    return {"similar": similar} if similar else {}


def deduplication(report: DedupeReport) -> Json:
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
    pairs = [
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


def backup(summary: BackupSummary) -> Json:
    """One backup of the list."""
    return {
        "name": summary.name,
        "created": summary.created_s,
        "total_memories": summary.total_memories,
        "size_bytes": summary.size_bytes,
        "verified_at": summary.verified_at,
    }


def sync_status(status: SyncStatus) -> Json:
    """How the copy in the cloud stands."""
    return {"enabled": True, **asdict(status)}


def snapshot(found: RemoteSnapshot, prefix: str) -> Json:
    """One snapshot of the list."""
    prefix = prefix.strip("/")
    return {
        "name": found.name,
        "s3_prefix": f"{prefix}/{found.directory}" if prefix else found.directory,
        "uploaded_at": iso_time(int(found.modified_s * 1e6)),
    }


def download(got: Download) -> Json:
    """What a download brought."""
    return {
        "success": True,
        "backup_name": got.snapshot.name,
        "files_downloaded": got.n_fetched,
        "local_path": got.backup.path,
        "timestamp": iso_time(int(got.backup.created_s * 1e6)),
        "message": "Backup downloaded from cloud",
    }
