"""An in-memory stand-in for the service: the contract's routes that bridges and the skill use.

Similarity is the cosine of word counts. Run as a program it keeps its state in a file, so that it
can be killed and started again: `python -m tests.support.fake_service PORT STATE_FILE`.
"""

from __future__ import annotations

import json
import math
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from engine.words.redaction import Redacted, redact

Json = dict[str, Any]


class Refused(Exception):
    def __init__(self, status: int, detail: object, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


@dataclass
class FakeService:
    api_key: str = ""
    state_file: Path | None = None
    memories: dict[int, Json] = field(default_factory=dict)
    next_id: int = 1
    answered: dict[str, Json] = field(default_factory=dict)
    """Answers by idempotency key."""
    backups: list[str] = field(default_factory=list)
    refusals: list[Refused] = field(default_factory=list)
    """Raised, first one first, in place of answering."""
    answers_to_lose: int = 0
    """Requests that are carried out but whose connection is then closed without an answer."""
    requests: list[str] = field(default_factory=list)
    bodies: list[Json] = field(default_factory=list)
    extra: dict[str, Json] = field(default_factory=dict)
    """By path, what a later release adds to its answers."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.state_file is not None and self.state_file.exists():
            state = json.loads(self.state_file.read_text("utf-8"))
            self.memories = {int(key): value for key, value in state["memories"].items()}
            self.next_id = state["next_id"]
            self.answered = state["answered"]

    def answer(self, method: str, target: str, headers: Message, body: bytes) -> Json:
        with self.lock:
            path = unquote(urlsplit(target).path)
            self.requests.append(f"{method} {target}")
            given = headers.get("X-API-Key") or headers.get("Authorization", "")[7:]
            if self.api_key and not path.startswith("/health") and given != self.api_key:
                raise Refused(401, "Invalid or missing API key")
            if self.refusals:
                raise self.refusals.pop(0)
            key = headers.get("Idempotency-Key")
            if key in self.answered:
                return self.answered[key]
            query = {k: v[0] for k, v in parse_qs(urlsplit(target).query).items()}
            self.bodies.append(json.loads(body or b"{}"))
            answer = self._route(method, path, query, self.bodies[-1])
            answer = answer | self.extra.get(path, {})
            if key:
                self.answered[key] = answer
            if self.state_file is not None and method != "GET":
                self._save(self.state_file)
            return answer

    def _save(self, path: Path) -> None:
        state = {"memories": self.memories, "next_id": self.next_id, "answered": self.answered}
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(state), "utf-8")
        partial.replace(path)

    def _route(self, method: str, path: str, query: dict[str, str], body: Json) -> Json:
        match [method, *path.strip("/").split("/")]:
            case ["GET", "health"]:
                return {
                    "status": "ok",
                    "service": "faiss-memory",
                    "version": "0",
                    "total_memories": len(self.memories),
                    "dimension": 384,
                    "model": "all-MiniLM-L6-v2",
                }
            case ["GET", "stats"]:
                times = [memory["updated_at"] for memory in self.memories.values()]
                return {
                    "total_memories": len(self.memories),
                    "dimension": 384,
                    "model": "all-MiniLM-L6-v2",
                    "created_at": "2026-01-01T00:00:00.000000+00:00",
                    "last_updated": max(times, default=None),
                    "index_size_bytes": 1536 * len(self.memories),
                    "backup_count": len(self.backups),
                }
            case ["POST", "search"]:
                return self._search(body)
            case ["POST", "timeline"]:
                return self._timeline(body)
            case ["POST", "memory", "add"]:
                return self._add(body)
            case ["POST", "memory", "add-batch"]:
                return self._add_batch(body)
            case ["POST", "memory", "is-novel"]:
                threshold = float(body.get("threshold", 0.88))
                best = self._ranked(_text(body, "text"))[:1]
                novel = not best or best[0]["similarity"] < threshold
                return {
                    "is_novel": novel,
                    "threshold": threshold,
                    "most_similar": best[0] if best else None,
                }
            case ["POST", "memory", "delete-by-source"]:
                pattern, exact = body.get("source_pattern", ""), body.get("source_exact")
                ids = [
                    i
                    for i, m in self.memories.items()
                    if pattern in m["source"] and exact in (None, m["source"])
                ]
                for memory_id in ids:
                    del self.memories[memory_id]
                return {"success": True, "deleted_count": len(ids)}
            case ["POST", "memory", "deduplicate"]:
                return {"duplicate_pairs": 0, "removed": 0, "dry_run": body.get("dry_run", True)}
            case ["GET", "memory", memory_id]:
                return self._memory(memory_id)
            case ["PATCH", "memory", memory_id]:
                memory = self._memory(memory_id)
                given = {k: v for k, v in body.items() if v is not None}
                found = redact(given.get("text", "")) if given.pop("redact", False) else None
                memory.update(given | ({"text": found.text} if found and found.counts else {}))
                memory["updated_at"] = _now()
                return memory | ({"redacted": found.counts} if found and found.counts else {})
            case ["DELETE", "memory", memory_id]:
                memory = self._memory(memory_id)
                del self.memories[memory["id"]]
                return {
                    "success": True,
                    "deleted_id": memory["id"],
                    "deleted_text": memory["text"][:100],
                }
            case ["GET", "memories"]:
                return self._list(query)
            case ["POST", "index", "build"]:
                return {
                    "success": True,
                    "files_processed": 2,
                    "memories_added": 5,
                    "memories_removed": 0,
                    "unchanged": 0,
                    "backup_location": "backups/pre_build",
                    "message": "Index rebuilt successfully",
                }
            case ["GET", "backups"]:
                named = [{"name": name, "created": 1.5} for name in reversed(self.backups)]
                return {"backups": named, "count": len(named)}
            case ["POST", "backup"]:
                prefix = re.sub(r"[^A-Za-z0-9_-]", "_", query.get("prefix", "manual"))[:50]
                self.backups.append(f"{prefix}_20260101_00000{len(self.backups)}")
                return {
                    "success": True,
                    "backup_path": f"backups/{self.backups[-1]}",
                    "message": "Backup created successfully",
                }
            case ["POST", "restore"]:
                if body["backup_name"] not in self.backups:
                    raise Refused(404, f"Backup '{body['backup_name']}' not found")
                return {
                    "success": True,
                    "restored_from": body["backup_name"],
                    "total_memories": len(self.memories),
                    "message": "Restored successfully",
                }
        raise Refused(404, "Not Found")

    def _search(self, body: Json) -> Json:
        query = _text(body, "query")
        hits = [
            hit
            for hit in self._ranked(query)
            if hit["similarity"] >= (body.get("threshold") or 0)
            and (body.get("source") or "") in hit["source"]
            and body.get("source_exact") in (None, hit["source"])
            and hit["source"].startswith(body.get("source_prefix") or "")
            and (body.get("metadata") or {}).items() <= hit["metadata"].items()
        ]
        hits = hits[: int(body.get("k", 5))]
        if body.get("hybrid", True):
            hits = [{**hit, "rrf_score": 0.011667, "bm25_score": 1.5} for hit in hits]
        if body.get("order", "best") != "best":
            hits.sort(key=lambda hit: hit["timestamp"], reverse=body["order"] == "newest")
        return {"query": query, "results": hits, "count": len(hits)}

    def _timeline(self, body: Json) -> Json:
        """Every memory is its source's; by days of UTC."""
        every = list(self.memories.values())
        found = self._search(body)["results"] if body.get("query") else every[-body.get("k", 20) :]
        days: dict[str, list[Json]] = {}
        for memory in sorted(found, key=lambda each: each["timestamp"]):
            at = [each["id"] for each in every].index(memory["id"])
            beside = {
                "before": _beginning(every[at - 1]) if at else None,
                "after": _beginning(every[at + 1]) if at + 1 < len(every) else None,
            }
            days.setdefault(memory["timestamp"][:10], []).append({**memory, **beside})
        shown = [{"date": date, "memories": memories} for date, memories in days.items()]
        return {"days": shown, "count": len(found)}

    def _add(self, body: Json) -> Json:
        text, source = _text(body, "text"), _text(body, "source")
        found = redact(text) if body.get("redact") else Redacted(text, {})
        text = found.text
        nearest = self._ranked(text)[:1]
        if body.get("deduplicate", True) and nearest and nearest[0]["similarity"] >= 0.9:
            return {
                "success": True,
                "id": None,
                "message": "Duplicate skipped",
                "duplicate_of": nearest[0]["id"],
                "similarity": nearest[0]["similarity"],
            }
        memory_id, self.next_id = self.next_id, self.next_id + 1
        self.memories[memory_id] = {
            "id": memory_id,
            "text": text,
            "source": source,
            "timestamp": _now(),
            "metadata": body.get("metadata") or {},
            "updated_at": _now(),
            "key": None,
        }
        answer: Json = {"success": True, "id": memory_id, "message": "Memory added successfully"}
        return answer | ({"redacted": found.counts} if found.counts else {})

    def _add_batch(self, body: Json) -> Json:
        default = {
            "deduplicate": body.get("deduplicate", True),
            "redact": body.get("redact", False),
        }
        answers = [self._add({**default, **item}) for item in body["memories"]]
        ids = [answer["id"] for answer in answers if answer["id"] is not None]
        return {
            "success": True,
            "ids": ids,
            "count": len(ids),
            "message": f"Added {len(ids)} memories",
            "results": [
                {"id": answer["id"], "duplicate_of": answer.get("duplicate_of")}
                | {name: answer[name] for name in ("redacted",) if name in answer}
                for answer in answers
            ],
        }

    def _list(self, query: dict[str, str]) -> Json:
        offset, limit = int(query.get("offset", 0)), int(query.get("limit", 20))
        if not 1 <= limit <= 100:
            loc = ["query", "limit"]
            raise Refused(422, [{"type": "range", "loc": loc, "msg": "must be 1 to 100"}])
        matching = [
            memory
            for memory in self.memories.values()
            if query.get("source", "") in memory["source"]
            and query.get("source_exact") in (None, memory["source"])
        ]
        if "cursor" in query:
            offset = sum(
                memory["id"] <= int(query["cursor"].partition(".")[2]) for memory in matching
            )
        page = matching[offset : offset + limit]
        is_last = offset + limit >= len(matching)
        return {
            "memories": page,
            "total": len(matching),
            "offset": int(query.get("offset", 0)),
            "limit": limit,
            "next_cursor": None if is_last else f"1796105852089591.{page[-1]['id']}",
        }

    def _memory(self, memory_id: str) -> Json:
        memory = self.memories.get(int(memory_id))
        if memory is None:
            raise Refused(404, f"Memory ID {memory_id} not found")
        return memory

    def _ranked(self, text: str) -> list[Json]:
        ranked = [
            {**memory, "similarity": round(_cosine(text, memory["text"]), 6)}
            for memory in self.memories.values()
        ]
        return sorted(ranked, key=lambda memory: (-memory["similarity"], memory["id"]))


def _beginning(memory: Json) -> Json:
    return {"id": memory["id"], "text": memory["text"][:200]}


def _text(body: Json, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip():
        problem = {"type": "missing", "loc": ["body", name], "msg": "must not be empty"}
        raise Refused(422, [problem])
    return value


def _cosine(one: str, other: str) -> float:
    a, b = (Counter(re.findall(r"\w+", text.casefold())) for text in (one, other))
    norms = math.sqrt(sum(n * n for n in a.values()) * sum(n * n for n in b.values()))
    return sum(n * b[word] for word, n in a.items()) / norms if norms else 0.0


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: FakeService

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers: dict[str, str] = {}
        try:
            status = 200
            answer = self.service.answer(self.command, self.path, self.headers, body)
        except Refused as refused:
            status, answer = refused.status, {"detail": refused.detail}
            headers = refused.headers
        if self.service.answers_to_lose:
            self.service.answers_to_lose -= 1
            self.close_connection = True
            return
        content = json.dumps(answer, ensure_ascii=False).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_DELETE = handle_any

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def server_for(service: FakeService, port: int) -> ThreadingHTTPServer:
    return _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"service": service}))


@contextmanager
def serving(service: FakeService, port: int = 0) -> Iterator[str]:
    """Serve from a thread; yields the base URL."""
    server = server_for(service, port)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    server_for(FakeService(state_file=Path(sys.argv[2])), int(sys.argv[1])).serve_forever()
