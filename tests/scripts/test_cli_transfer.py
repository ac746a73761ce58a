"""Import, export, build and watch against the service's own routes and store."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from scripts.cli.app import app
from scripts.cli.errors import CliError, RefusedError
from scripts.cli.importing import sending
from scripts.cli.importing.journal import Journal, Tally
from scripts.cli.importing.sending import MAX_PART_BYTES, MAX_PART_LINES, parts_of
from scripts.cli.readers.identity import path_name
from scripts.cli.readers.records import Memory
from scripts.cli.service import Service
from tests import ROOT
from tests.support.light_service import light_service

PATIENCE_S = 60


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    directory = tmp_path_factory.mktemp("light")
    with light_service(directory) as url:
        yield url, directory / "workspace"


@pytest.fixture
def workspace(
    served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The workspace of an empty service that commands find."""
    monkeypatch.setenv("FAISS_URL", served[0])
    monkeypatch.delenv("FAISS_API_KEY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    yield served[1]
    for memory in stored():
        run("delete", str(memory["id"]))


def run(*arguments: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments], input=stdin)


def stored(**where: str) -> list[dict[str, Any]]:
    options = [word for name, value in where.items() for word in (f"--{name}", value)]
    result = run("list", "--all", "--json", *options)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def lines_file(path: Path, n: int) -> Path:
    words = random.Random(7)
    rows = [
        {"text": f"{n} {words.random()} {words.random()}", "source": f"s/{n % 3}"} for n in range(n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def eventually(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s, "it never came true"
        time.sleep(0.05)


def journals(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "state").rglob("*.jsonl"))


def test_everything_readable_is_in_and_everything_else_named(
    workspace: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_text(
        '{"text": "good one", "source": "a"}\n{"text": ""}\n'
        f'{{"text": "other words", "source": "{"x" * 600}"}}\n{{"text": "last", "source": "b"}}\n'
    )
    result = run("import", path)
    assert result.exit_code == 1
    assert result.stdout == "2 added\n"
    assert f"{path}, line 2: no 'text'" in result.stderr
    assert f"{path}, line 3: source:" in result.stderr
    assert [memory["text"] for memory in stored()] == ["good one", "last"]
    known = run("import", path)
    assert known.stdout == "0 added, 2 known already\n"
    first = stored()[0]["id"]
    assert f"Skipped {path}, line 1: memory {first} says that already: good one" in known.stderr
    again = [json.loads(line) for line in run("import", path, "--json").stdout.splitlines()]
    assert [event["type"] for event in again] == ["error", "error", "summary"]
    assert again[-1] == {
        "type": "summary",
        "lines": 3,
        "added": 0,
        "duplicates": 2,
        "updated": 0,
        "unchanged": 0,
        "errors": 2,
        "ok": False,
    }


def test_a_file_that_cannot_be_read_does_not_keep_the_others_out(
    workspace: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(b"no gzip")
    lines_file(tmp_path / "b.jsonl", 3)
    result = run("import", tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl")
    assert result.exit_code == 1
    assert "a.jsonl.gz cannot be read" in result.stderr
    assert result.stdout == "3 added\n"
    assert run("import", tmp_path / "a.jsonl.gz", "--stop-on-error").exit_code == 1


def test_a_command_that_cannot_be_carried_out_leaves_nothing_to_continue(
    workspace: Path, tmp_path: Path
) -> None:
    path = tmp_path / "people.csv"
    path.write_text("who,text\nBen,plays the cello\n")
    result = run("import", path, "--source-column", "nope")
    assert result.exit_code == 2
    assert "continues" not in result.stderr
    assert journals(tmp_path) == []


def test_lines_with_a_bad_first_one_are_lines_all_the_same(workspace: Path, tmp_path: Path) -> None:
    bad, empty = tmp_path / "bad.jsonl", tmp_path / "empty.jsonl"
    bad.write_bytes(b'\xff\xfd\n{"text": "the second line"}\n')
    empty.touch()
    result = run("import", bad, empty)
    assert (result.exit_code, result.stdout) == (1, "1 added\n")
    assert f"{bad}, line 1" in result.stderr


def test_stop_on_error_ends_at_the_first_bad_memory(workspace: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    bad = {"text": "two", "source": "x" * 600}
    path.write_text(
        "".join(json.dumps(row) + "\n" for row in ({"text": "one"}, bad, {"text": "3"}))
    )
    result = run("import", path, "--stop-on-error")
    assert result.exit_code == 1
    assert f"{path}, line 2" in result.stderr
    assert [memory["text"] for memory in stored()] == ["one"]


def test_a_dry_run_sends_nothing(workspace: Path, tmp_path: Path) -> None:
    result = run("import", lines_file(tmp_path / "x.jsonl", 5), "--dry-run", "--json")
    assert [json.loads(line)["source"] for line in result.stdout.splitlines()][:2] == ["s/0", "s/1"]
    assert stored() == []


def test_what_other_programs_kept_comes_in_once_with_its_dates(
    workspace: Path, tmp_path: Path
) -> None:
    at = "2025-02-03T04:05:06+00:00"
    head = {"_header": True, "count": 1}
    lines = [head, {"text": "of the original", "source": "o", "created_at": at}]
    said = {"id": "m", "author": {"role": "user"}, "content": {"parts": ["of ChatGPT"]}}
    files = {
        "memories.jsonl": "\n".join(map(json.dumps, lines)),
        "service.json": json.dumps(
            {"memories": [{"content": "of a service", "content_hash": "h", "created_at": at}]}
        ),
        "conversations.json": json.dumps(
            [{"id": "c", "create_time": 1738555506, "mapping": {"n": {"message": said}}}]
        ),
        "list.json": json.dumps([{"id": "x", "content": "of a list", "created_at": at}]),
        "paper.odt": "PK",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    paths = [tmp_path / name for name in files]

    dry = run("import", *paths, "--dry-run")
    assert dry.exit_code == 0
    assert f"{tmp_path}/conversations.json: 1 memory (chatgpt)" in dry.stderr
    assert "4 memories would be sent" in dry.stderr
    assert stored() == []
    first = run("import", *paths)
    assert (first.exit_code, first.stdout) == (0, "4 added\n"), first.stderr
    assert f"Skipped {tmp_path}/paper.odt: a word processor's file is not read" in first.stderr
    memories = stored()
    assert {memory["timestamp"][:19] for memory in memories} == {at[:19]}
    for again in (paths, [*paths, "--no-resume"]):
        assert run("import", *again).stdout == "0 added, 4 known already\n"
    assert stored() == memories


def test_a_change_of_a_note_s_fields_alone_is_followed(workspace: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    for status in ("draft", "done"):
        (notes / "a.md").write_text(f"---\nstatus: {status}\n---\nwords\n")
        assert run("watch", notes, "--once").exit_code == 0
        [memory] = stored()
        assert memory["metadata"] == {"status": status, "passage_context": "a"}
    run("update", str(memory["id"]), "--metadata", '{"status": "done", "by": "me"}')
    [noted] = stored()
    assert noted["metadata"] == {"status": "done", "by": "me", "passage_context": "a"}
    assert run("watch", notes, "--once").exit_code == 0
    assert stored() == [noted]


@pytest.mark.parametrize("command", [("import",), ("watch", "--once")])
def test_a_new_heading_row_changes_every_passage_below_it(
    workspace: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    rows = "".join(f"| host{n} | Dana | rack {n} |\n" for n in range(90))
    for head in ("| host | owner | place |", "| host | keeper | place |"):
        (notes / "a.md").write_text(f"# Hosts\n\n{head}\n|---|---|---|\n{rows}")
        assert run(*command, notes).exit_code == 0
        above = {memory["metadata"].get("passage_context") for memory in stored()}
        assert above == {None, head.strip("| ")}


def test_a_directory_s_documents_that_cannot_be_read_are_named(
    workspace: Path, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    for name in ("a.odt", "conversations.json"):
        (notes / name).write_text("{}")
    nothing = run("import", notes)
    assert nothing.exit_code != 0
    assert "a.odt: a word processor's file is not read" in nothing.stderr
    assert "conversations.json" in nothing.stderr
    (notes / "a.md").write_text("some words")
    result = run("import", notes)
    assert (result.exit_code, result.stdout) == (0, "1 added\n")


def test_text_files_read_again_take_the_place_of_what_they_said(
    workspace: Path, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "a.md").write_text("# A\n\nbefore\n")
    assert run("import", notes, "--source", "n/").stdout == "1 added\n"
    assert run("import", notes, "--source", "n/").stdout == "0 added, 1 known already\n"
    (notes / "a.md").write_text("# A\n\nafter\n")
    assert run("import", notes, "--source", "n/").stdout == "0 added, 1 updated\n"
    [memory] = stored()
    assert (memory["source"], memory["text"]) == ("n/a.md:chunk_0", "A\n\nafter")


def sources_of(*texts: str) -> list[list[str]]:
    return [[m["source"] for m in stored() if text in m["text"]] for text in texts]


def test_directories_of_one_name_never_meet(workspace: Path, tmp_path: Path) -> None:
    for place in ("work", "home"):
        (tmp_path / place / "notes").mkdir(parents=True)
        (tmp_path / place / "notes" / "a.md").write_text(f"from {place}\n")
    (workspace / "notes").mkdir()
    (workspace / "notes" / "a.md").write_text("of the service\n")

    for place in ("work", "home"):
        assert run("import", tmp_path / place / "notes").stdout == "1 added\n"
    assert run("build").exit_code == 0

    assert [len(found) for found in sources_of("from work", "from home", "of the service")] == [
        1,
        1,
        1,
    ]


@pytest.mark.parametrize("inside", [True, False])
def test_a_file_has_one_copy_whichever_command_reads_it(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    top = (workspace if inside else tmp_path) / "one" / "deep"
    top.mkdir(parents=True)
    path = top / "a.md"
    path.write_text("# A\n\nfirst words\n")
    monkeypatch.chdir(top)

    assert run("import", path).stdout == "1 added\n"
    [memory] = stored()
    commands: list[list[str | Path]] = [
        ["import", "a.md"],
        ["import", ".", "--no-deduplicate"],
        ["import", str(top.parent / "*" / "*.md")],
        ["watch", top, "--once"],
        ["watch", top.parent, "--once"],
        ["build" if inside else "import", path],
        ["import", top.parent],
    ]
    for command in commands:
        result = run(*command)
        assert result.exit_code == 0, result.output
        assert stored() == [memory], command
    path.write_text("other words\n")
    assert run("watch", top, "--once").exit_code == 0
    assert [m["text"] for m in stored()] == ["other words"]


@pytest.mark.parametrize("named", [True, False])
def test_a_file_that_became_shorter_leaves_nothing_behind(
    workspace: Path, tmp_path: Path, named: bool
) -> None:
    path, beside = tmp_path / "a.md", tmp_path / "a.md:chunk_b.md"
    options = ["--source", "n/"] if named else []
    path.write_text("".join(f"# Part {n}\n\nwords of part {n}\n\n" for n in range(5)))
    beside.write_text("another file\n")
    run("add", "somebody's own", "-s", f"{path_name(path)}:chunk_4", "--key", "mine")
    assert run("import", path, beside, *options).stdout == "6 added\n"

    path.write_text("# Part 0\n\nwords of part 0\n")
    assert run("import", path, *options).stdout == "0 added, 1 updated, 4 removed\n"
    assert sorted(m["text"] for m in stored()) == [
        "Part 0\n\nwords of part 0",
        "another file",
        "somebody's own",
    ]
    path.write_text("")
    assert run("import", path, *options).stdout == "0 added, 1 removed\n"


def test_a_named_root_may_lie_elsewhere_the_next_time(workspace: Path, tmp_path: Path) -> None:
    for place in ("first", "second"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.md").write_text("the same words\n")
    (tmp_path / "second" / "b.md").write_text("more words\n")

    for place in ("first", "second"):
        assert run("import", tmp_path / place, "--source", "n/").exit_code == 0

    assert sorted(m["source"] for m in stored()) == ["n/a.md:chunk_0", "n/b.md:chunk_0"]


def test_files_that_would_replace_each_other_are_refused_before_anything_is_sent(
    workspace: Path, tmp_path: Path
) -> None:
    for place in ("b", "c"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "README.md").write_text(f"about {place}\n")

    result = run("import", tmp_path / "b", tmp_path / "c", "--source", "x/")

    assert result.exit_code == 2
    assert f"{tmp_path / 'b' / 'README.md'} and {tmp_path / 'c' / 'README.md'}" in result.stderr
    assert stored() == []
    assert run("import", str(tmp_path / "*" / "README.md"), "--source", "x/").stdout == "2 added\n"


def test_what_is_piped_in_replaces_nothing(workspace: Path) -> None:
    for _ in range(2):
        run("import", "-", stdin="first note")
        run("import", "-", stdin="second note")

    assert sorted(m["text"] for m in stored()) == ["first note", "second note"]


def test_an_import_killed_again_and_again_ends_as_an_uninterrupted_one(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lines_file(tmp_path / "many.jsonl", 3 * MAX_PART_LINES + 17)
    command = [sys.executable, "-m", "scripts.cli.app", "import", str(path), "--no-deduplicate"]
    for n_done in (1, 2):
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as client:
            eventually(
                lambda n=n_done: (  # type: ignore[misc]
                    any(len(j.read_text().splitlines()) > n for j in journals(tmp_path))
                    or client.poll() is not None
                )
            )
            client.send_signal(signal.SIGKILL if n_done == 1 else signal.SIGINT)
    assert journals(tmp_path), "the import was through before it could be killed"
    result = run("import", path, "--no-deduplicate")
    assert result.exit_code == 0, result.output
    assert "Continuing after" in result.stderr
    assert result.stdout == f"{3 * MAX_PART_LINES + 17:,} added\n"
    expected = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    assert [memory["text"] for memory in exported()] == expected
    assert journals(tmp_path) == []
    assert run("delete", "--source", "s/", "--yes").exit_code == 0


def exported(*options: str) -> list[dict[str, Any]]:
    result = run("export", *options)
    assert result.exit_code == 0, result.output
    return [row for line in result.stdout.splitlines() if "text" in (row := json.loads(line))]


def test_a_part_whose_answer_breaks_off_is_sent_again_and_nothing_is_added_twice(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, n_asked = sending._events, 0

    def broken(answer: Any) -> Iterator[dict[str, Any]]:
        nonlocal n_asked
        n_asked += 1
        events = whole(answer)
        if n_asked == 1:
            yield next(events)
        else:
            yield from events

    monkeypatch.setattr(sending, "_events", broken)
    monkeypatch.setattr(sending, "_PAUSE_S", 0.0)
    result = run("import", lines_file(tmp_path / "x.jsonl", 50), "--no-deduplicate")
    assert result.stdout == "50 added\n"
    assert n_asked == 2
    assert len(stored()) == 50


def test_a_service_that_restarts_in_mid_import_is_waited_for_longer_than_one_request_waits(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, refusals = Service.call, [RefusedError(503, "restarting"), RefusedError(429, "full")]

    def refusing(service: Service, method: str, path: str, **more: Any) -> Any:
        if path == "/import" and refusals:
            raise refusals.pop()
        return whole(service, method, path, **more)

    monkeypatch.setattr(Service, "call", refusing)
    monkeypatch.setattr(sending, "_PAUSE_S", 0.0)
    assert run("import", lines_file(tmp_path / "x.jsonl", 5)).stdout == "5 added\n"
    assert refusals == []


def test_an_export_reproduces_an_empty_store_s_former_memories(
    workspace: Path, tmp_path: Path
) -> None:
    for text, more in (("one", ["-m", '{"n": [1]}']), ("one", []), ("two", ["--key", "k"])):
        run("add", text, "-s", "p/x", "--no-deduplicate", *more)
    before = exported("--embeddings")
    out = tmp_path / "all.jsonl"
    assert json.loads(run("export", "-o", out, "--embeddings", "--json").stdout)["count"] == 3
    assert run("delete", "--source", "p/", "--yes").exit_code == 0

    result = run("import", out)

    assert result.stdout == "3 added\n", result.output
    after = exported("--embeddings")
    assert [{**m, "id": 0} for m in after] == [{**m, "id": 0} for m in before]
    assert run("import", out).stdout == "0 added, 3 known already\n"


@pytest.mark.parametrize("option", [(), ("--no-deduplicate",), ("--deduplicate",)])
def test_an_export_brings_back_what_is_missing_and_nothing_else(
    workspace: Path, tmp_path: Path, option: tuple[str, ...]
) -> None:
    out, twice = tmp_path / "all.jsonl", tmp_path / "twice.jsonl"
    moment = "2026-03-01T00:00:00Z"
    rows = [{"text": "it rained", "source": "p/t", "timestamp": moment} for _ in range(3)]
    twice.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("import", twice, "--no-deduplicate").stdout == "3 added\n"
    for n in range(4):
        run("add", f"The meter reads {n} of 10.", "-s", "p/x", "--no-deduplicate")
    run("add", "kept by key", "-s", "p/x", "--key", "k")
    assert run("export", "-o", out).exit_code == 0
    before = {(m["text"], m["source"], m["timestamp"], m["key"]) for m in stored()}
    gone = [m["id"] for m in stored() if m["text"] in ("The meter reads 2 of 10.", "kept by key")]
    rainy = next(m["id"] for m in stored() if m["text"] == "it rained")
    for memory_id in (*gone, rainy):
        assert run("delete", str(memory_id)).exit_code == 0
    run("add", "newer", "-s", "p/x")

    first, second = run("import", out, *option), run("import", out, *option)

    assert (first.stdout, second.stdout) == (
        "3 added, 5 known already\n",
        "0 added, 8 known already\n",
    ), first.stderr
    after = [(m["text"], m["source"], m["timestamp"], m["key"]) for m in stored()]
    assert len(after) == 9
    assert {row for row in after if row[0] != "newer"} == before


def test_what_changed_since_an_export_stays_changed(workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / "all.jsonl"
    run("add", "older", "-s", "p/x", "--key", "k")
    assert run("export", "-o", out).exit_code == 0
    run("add", "newer", "-s", "p/x", "--key", "k")

    assert run("import", out).stdout == "0 added, 1 known already\n"
    assert [memory["text"] for memory in stored()] == ["newer"]


def test_a_day_counts_whole_in_every_command(workspace: Path, tmp_path: Path) -> None:
    path = tmp_path / "dated.jsonl"
    times = {"new year": "2026-04-01T00:00:00Z", "last": "2026-03-31T22:30:00Z"}
    path.write_text(
        "".join(
            json.dumps({"text": text, "source": "d", "timestamp": time}) + "\n"
            for text, time in times.items()
        )
    )
    assert run("import", path).stdout == "2 added\n"

    for command in (["list"], ["search", "last"], ["export"]):
        day = run(*command, "--since", "2026-03", "--until", "2026-03-31")
        assert "last" in day.stdout
        assert "new year" not in day.stdout
        elsewhere = run(*command, "--since", "2026-04-01", "--timezone", "Europe/Berlin")
        assert "last" in elsewhere.stdout
        unknown = run(*command, "--since", "soon")
        assert unknown.exit_code != 0
        assert "yesterday" in unknown.stderr
    newest = [
        json.loads(line)["text"]
        for line in run("list", "--newest", "--json").stdout.split("\n")[:2]
    ]
    assert newest == ["new year", "last"]


def test_an_export_that_breaks_off_leaves_the_file_as_it_was(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scripts.cli import exporting

    run("add", "something")
    whole = exporting._whole_lines
    monkeypatch.setattr(exporting, "_whole_lines", lambda answer: list(whole(answer))[:-1])
    out = tmp_path / "all.jsonl"
    out.write_text("older")
    result = run("export", "-o", out)
    assert result.exit_code == 3
    assert "broke off after 1 memories" in result.stderr
    assert out.read_text() == "older"
    assert os.listdir(tmp_path) == ["all.jsonl"]  # noqa: PTH208


def test_an_export_goes_through_a_link_and_into_a_pipe(workspace: Path, tmp_path: Path) -> None:
    run("add", "an apple")
    target, link, pipe = tmp_path / "target", tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(target)
    os.mkfifo(pipe)
    assert run("export", "-o", link).exit_code == 0
    with ThreadPoolExecutor() as threads:
        piped = threads.submit(pipe.read_bytes)
        assert run("export", "-o", pipe).exit_code == 0
    assert link.is_symlink()
    assert pipe.is_fifo()
    texts = [json.loads(line).get("text") for line in piped.result().splitlines()]
    assert texts == [json.loads(line).get("text") for line in target.read_bytes().splitlines()]
    assert "an apple" in texts


def test_a_build_takes_paths_as_the_shell_gives_them(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / "docs").mkdir(exist_ok=True)
    (workspace / "docs" / "b.md").write_text("# B\n\nwords\n")
    monkeypatch.chdir(workspace / "docs")
    assert run("build", "b.md").stdout == "1 file: 1 passage added, 0 removed, 0 unchanged\n"
    assert [memory["source"] for memory in stored()] == ["docs/b.md:chunk_0"]
    outside = run("build", str(tmp_path))
    assert outside.exit_code == 2
    assert f"outside the service's workspace {workspace}" in outside.stderr
    assert "faiss-memory import" in outside.stderr


@pytest.mark.parametrize("inside", [True, False])
def test_a_watched_directory_and_its_memories_stay_in_step(
    workspace: Path, tmp_path: Path, inside: bool
) -> None:
    top = (workspace if inside else tmp_path) / "watched"
    top.mkdir()
    (top / "a.md").write_text("first words\n")
    run("add", "somebody else's", "-s", "watched/z.md:chunk_0", "--key", "mine")

    root = "" if inside else f"{path_name(tmp_path)}/"

    def texts() -> dict[str, str]:
        return {m["source"].removeprefix(root): m["text"] for m in stored() if m["key"] != "mine"}

    command = [sys.executable, "-m", "scripts.cli.app", "watch", str(top)]
    log = tmp_path / "watch.log"
    with log.open("w") as output, subprocess.Popen(command, cwd=ROOT, stderr=output) as watcher:
        try:
            eventually(lambda: "Stop with Ctrl-C" in log.read_text() or watcher.poll() is not None)
            assert texts() == {"watched/a.md:chunk_0": "first words"}, log.read_text()
            (top / "a.md").write_text("other words\n")
            (top / "deep").mkdir()
            (top / "deep" / "b.txt").write_text("deep words\n")
            both = {
                "watched/a.md:chunk_0": "other words",
                "watched/deep/b.txt:chunk_0": "deep words",
            }
            eventually(lambda: texts() == both)
            (top / "deep").rename(tmp_path / "gone")
            (top / "a.md").write_text("")
            eventually(lambda: texts() == {})
        finally:
            watcher.send_signal(signal.SIGINT)
    assert watcher.returncode == 0, log.read_text()
    assert ("is in the service's workspace" in log.read_text()) is inside
    assert [m["text"] for m in stored() if m["key"] == "mine"] == ["somebody else's"]


def test_secrets_are_taken_out_before_anything_is_sent(workspace: Path, tmp_path: Path) -> None:
    secret = "ghp_" + "Ab3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC2"
    lines = tmp_path / "lines.jsonl"
    lines.write_text(json.dumps({"text": f"push with {secret}", "source": "s"}) + "\n")
    (workspace / "note.md").write_text(f"pull with {secret}\n")
    said = run("import", lines, workspace / "note.md", "--redact", "--json")
    assert json.loads(said.stdout.splitlines()[-1])["redacted"] == {"github": 2}
    assert "github (1)" in run("add", f"fetch with {secret}", "--redact").stderr
    added = next(memory["id"] for memory in stored() if memory["text"].startswith("fetch"))
    assert "github (1)" in run("update", str(added), f"clone with {secret}", "--redact").stderr
    assert sorted(memory["text"] for memory in stored()) == [
        "clone with [redacted:github]",
        "pull with [redacted:github]",
        "push with [redacted:github]",
    ]


def test_a_watched_directory_is_read_without_its_secrets_and_sent_once(
    workspace: Path, tmp_path: Path
) -> None:
    secret = "ghp_" + "Ab3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC2"
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "a.md").write_text(f"pull with {secret}\n")
    assert "1 passage sent" in run("watch", tmp_path / "top", "--redact", "--once").stdout
    assert run("watch", tmp_path / "top", "--redact", "--once").stdout == ""
    assert [memory["text"] for memory in stored()] == ["pull with [redacted:github]"]


def test_the_same_memories_give_the_same_bounded_parts() -> None:
    long = "x" * (MAX_PART_BYTES // 3)
    memories = [
        Memory(line={"text": long if n < 9 else "short", "source": "s"}, origin=str(n))
        for n in range(9 + MAX_PART_LINES + 1)
    ]
    parts = list(parts_of(memories))
    assert [part.content for part in parts] == [part.content for part in parts_of(memories)]
    assert [origin for part in parts for origin in part.origins] == [m.origin for m in memories]
    assert all(len(part.lines) <= MAX_PART_LINES for part in parts)
    assert all(len(part.content) <= MAX_PART_BYTES for part in parts)


def test_a_journal_is_one_run_s_and_survives_a_cut_off_line(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    first = Journal(path, deduplicate=False)
    first.note(0, b"content", Tally(lines=3, added=3))
    with pytest.raises(CliError, match="running already"):
        Journal(path, deduplicate=False)
    key = first.key(1)
    first.close(complete=False)
    with path.open("a") as file:
        file.write('{"part": 1, "dig')
    second = Journal(path, deduplicate=True)
    assert (second.key(1), second.deduplicate, second.n_before) == (key, False, 3)
    assert second.outcome(0, b"content") == Tally(lines=3, added=3)
    assert second.outcome(0, b"changed") is None
    second.note(1, b"more", Tally(lines=1, added=1))
    second.close(complete=False)
    third = Journal(path, deduplicate=True)
    assert third.n_before == 4
    third.close(complete=True)
    assert not path.exists()
