"""A session over every route with fixed inputs, and its answers' bytes, what varies masked.

    python -m tests.golden.session > tests/golden/session.txt

records it anew: with a change of the answers that is meant.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.service import running_service

RECORDING = Path(__file__).with_name("session.txt")
ENVIRONMENT = {"MODEL_PRECISION": "fp32", "MAX_BACKUPS": "0", "REQUEST_TIMEOUT_S": "120"}
"""What any processor computes alike but for the last digits, and no clock has a say in."""

FILES = {
    "notes/deploys.md": "# Deploys\n\nEvery Friday after the standup, from the main branch.\n",
    "notes/people.md": "# People\n\nAnna owns the staging database. Ben is on call in May.\n",
    "notes/empty.md": "",
}

_KEPT_HEADERS = ("content-type", "retry-after", "allow", "cache-control")
_MASKS = [
    (re.compile(pattern), mask)
    for pattern, mask in (
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", "<time>"),
        (r"(?<=_)\d{8}_\d{6}(_\d+)?", "<stamp>"),
        (r'(?<="next_cursor":")\d+(?=\.)', "<us>"),
        (r'(?<="created":)[\d.]+', "<s>"),
        (r'(?<="version":)"[^"]*"', "<version>"),
        (r'(?<="(?:lsn)":)\d+', "<n>"),
        (r'(?<=_bytes":)\d+', "<n>"),
        (r'(?<="fingerprint":)"[^"]*"', "<digest>"),
        (r'(?<="workspace_id":)"[^"]*"', "<id>"),
        (r'(?<="embedding":)"[A-Za-z0-9+/=]{2048}"', "<384 floats>"),
        (r"/[^\"]*/(?=data|workspace)", "<directory>/"),
        (r'\{"type":"progress".*\n', ""),
    )
]


@dataclass(frozen=True)
class Call:
    """One request. `{cursor}` and `{backup}` are what earlier answers gave last."""

    method: str
    path: str
    body: Any = None
    """JSON; a string is sent as it stands."""

    def line(self) -> str:
        """The request in one line, or its beginning."""
        body = "" if self.body is None else json.dumps(self.body)
        return f"{self.method} {self.path} {body}"[:1000].rstrip()


def _add(text: str, source: str = "notes/team.md", **more: Any) -> Call:
    return Call("POST", "/memory/add", {"text": text, "source": source, **more})


def _search(query: str, **more: Any) -> Call:
    return Call("POST", "/search", {"query": query, **more})


DEPLOYS = "The backend goes to production every Friday after the standup."
DATABASE = "The staging database listens on port 5433 of host db_staging_02."
COFFEE = "Anna drinks her coffee without sugar."
LINES = "\n".join(
    [
        '{"text":"The printer on floor 2 needs blue toner.","source":"import/a","key":"printer"}',
        '{"text":"Invoices are due on the 15th.","source":"import/b","metadata":{"kind":"rule"},'
        '"timestamp":"2024-05-01T12:00:00Z"}',
        '{"text":"","source":"import/c"}',
        "no json",
        '{"text":"The printer on floor 2 needs blue toner.","source":"import/d"}',
    ]
)

SESSION = [
    # Before anything is stored.
    Call("GET", "/health"),
    Call("GET", "/health/live"),
    Call("GET", "/health/ready"),
    Call("GET", "/stats"),
    _search("anything"),
    Call("POST", "/memory/is-novel", {"text": COFFEE}),
    Call("GET", "/memories"),
    Call("POST", "/memory/deduplicate", {}),
    Call("GET", "/backups"),
    # Writes.
    _add(DEPLOYS),
    _add(DATABASE, "project-1", metadata={"kind": "fact", "port": 5433, "tags": ["a", "ü"]}),
    _add(COFFEE, "project-10", metadata={"kind": "taste"}),
    _add(COFFEE.upper()),
    _add("Anna drinks her coffee with sugar.", "project-1/notes"),
    _add('Ünïcödé 日本語 \u2028 "quoted" \\ and\ttabs\nand lines', "ünï/cödé"),
    Call(
        "POST",
        "/memory/add-batch",
        {
            "memories": [
                {"text": "Ben is on call in May.", "source": "rota"},
                {"text": "ben is on call in may", "source": "rota"},
                {"text": "Ben is on call in May.", "source": "rota/b", "deduplicate": False},
                {"text": "Ben is on call in June.", "source": "rota", "metadata": {"kind": "fact"}},
            ]
        },
    ),
    Call("POST", "/memory/upsert", {"text": "Lunch is at noon.", "source": "day", "key": "lunch"}),
    Call(
        "POST",
        "/memory/upsert",
        {"text": "Lunch is at one.", "source": "day", "key": "lunch", "metadata": {"v": 2}},
    ),
    Call("POST", "/import", LINES),
    Call("POST", "/import?on_error=stop&report=errors&deduplicate=false", LINES),
    # Reading one, changing one.
    Call("GET", "/memory/2"),
    Call("PATCH", "/memory/2", {"metadata": {"kind": "fact", "port": 5434}}),
    Call("PATCH", "/memory/1", {"text": "The backend goes live on Thursdays.", "source": "team"}),
    Call("PATCH", "/memory/1", {}),
    # Searches in all modes, with all filters.
    _search("When do we deploy?"),
    _search("db_staging_02", k=2, hybrid=True),
    _search("how does Anna like her coffee", hybrid=False, k=3),
    _search("coffee", fusion="rrf", k=3),
    _search("coffee", vector_weight=0, k=2),
    _search("coffee", vector_weight=1, k=2, neighbours=False),
    _search("coffee", threshold=0.4, min_score=0.1),
    _search("coffee", source="project-1"),
    _search("coffee", source_prefix="project-10"),
    _search("database", metadata={"kind": "fact"}),
    _search("on call", since="yesterday", until="today", timezone="UTC", k="2"),
    _search("on call", until="2024-05"),
    Call(
        "POST",
        "/search/batch",
        {"queries": [{"query": "coffee", "k": 1}, {"query": "lunch", "hybrid": False, "k": 1}]},
    ),
    Call("POST", "/memory/is-novel", {"text": COFFEE}),
    Call("POST", "/memory/is-novel", {"text": "Quarterly taxes in Chile", "threshold": 0.5}),
    # Pages.
    Call("GET", "/memories?limit=3"),
    Call("GET", "/memories?limit=3&cursor={cursor}"),
    Call("GET", "/memories?limit=2&offset=1&order=desc&source=rota"),
    Call("GET", "/memories?source_prefix=project-1&since=2020-01&until=2099-01-01T00:00:00Z"),
    Call("GET", "/export?source=rota"),
    Call("GET", "/export?source_prefix=day&embeddings=true"),
    # What cannot be done as asked.
    _search(" "),
    _search("x", k=101, threshold=2, since="someday"),
    _add("x" * 50_001),
    Call("POST", "/memory/add", {"text": "no source"}),
    Call("POST", "/memory/add", "{bad"),
    Call("POST", "/memory/add-batch", {"memories": []}),
    Call("GET", "/memory/999"),
    Call("GET", "/memory/word"),
    Call("PATCH", "/memory/999", {"text": "x"}),
    Call("DELETE", "/memory/999"),
    Call("GET", "/memories?limit=0&cursor=x"),
    Call("GET", "/memories?cursor=x"),
    Call("PUT", "/search", {}),
    Call("GET", "/no/such/route"),
    Call("POST", "/memory/deduplicate", {"threshold": 0.4}),
    Call("POST", "/index/build", {"sources": ["../outside"]}),
    Call("POST", "/restore", {"backup_name": "no_such"}),
    Call("POST", "/sync/upload"),
    Call("POST", "/sync/download"),
    Call("GET", "/sync/snapshots"),
    Call("POST", "/sync/restore/some"),
    Call("GET", "/sync/status"),
    # Removing, building, going back.
    Call("POST", "/memory/deduplicate", {"by": "similarity", "threshold": 0.8}),
    Call("POST", "/memory/deduplicate", {"dry_run": False}),
    Call("POST", "/index/build", {"sources": ["notes"]}),
    Call("POST", "/index/build"),
    Call("POST", "/backup?prefix=golden%20one"),
    Call("POST", "/backup/verify", {"backup_name": "{backup}"}),
    Call("DELETE", "/memory/3"),
    Call("POST", "/memory/delete-batch", {"ids": [4, 999, 4]}),
    Call("POST", "/memory/delete-by-source", {"source_pattern": "rota"}),
    Call("POST", "/memory/delete-by-source", {"source_pattern": "nowhere"}),
    Call("POST", "/restore", {"backup_name": "{backup}"}),
    Call("GET", "/backups"),
    Call("GET", "/memories?limit=100"),
    Call("GET", "/metrics"),
]


def replayed(http: httpx.Client) -> Iterator[str]:
    """Make every call in turn; each one's request and masked answer as lines of text."""
    known = {"cursor": "", "backup": ""}
    for number, call in enumerate(SESSION, start=1):
        body = call.body if isinstance(call.body, str) else json.dumps(call.body)
        for name, value in known.items():
            body = body.replace(f"{{{name}}}", value)
        answer = http.request(
            call.method,
            call.path.replace("{cursor}", known["cursor"]),
            content=None if call.body is None else body.encode(),
        )
        _learn(known, answer)
        headers = [f"{h}: {answer.headers[h]}" for h in _KEPT_HEADERS if h in answer.headers]
        shown = _metric_names(answer.text) if call.path == "/metrics" else masked(answer.text)
        yield f"### {number}: {call.line()}\n{answer.status_code} {'; '.join(headers)}\n{shown}\n"


def masked(text: str) -> str:
    """An answer without what differs from run to run."""
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    return text


def _learn(known: dict[str, str], answer: httpx.Response) -> None:
    if found := re.search(r'"next_cursor":"([^"]+)"', answer.text):
        known["cursor"] = found[1]
    if found := re.search(r'"backup_path":"[^"]*?([^"/]+)"', answer.text):
        known["backup"] = found[1]


def _metric_names(text: str) -> str:
    names = re.findall(r"^# TYPE (faiss_memory\S+) (\w+)$", text, re.MULTILINE)
    return "\n".join(f"{name} {kind}" for name, kind in sorted(names))


def recorded() -> str:
    """The whole session on a service of its own."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory).resolve()
        for name, text in FILES.items():
            path = root / "workspace" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        with (
            running_service(root, env=ENVIRONMENT) as service,
            httpx.Client(base_url=service.base_url, timeout=120, trust_env=False) as http,
        ):
            return "".join(replayed(http))


if __name__ == "__main__":
    sys.stdout.write(recorded())
