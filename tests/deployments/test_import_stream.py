"""Import and export of the ingress around fakes: what each line gets, and in which bounds."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
import zstandard
from starlette.types import Message

from deployments.calls.operations import ReadExport
from deployments.transfer import export_stream
from deployments.transfer.import_body import Chunk, ImportBody
from deployments.transfer.import_lines import BadLine, LineParser
from deployments.transfer.import_report import ImportReport
from deployments.transfer.line_reader import MAX_LINE_BYTES, BodyError, LineReader
from engine.errors import NotReadyError
from engine.operations.writes import IngestLines
from engine.records import Embeddings, FloatVector, MemoryId
from engine.writing.lines import ImportOutcome
from tests.support.fakes import DIM, embedding_of
from tests.support.index_under_test import IDENTITY
from tests.support.ingress_under_test import BASE_URL, Ingress, make_ingress

PATIENCE_S = 60


def ndjson(*lines: Any) -> bytes:
    return b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
    )


def memory(text: str, **more: Any) -> dict[str, Any]:
    return {"text": text, "source": "notes.md", **more}


def send(ingress: Ingress, body: bytes, query: str = "", **headers: str) -> list[dict[str, Any]]:
    answer = ingress.http.post(f"/import{query}", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def pack(coding: str, content: bytes) -> bytes:
    if coding == "gzip":
        return gzip.compress(content)
    return zstandard.compress(content) if coding == "zstd" else content


def items(answers: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(a["line"], a["status"]) for a in answers if a["type"] == "item"]


@pytest.fixture
def ingress() -> Ingress:
    return make_ingress()


def test_every_line_is_answered_in_order_under_its_number(ingress: Ingress) -> None:
    answers = send(
        ingress,
        ndjson(
            memory("red apples"),
            b"",
            memory("red apples"),
            memory("blue sky", key="k"),
            memory("grey sky", key="k"),
            b"nonsense",
            memory(" "),
            memory("x", embedding=[1.0]),
        ),
    )

    assert items(answers) == [
        (1, "added"),
        (3, "duplicate"),
        (4, "added"),
        (5, "updated"),
        (6, "error"),
        (7, "error"),
        (8, "error"),
    ]
    assert answers[1]["duplicate_of"] == 1
    assert answers[1]["similarity"] == pytest.approx(1.0)
    summary = answers[-1]
    assert (summary["type"], summary["ok"], summary["lines"]) == ("summary", False, 8)
    counted = [summary[name] for name in ("added", "duplicates", "updated", "errors")]
    assert counted == [2, 1, 1, 3]
    assert sorted(m.text for m in ingress.index.memories.values()) == ["grey sky", "red apples"]


def test_an_error_stops_the_import_when_asked_and_nothing_after_it_is_stored(
    ingress: Ingress,
) -> None:
    body = ndjson(memory("one cat"), b"[]", memory("two dogs"))

    answers = send(ingress, body, "?on_error=stop")

    assert items(answers) == [(1, "added"), (2, "error")]
    assert (answers[-1]["ok"], answers[-1]["stopped_at"]) == (False, 2)
    assert [m.text for m in ingress.index.memories.values()] == ["one cat"]


def test_a_line_decides_on_duplicates_before_the_import_does(ingress: Ingress) -> None:
    body = ndjson(memory("a b"), memory("a b"), memory("a b", deduplicate=True))

    answers = send(ingress, body, "?deduplicate=false")

    assert items(answers) == [(1, "added"), (2, "added"), (3, "duplicate")]


def test_only_errors_are_answered_when_asked(ingress: Ingress) -> None:
    answers = send(ingress, ndjson(memory("a"), b"{"), "?report=errors")

    assert items(answers) == [(2, "error")]
    assert answers[-1]["added"] == 1


@pytest.mark.parametrize("coding", ["gzip", "zstd", "identity"])
def test_packed_bodies_of_several_members_are_read(ingress: Ingress, coding: str) -> None:
    body = pack(coding, ndjson(memory("first part"))) + pack(coding, ndjson(memory("second half")))

    answers = send(ingress, body, **{"Content-Encoding": coding})

    assert items(answers) == [(1, "added"), (2, "added")]
    assert answers[-1]["ok"]


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_packed_body_that_is_cut_off_is_no_success(ingress: Ingress, coding: str) -> None:
    body = pack(coding, ndjson(memory("whole")))[:-5]

    answers = send(ingress, body, **{"Content-Encoding": coding})

    assert not answers[-1]["ok"]
    assert "send the lines from" in answers[-1]["message"]


def test_a_body_in_utf_16_is_refused_in_words(ingress: Ingress) -> None:
    answers = send(ingress, ndjson(memory("one"), memory("two")).decode().encode("utf-16"))
    assert len(answers) == 1
    assert "the body is UTF-16: send it as UTF-8" in answers[0]["message"]


def test_another_coding_is_refused(ingress: Ingress) -> None:
    answer = ingress.http.post("/import", content=b"x", headers={"Content-Encoding": "br"})
    assert answer.status_code == 415


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("filling", [b"\0", b"\n"], ids=["no lines", "empty lines"])
def test_a_bomb_is_given_up_after_some_megabytes(coding: str, filling: bytes) -> None:
    reader = LineReader(coding)
    pieces = reader.feed(pack(coding, filling * (64 << 20)))
    with pytest.raises(BodyError, match="200 times"):
        sum(1 for piece in pieces for _ in piece)
    assert reader._rest_bytes <= MAX_LINE_BYTES


def test_many_empty_members_are_handed_back_one_by_one() -> None:
    for coding in ("gzip", "zstd"):
        pieces = LineReader(coding).feed(pack(coding, b"") * 100)
        assert sum(1 for _ in pieces) >= 100


def test_a_reader_lets_other_work_be_done_between_the_pieces_of_one_message() -> None:
    n_turns = 0

    async def turn() -> None:
        nonlocal n_turns
        while True:
            n_turns += 1
            await asyncio.sleep(0)

    async def submit(chunk: Chunk) -> None:
        assert [type(line) for line in chunk.lines] == [BadLine]

    async def receive() -> Message:
        raise AssertionError("the body came in one message")

    async def read() -> None:
        turning = asyncio.create_task(turn())
        message = {"type": "http.request", "body": zstandard.compress(bytes(7 << 20))}
        body = ImportBody(LineParser(IDENTITY, deduplicate=True, redact=False), "zstd", submit)
        assert (await body.read(message, receive)).problem is None
        turning.cancel()

    asyncio.run(read())
    assert n_turns >= (7 << 20) // (256 << 10)


def test_a_line_beyond_the_limit_is_an_error_and_those_around_it_are_stored(
    ingress: Ingress,
) -> None:
    huge = b'{"text":"' + b"x" * (MAX_LINE_BYTES + 1) + b'"}'

    answers = send(ingress, ndjson(memory("before it"), huge, memory("after that")))

    assert items(answers) == [(1, "added"), (2, "error"), (3, "added")]


def test_lines_are_cut_wherever_the_body_is() -> None:
    body = b"one\n\ntwo\r\nthree"
    for size in range(1, len(body)):
        reader = LineReader("")
        parts = [body[start : start + size] for start in range(0, len(body), size)]
        found = [line for part in parts for piece in reader.feed(part) for line in piece]
        found += reader.end()
        assert found == [b"one", b"", b"two\r", b"three"]


def test_rubbish_as_gzip_is_a_body_error() -> None:
    with pytest.raises(BodyError, match="gzip"):
        list(LineReader("gzip").feed(b"rubbish"))


def test_an_embedding_of_its_own_is_taken_over_and_not_made_anew(ingress: Ingress) -> None:
    vector = np.zeros(DIM, np.float32)
    vector[3] = 1
    packed = base64.b64encode(vector.tobytes()).decode()

    send(
        ingress,
        ndjson(memory("a", embedding=packed), memory("b", embedding=vector.tolist())),
        "?deduplicate=false",
    )

    assert ingress.embedder.batches == []
    for stored in ingress.index.vectors:
        assert np.array_equal(stored, vector)


@pytest.mark.parametrize(
    ("embedding", "reason"),
    [
        ("!", "base64"),
        (base64.b64encode(bytes(8)).decode(), "8 bytes"),
        ([0.0] * DIM, "length"),
        ([1e300] * DIM, "length"),
        ([2.0] + [0.0] * (DIM - 1), "length"),
    ],
)
def test_an_embedding_that_cannot_be_one_is_an_error(
    ingress: Ingress, embedding: Any, reason: str
) -> None:
    answers = send(ingress, ndjson(memory("a", embedding=embedding)))

    assert items(answers) == [(1, "error")]
    assert reason in answers[0]["error"]
    assert not ingress.index.memories


@pytest.mark.parametrize("as_text", [False, True])
def test_embeddings_of_nearly_unit_length_are_normalised_and_exact_ones_kept(
    ingress: Ingress, as_text: bool
) -> None:
    exact = embedding_of("a b")
    rounded = (exact * np.float32(1.0009)).astype(np.float32)

    def sent(vector: FloatVector) -> Any:
        return base64.b64encode(vector.tobytes()).decode() if as_text else vector.tolist()

    lines = ndjson(memory("a", embedding=sent(exact)), memory("b", embedding=sent(rounded)))
    send(ingress, lines, "?deduplicate=false")

    kept, normalised = ingress.index.vectors
    assert np.array_equal(kept, exact)
    assert np.linalg.norm(normalised.astype(np.float64)) == pytest.approx(1, abs=1e-7)


def test_embeddings_of_another_model_are_made_anew(ingress: Ingress) -> None:
    header = {"type": "header", "format": 1, "model": "other", "dimension": 3}

    send(
        ingress, ndjson(header, memory("a b", embedding=[1, 0, 0]), {"type": "footer", "count": 1})
    )

    [vector] = ingress.index.vectors
    assert np.array_equal(vector, embedding_of("a b"))


@pytest.mark.parametrize(
    ("tail", "is_whole"),
    [
        ([{"type": "footer", "count": 2}], True),
        ([{"type": "footer", "count": 3}], False),
        ([], False),
    ],
)
def test_an_export_that_was_cut_off_is_no_success(
    ingress: Ingress, tail: list[Any], is_whole: bool
) -> None:
    header = {"type": "header", "format": 1}

    answers = send(ingress, ndjson(header, memory("a c"), memory("b d"), *tail))

    assert answers[-1]["ok"] is is_whole
    assert answers[-1]["added"] == 2


def test_texts_that_are_stored_or_repeated_are_embedded_once(ingress: Ingress) -> None:
    ingress.add("known text")

    send(ingress, ndjson(memory("known text"), memory("new"), memory("new")), "?deduplicate=false")

    assert ingress.embedder.batches == [["new"]]
    assert len(ingress.index.memories) == 4


def test_one_import_fills_every_place_at_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.transfer.import_body._CHUNK_LINES", 1)
    ingress = make_ingress(import_chunks=16)
    asked: list[str] = []
    all_places_taken = asyncio.Event()

    async def embed(texts: list[str], max_windows: int) -> Any:
        asked.extend(texts)
        if len(asked) == 16:
            all_places_taken.set()
        await asyncio.wait_for(all_places_taken.wait(), 60)
        return Embeddings(firsts=np.stack([embedding_of(text) for text in texts]))

    monkeypatch.setattr(ingress.embedder, "embed", embed)
    lines = [memory(f"text {n}", deduplicate=False) for n in range(64)]
    answers = send(ingress, ndjson(*lines))
    assert answers[-1]["added"] == 64


def test_progress_is_reported_while_the_index_is_waited_for(
    ingress: Ingress, monkeypatch: pytest.MonkeyPatch
) -> None:
    for user in ("import_report", "import_stream"):
        monkeypatch.setattr(f"deployments.transfer.{user}.PROGRESS_S", 0.01)
    report = ImportReport.progress
    is_writing, has_reported = asyncio.Event(), asyncio.Event()

    async def slow_ingest(operation: IngestLines) -> list[ImportOutcome]:
        is_writing.set()
        await asyncio.wait_for(has_reported.wait(), 60)
        return await ingress.index.run(operation)

    async def seen_report(of: ImportReport) -> None:
        await report(of)
        if is_writing.is_set():
            has_reported.set()

    ingress.index.answers[IngestLines] = slow_ingest
    monkeypatch.setattr(ImportReport, "progress", seen_report)
    answers = send(ingress, ndjson(memory("a")))
    assert answers[-1]["added"] == 1


@pytest.mark.parametrize("name", ["timestamp", "created_at"])
def test_times_of_a_line_are_handed_on(ingress: Ingress, name: str) -> None:
    send(ingress, ndjson(memory("t", **{name: "1970-01-01T00:00:01Z"})))

    [write] = [asked for asked in ingress.index.asked if isinstance(asked, IngestLines)]
    [line] = write.memories
    assert (line.created_us, line.updated_us, write.attempt) == (1_000_000, None, None)


def test_times_that_are_in_no_year_of_utc_are_errors(ingress: Ingress) -> None:
    times = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00Z"]

    answers = send(ingress, ndjson(*(memory(f"at {t}", timestamp=t) for t in times)))

    assert items(answers) == [(1, "error"), (2, "error"), (3, "added")]
    assert "timestamp: Must be within the years 1 to 9999 in UTC" in answers[0]["error"]


def test_what_was_exported_comes_back_the_same() -> None:
    ingress, other = make_ingress(), make_ingress()
    ids = [ingress.add(text, metadata={"n": i}) for i, text in enumerate(["a", "b c", "ü\n"])]

    exported = ingress.http.get("/export", params={"embeddings": True})
    answers = send(other, exported.content)

    lines = [json.loads(line) for line in exported.text.splitlines()]
    assert (lines[0]["type"], lines[0]["total"], lines[-1]) == (
        "header",
        3,
        {"type": "footer", "count": 3},
    )
    assert answers[-1]["ok"]
    assert other.embedder.batches == []
    for memory_id, copy in zip(ids, other.index.memories.values(), strict=True):
        original = ingress.index.memories[MemoryId(memory_id)]
        assert (copy.text, copy.source, copy.metadata) == (
            original.text,
            original.source,
            original.metadata,
        )


def test_an_export_that_lost_a_page_on_the_way_has_no_footer(
    ingress: Ingress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_stream, "_PAGE_BYTES", 1)
    for text in ("a", "b", "c"):
        ingress.add(text)
    n_sent = 0

    async def read_whose_second_answer_is_lost(operation: ReadExport) -> bytes:
        nonlocal n_sent
        n_sent += 1
        if n_sent == 2:
            await ingress.index.run(operation)
        return await ingress.index.run(operation)

    ingress.index.answers[ReadExport] = read_whose_second_answer_is_lost

    *_, last = ingress.http.get("/export").text.splitlines()

    assert json.loads(last)["type"] == "error"
    assert "2 of 3 memories" in json.loads(last)["message"]


def test_an_export_whose_index_died_says_so_and_ends(
    ingress: Ingress,
) -> None:
    ingress.add("a")

    async def read_from_the_dead(_: ReadExport) -> bytes:
        raise NotReadyError("it has died")

    ingress.index.answers[ReadExport] = read_from_the_dead

    header, last = map(json.loads, ingress.http.get("/export").text.splitlines())

    assert (header["type"], last["type"]) == ("header", "error")
    assert last["message"] == "it has died; this export is incomplete"
    assert isinstance(ingress.index.asked[-1], ReadExport), "what is gone was waited for again"


def test_an_export_is_filtered_and_packed_on_request(ingress: Ingress) -> None:
    ingress.add("in", source="work/a")
    ingress.add("out", source="home/b")

    answer = ingress.http.get(
        "/export", params={"source_prefix": "work/"}, headers={"Accept-Encoding": "gzip"}
    )

    assert answer.headers["content-encoding"] == "gzip"
    texts = [json.loads(line).get("text") for line in answer.text.splitlines()]
    assert texts == [None, "in", None]


def test_too_many_imports_at_once_are_refused_with_a_time_to_come_back() -> None:
    ingress = make_ingress(max_import_streams=0)

    answer = ingress.http.post("/import", content=ndjson(memory("a")))

    assert answer.status_code == 429
    assert answer.headers["retry-after"]
    assert not ingress.index.memories


def test_of_imports_that_begin_together_no_more_than_allowed_run() -> None:
    ingress = make_ingress(max_import_streams=1)

    async def statuses() -> list[int]:
        n_begun = 0
        all_begun, may_end = asyncio.Event(), asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            nonlocal n_begun
            n_begun += 1
            if n_begun == 3:
                all_begun.set()
            await all_begun.wait()
            yield ndjson(memory("a"))
            await may_end.wait()

        transport = httpx.ASGITransport(ingress.http.app)
        async with httpx.AsyncClient(transport=transport, base_url=BASE_URL) as client:
            sending = [client.post("/import", content=body()) for _ in range(3)]
            answers = asyncio.as_completed(sending, timeout=PATIENCE_S)
            refused = [(await next(answers)).status_code for _ in range(2)]
            may_end.set()
            return [*refused, (await next(answers)).status_code]

    assert asyncio.run(statuses()) == [429, 429, 200]
    assert ingress.http.post("/import", content=ndjson(memory("b"))).status_code == 200


def test_the_key_is_asked_for_before_anything_of_the_body_is_read() -> None:
    ingress = make_ingress(api_key="secret")

    def body() -> Any:
        yield ndjson(memory("a"))

    assert ingress.http.post("/import", content=body()).status_code == 401
    assert ingress.index.asked == []


class _Client:
    """One that sends for ever and reads nothing."""

    def __init__(self) -> None:
        self.n_sent = 0

    async def receive(self) -> Message:
        await asyncio.sleep(0)
        self.n_sent += 1
        body = ndjson(*(memory(f"{self.n_sent} {i}", deduplicate=False) for i in range(200)))
        return {"type": "http.request", "body": body, "more_body": True}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()


def test_a_client_that_does_not_read_is_not_read_from(ingress: Ingress) -> None:
    async def import_for_a_while() -> list[int]:
        client = _Client()
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/import",
            "raw_path": b"/import",
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
        }

        async def run() -> None:
            await ingress.http.app(scope, client.receive, client.send)

        running = asyncio.create_task(run())
        counts = [-1]
        while client.n_sent > counts[-1]:  # until it stops being read from
            counts.append(client.n_sent)
            await asyncio.sleep(0.5)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return counts

    counts = asyncio.run(import_for_a_while())

    assert 0 < counts[-1] < 100
