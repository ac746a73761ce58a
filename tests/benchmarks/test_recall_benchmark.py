"""What the recall benchmark reads, makes, measures and tests."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.relevance.identifiers import KINDS, identifiers_among_notes
from benchmarks.relevance.judged import read_judged_set
from benchmarks.relevance.late_words import late_queries
from benchmarks.relevance.measures import measured
from benchmarks.relevance.significance import randomisation_p
from benchmarks.support.corpora import corpus_file
from benchmarks.support.filled_store import service_embedder
from engine.model.tokeniser import MAX_PIECES
from tests import ROOT

DOCUMENTS = [
    {"_id": "1/a", "title": "", "text": "The ferry leaves at noon.", "metadata": {"n": 1}},
    {"_id": "1/b", "title": "Tea", "text": "is drunk at four.", "metadata": {"n": 2}},
    {"_id": "1/c", "title": "", "text": "", "metadata": {}},
]
QUERIES = [
    {"_id": "q1", "text": "When does the ferry leave?"},
    {"_id": "q2", "text": "judged, but nothing answers it"},
    {"_id": "q3", "text": "not judged"},
]


def write_set(directory: Path, documents: list[dict[str, Any]] = DOCUMENTS) -> Path:
    """A collection in BEIR layout."""
    (directory / "qrels").mkdir(parents=True)
    with gzip.open(corpus_file(directory), "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(document) + "\n" for document in documents)
    lines = [json.dumps(query) for query in QUERIES]
    (directory / "queries.jsonl").write_text("\n".join(lines), encoding="utf-8")
    judgements = "query-id\tcorpus-id\tscore\nq1\t1/a\t1\nq2\t1/b\t0\n"
    (directory / "qrels" / "test.tsv").write_text(judgements, encoding="utf-8")
    return directory


def test_empty_documents_and_queries_that_nothing_answers_are_left_out(tmp_path: Path) -> None:
    judged = read_judged_set(write_set(tmp_path / "med"))

    assert judged.texts == ["The ferry leaves at noon.", "Tea is drunk at four."]
    assert {document.source for document in judged.documents} == {"med"}
    assert [query.id for query in judged.queries] == ["q1"]
    assert judged.queries[0].where.is_empty()


def test_messages_of_a_conversation_share_a_source_and_are_searched_alone(tmp_path: Path) -> None:
    documents = [row | {"metadata": {"conversation": 7}} for row in DOCUMENTS]
    judged = read_judged_set(write_set(tmp_path / "realtalk", documents))

    assert {document.source for document in judged.documents} == {"realtalk/7"}
    assert judged.documents[0].metadata == {"conversation": "7"}


_IDEAL = 1 + 1 / np.log2(3)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["x", "a", "y", "b"], ((1 / np.log2(3) + 1 / np.log2(5)) / _IDEAL, 1, 1, 0.5)),
        (["a", "x", "x", "x", "x", "b"], ((1 + 1 / np.log2(7)) / _IDEAL, 1, 0.5, 1)),
        ([], (0, 0, 0, 0)),
    ],
)
def test_measures_are_those_computed_by_hand(found: list[str], expected: tuple[float, ...]) -> None:
    assert measured(found, {"a": 1, "b": 1, "x": 0}) == pytest.approx(expected)


def test_p_is_the_share_of_sign_flips_that_reach_the_difference() -> None:
    zeros = np.zeros(12)

    assert randomisation_p(zeros, zeros) == 1.0
    # All twelve of one sign: one assignment in 2^11 does as well.
    assert randomisation_p(zeros + 1, zeros) == pytest.approx(2**-11, abs=4e-4)
    mixed = np.array([1.0, -1.0] * 6)
    assert randomisation_p(mixed, zeros) == 1.0


def test_every_identifier_is_in_one_note_and_asked_for_in_every_form(tmp_path: Path) -> None:
    made = identifiers_among_notes(tmp_path, n_notes=500, n_queries=4)

    assert len(made.notes.documents) == 500
    assert made == identifiers_among_notes(tmp_path, n_notes=500, n_queries=4)
    for kind in KINDS:
        for query in made.forms["alone"][kind]:
            holders = [d.id for d in made.notes.documents if query.text in d.text]
            assert holders == list(query.grades)
        assert len(made.forms["question"][kind]) == 4
    assert set(made.forms["part"]) == {kind for kind, how in KINDS.items() if how.part}


def test_late_queries_ask_for_what_stands_past_the_first_window(tmp_path: Path) -> None:
    text = "harbour " * (MAX_PIECES - 2) + "a quiet lighthouse keeper counts his lamps at dusk"
    documents = [row | {"text": text} if row["_id"] == "1/b" else row for row in DOCUMENTS]
    judged = read_judged_set(write_set(tmp_path / "med", documents))

    queries = late_queries(judged, service_embedder(), n_queries=5)

    assert [list(query.grades) for query in queries["word"]] == [["1/b"]]
    assert "harbour" not in queries["word"][0].text
    [phrase] = queries["phrase"]
    assert phrase.text in text.replace("harbour ", "")
    assert len(phrase.text.split()) == 6


def test_the_benchmark_reports_every_ranking_of_a_collection_and_of_identifiers(
    tmp_path: Path,
) -> None:
    write_set(tmp_path / "med")
    command = [sys.executable, "-m", "benchmarks.relevance.recall"]
    command += ["--set", "med", "--notes", "200"]
    command += ["--data-dir", str(tmp_path), "--cache-dir", str(tmp_path / "cache")]
    command += ["--results-dir", str(tmp_path), "--no-rest"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr[-3000:]
    report = json.loads(run.stdout)
    assert report == json.loads((tmp_path / "recall.json").read_text())
    assert report["sets"]["med"]["new"] == dict.fromkeys(report["mean"]["new"], 1.0)
    assert report["mean"]["significantly_below"] == {"new_to_better_leg": [], "new_to_old": []}
    assert report["identifiers"]["alone"]["all"]["words"]["hit@3"] == 1.0
