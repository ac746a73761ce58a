"""Test collections with judgements, in BEIR layout, as memories and searches.

`corpus.jsonl.gz`, `queries.jsonl`, `qrels/test.tsv` of one directory. Documents of one source are
neighbours in the file's order: messages of a conversation, sentences of a paragraph, chunks of a
file; a collection that says nothing of the kind is one source.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.support.corpora import corpus_file
from engine.records import FloatMatrix, MemoryFilter, NewMemory

Relevance = dict[str, dict[str, int]]
"""Query id to document id to grade."""

_Part = Callable[[str, Mapping[str, Any]], str]

_PARTS: dict[str, _Part] = {
    "realtalk": lambda _, metadata: str(metadata["conversation"]),
    "beam100k": lambda _, metadata: str(metadata["conversation"]),
    "xquad_sent": lambda _, metadata: str(metadata["paragraph"]),
    "codebase": lambda document_id, _: document_id.partition("#")[0],
}
"""What a source of a collection is, from a document's id and metadata."""

JUDGED_SETS = (
    *("cranfield", "cacm", "cisi", "realtalk", "beam100k", "letta_facts", "xquad_sent"),
    *("product_docs", "codebase", "cosqa", "mtragun", "time", "lisa", "med"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What is remembered; its id is that of the judgements."""

    id: str
    text: str
    source: str
    metadata: dict[str, str]
    """The conversation, where searches keep within one."""

    def as_memory(self, later_vectors: FloatMatrix | None) -> NewMemory:
        """To be added whatever else says the same, with its windows past the first."""
        return NewMemory(
            text=self.text,
            source=self.source,
            metadata=self.metadata,
            key=self.id,
            deduplicate=False,
            later_vectors=later_vectors,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedQuery:
    """What is looked for, where, and how well each document answers it."""

    id: str
    text: str
    metadata: dict[str, str]
    """What the documents' must equal."""
    grades: dict[str, int]
    """By document id; at least one is above 0."""

    @property
    def where(self) -> MemoryFilter:
        """The filter that its metadata makes."""
        return MemoryFilter(metadata=self.metadata or None)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedSet:
    """Documents in the file's order, and the queries that some document answers."""

    name: str
    documents: list[Document]
    queries: list[JudgedQuery]

    @property
    def texts(self) -> list[str]:
        """Of the documents."""
        return [document.text for document in self.documents]


def read_judged_set(directory: Path) -> JudgedSet:
    """Read a collection; empty documents and queries without an answer are left out."""
    with gzip.open(corpus_file(directory), "rt", encoding="utf-8") as file:
        documents = [_document(directory.name, json.loads(line)) for line in file]
    with (directory / "queries.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    relevance = read_relevance(directory)
    queries = [_query(row, relevance.get(row["_id"], {})) for row in rows]
    return JudgedSet(
        name=directory.name,
        documents=[document for document in documents if document.text],
        queries=[query for query in queries if max(query.grades.values(), default=0) > 0],
    )


def read_relevance(directory: Path) -> Relevance:
    """The judgements of a collection."""
    relevance: Relevance = {}
    with (directory / "qrels" / "test.tsv").open(encoding="utf-8") as file:
        rows = csv.reader(file, delimiter="\t")
        next(rows)
        for query_id, document_id, grade in rows:
            relevance.setdefault(query_id, {})[document_id] = int(grade)
    return relevance


def _document(name: str, row: Mapping[str, Any]) -> Document:
    metadata = row.get("metadata") or {}
    part = _PARTS[name](row["_id"], metadata) if name in _PARTS else ""
    return Document(
        id=row["_id"],
        text=f"{row['title']} {row['text']}".strip(),
        source=f"{name}/{part}" if part else name,
        metadata=_conversation(metadata),
    )


def _query(row: Mapping[str, Any], grades: dict[str, int]) -> JudgedQuery:
    return JudgedQuery(
        id=row["_id"],
        text=row["text"],
        metadata=_conversation(row.get("metadata") or {}),
        grades=grades,
    )


def _conversation(metadata: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(metadata[key]) for key in ("conversation",) if key in metadata}
