import gzip
import json
import math
import os
from pathlib import Path

import pytest

from benchmarks.relevance.embedding_quality import COLLECTIONS, measure
from benchmarks.relevance.judged import read_judged_set
from benchmarks.relevance.measures import ndcg
from engine.model.files import default_model_dir


def test_ndcg_is_the_one_worked_out_by_hand() -> None:
    # Gains 3, 0, 1 at ranks 1 to 3; the ideal order is 3, 2, 1.
    gained = 3 / math.log2(2) + 1 / math.log2(4)
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)

    assert ndcg([3, 0, 1], [1, 2, 3], 10) == pytest.approx(gained / ideal)
    assert ndcg([1, 0, 2], [1, 2], 1) == pytest.approx(1 / 2)
    assert ndcg([0, 0], [0], 10) == 0


def write_collection(directory: Path) -> None:
    docs = {"d1": "Lighthouses guide ships at night.", "d2": "Bread needs flour.", "d3": "Tax law"}
    (directory / "qrels").mkdir(parents=True)
    with gzip.open(directory / "corpus.jsonl.gz", "wt") as file:
        for doc_id, text in docs.items():
            file.write(json.dumps({"_id": doc_id, "title": "Title", "text": text}) + "\n")
    queries = [{"_id": "q1", "text": "how to bake bread"}, {"_id": "q2", "text": "not judged"}]
    (directory / "queries.jsonl").write_text("\n".join(json.dumps(query) for query in queries))
    (directory / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td2\t1\n")


def test_the_benchmark_scores_both_precisions_on_every_collection(tmp_path: Path) -> None:
    for name in COLLECTIONS:
        write_collection(tmp_path / name)

    result = measure(tmp_path, default_model_dir(os.environ, Path.home()), n_callers=2)

    for name in COLLECTIONS:
        assert result["collections"][name]["n_queries"] == 1
        assert result["collections"][name]["ndcg_at_10"] == {"fp32": 1.0, "int8": 1.0}
    assert result["cosine_int8_fp32"]["mean"] > 0.9
    assert result["int8_keeps_quality"]


def test_queries_without_a_judgement_are_left_out(tmp_path: Path) -> None:
    write_collection(tmp_path / "set")

    judged = read_judged_set(tmp_path / "set")

    assert [query.text for query in judged.queries] == ["how to bake bread"]
    assert judged.documents[1].text == "Title Bread needs flour."
