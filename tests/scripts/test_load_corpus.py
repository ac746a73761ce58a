"""The corpus loader against an HTTP service: everything arrives once, or it says what did not."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from scripts import load_corpus
from tests.support.fake_service import FakeService, Refused, serving


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def url(service: FakeService) -> Iterator[str]:
    with serving(service) as url:
        yield url


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "gloss" / "corpus.jsonl.gz"
    path.parent.mkdir()
    rows = [
        {"_id": f"d{n}", "title": f"word{n}", "text": f"meaning{n}", "metadata": {"pos": "n"}}
        for n in range(25)
    ]
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def load(path: Path, url: str, *options: str, **env: str) -> Result:
    app = typer.Typer()
    app.command()(load_corpus.main)
    return CliRunner().invoke(
        app, [str(path), "--batch", "4", *options], env={"FAISS_URL": url, **env}
    )


def stored(service: FakeService) -> dict[str, str]:
    return {m["source"]: m["text"] for m in service.memories.values()}


def batches(service: FakeService) -> int:
    return service.requests.count("POST /memory/add-batch")


def test_every_passage_of_a_beir_corpus_arrives_once(
    corpus: Path, service: FakeService, url: str
) -> None:
    result = load(corpus, url + "/", "--concurrency", "3")
    assert result.exit_code == 0, result.output
    assert "25 memories added" in result.output
    assert stored(service) == {f"gloss/d{n}": f"word{n}: meaning{n}" for n in range(25)}
    assert len(service.memories) == 25
    metadata = {m["source"]: m["metadata"] for m in service.memories.values()}
    assert metadata["gloss/d7"] == {"title": "word7", "pos": "n"}
    assert batches(service) == 7


def test_the_title_may_be_left_out_of_the_text_and_the_source_named(
    corpus: Path, service: FakeService, url: str
) -> None:
    assert load(corpus, url, "--no-title", "--source", "wn", "--limit", "2").exit_code == 0
    assert stored(service) == {"wn/d0": "meaning0", "wn/d1": "meaning1"}


def test_plain_lines_keep_their_own_source_and_other_keys(
    tmp_path: Path, service: FakeService, url: str
) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "first", "source": "mine", "speaker": "user"},
        {"text": "  "},
        {"text": "third"},
    ]
    path = tmp_path / "turns.jsonl"
    path.write_text("\n\n".join(json.dumps(row) for row in rows))
    assert load(path, url, "--source", "turns").exit_code == 0
    assert stored(service) == {"mine": "first", "turns/5": "third"}
    assert service.memories[1]["metadata"] == {"speaker": "user"}


def test_a_busy_service_is_waited_for_as_long_as_it_asks(
    corpus: Path, service: FakeService, url: str, waits: list[float]
) -> None:
    service.refusals = [
        Refused(429, "busy", {"Retry-After": "2"}),
        Refused(503, "starting", {"Retry-After": "7"}),
        Refused(503, "starting"),
    ]
    service.refusals.insert(0, Refused(503, "not ready"))  # asked for /health first
    result = load(corpus, url, "--concurrency", "1")
    assert result.exit_code == 0, result.output
    assert len(service.memories) == 25
    assert waits[:2] == [2.0, 7.0]
    assert len(waits) == 3


def test_a_batch_whose_answer_was_lost_is_not_added_twice(
    corpus: Path, service: FakeService, url: str, waits: list[float]
) -> None:
    with httpx.Client(base_url=url) as client:
        loader = load_corpus.Loader(client, deduplicate=False, concurrency=2)
        service.answers_to_lose = 2
        passages = load_corpus.read_passages(corpus, name="x", with_title=True)
        loader.load(passages, batch_size=4)
    assert loader.n_added == len(service.memories) == 25
    assert len(waits) == 2


def test_duplicates_are_skipped_only_when_asked(
    corpus: Path, service: FakeService, url: str
) -> None:
    load(corpus, url)
    assert "25 memories added" in load(corpus, url).output
    result = load(corpus, url, "--deduplicate")
    assert "0 memories added, 25 duplicates skipped" in result.output
    assert len(service.memories) == 50


def test_a_refused_batch_stops_the_load_and_names_its_lines(
    corpus: Path, service: FakeService, url: str
) -> None:
    with httpx.Client(base_url=url) as client:
        loader = load_corpus.Loader(client, deduplicate=False, concurrency=1)
        service.refusals = [Refused(422, "text too long")]
        passages = load_corpus.read_passages(corpus, name="x", with_title=True)
        with pytest.raises(load_corpus.LoadError, match=r"lines 1 to 4 were refused: HTTP 422"):
            loader.load(passages, batch_size=4)
    assert loader.n_added == len(service.memories) < 25


def test_a_service_busy_for_ever_is_given_up(
    corpus: Path, service: FakeService, url: str, waits: list[float]
) -> None:
    with httpx.Client(base_url=url) as client:
        loader = load_corpus.Loader(client, deduplicate=False, concurrency=1)
        service.refusals = [Refused(503, "starting", {"Retry-After": "soon"})] * 99
        passages = load_corpus.read_passages(corpus, name="x", with_title=True)
        with pytest.raises(load_corpus.LoadError, match="could not be sent in 8 attempts"):
            loader.load(passages, batch_size=4)
    assert not service.memories
    assert sorted(waits[:7]) == waits[:7]


def test_the_key_comes_from_the_environment(corpus: Path, service: FakeService, url: str) -> None:
    service.api_key = "k"
    assert load(corpus, url).exit_code == 1
    assert not service.memories
    assert load(corpus, url, FAISS_API_KEY="k").exit_code == 0
    assert len(service.memories) == 25


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"text": "a"}\n{"text"\n', "line 2"),
        (b'{"text": "a"}\n["text"]\n', "line 2"),
        (b'{"text": "a"}\n{"title": "b"}\n', "line 2"),
        (b'{"text": 5}\n', "line 1"),
        (b'{"text": "a", "metadata": 7}\n', "line 1"),
        (b'{"text": "a", "title": 7}\n', "line 1"),
        (b"\xff\xfe\n", "cannot be read"),
    ],
)
def test_a_broken_file_is_refused_before_anything_is_added(
    tmp_path: Path, service: FakeService, url: str, content: bytes, problem: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    result = load(path, url)
    assert result.exit_code == 1
    assert problem in " ".join(result.output.split())
    assert not service.memories


def test_a_truncated_archive_is_refused(corpus: Path, service: FakeService, url: str) -> None:
    corpus.write_bytes(corpus.read_bytes()[:-10])
    result = load(corpus, url)
    assert (result.exit_code, service.memories) == (1, {})
    assert "cannot be read" in " ".join(result.output.split())


def test_no_service_is_told_at_once(corpus: Path, url: str, waits: list[float]) -> None:
    with serving(FakeService()) as gone:
        pass
    result = load(corpus, gone)
    assert result.exit_code == 1
    assert "make serve" in " ".join(result.output.split())
    assert waits == []
