"""The faiss-memory command beside a stand-in service: what it prints, asks, and exits with."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from scripts.cli.app import COMMANDS, app
from scripts.cli.errors import RefusedError
from scripts.cli.readers import Format
from scripts.cli.service import Service
from tests import ROOT
from tests.docs.readme_commands import TEXT, first_cells
from tests.support.fake_service import FakeService, Refused, serving

COMMAND = [sys.executable, "-m", "scripts.cli.app"]
KEY = "a-key-that-nobody-may-see"


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def url(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv("FAISS_API_KEY", raising=False)
    with serving(service) as url:
        monkeypatch.setenv("FAISS_URL", url + "/")
        yield url


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=stdin)


def remember(*texts: str, source: str = "s") -> None:
    assert run("add", *texts, "--source", source).exit_code == 0


def test_what_was_added_is_found_listed_and_deleted(url: str, service: FakeService) -> None:
    added = run("add", "green tea", "-", "-s", "ann", "-m", '{"kind": "x"}', stdin="black coffee")
    assert added.stdout == "Added memory 1\nAdded memory 2\n"
    assert service.memories[2]["metadata"] == {"kind": "x"}
    assert run("add", "green tea").stdout == "Skipped: memory 1 says that already\n"

    found = run("search", "green tea", "-k", "1")
    heading, text = found.stdout.splitlines()
    assert (heading[:9], heading[25:], text) == ("1. 100%  ", "  ann  [1]", "green tea")
    assert datetime.fromisoformat(heading[9:25])
    listed = run("list")
    shown = [(row[:4], row[22:]) for row in listed.stdout.splitlines()]
    assert shown == [("[1] ", "ann — green tea"), ("[2] ", "ann — black coffee")]
    assert datetime.fromisoformat(listed.stdout[4:20])
    assert listed.stderr == "2 of 2 memories\n"

    assert run("delete", "1").stdout == "Deleted 1 memory\n"
    assert list(service.memories) == [2]


def test_a_search_is_listed_by_time_and_explained(url: str, service: FakeService) -> None:
    remember("green tea", "green tea again")
    newest = run("search", "green tea", "--order", "newest", "--json").stdout
    assert [hit["id"] for hit in json.loads(newest)["results"]] == [2, 1]
    assert run("search", "green tea", "--order", "odd").exit_code == 2

    service.memories[1]["explain"] = {
        "vector_rank": 0,
        "bm25_rank": None,
        "matched": ["green", "tea"],
        "score": {"meaning": 0.5, "words": 0.25, "neighbours": 0, "recency": 0.9},
    }
    dropped = {"threshold": 3, "filter": 0, "expired": 0, "superseded": 0}
    service.extra["/search"] = {"explain": {"candidates": 9, "dropped": dropped}}
    told = run("search", "green tea", "-k", "1", "--explain")
    assert service.bodies[-1]["explain"] is True
    assert told.stdout.splitlines()[1] == (
        "   by meaning #0, by words unranked (green, tea): "
        "(0.500 meaning + 0.250 words + 0.000 neighbours) x 0.900 recency"
    )
    assert told.stderr == "9 candidates; dropped: 3 by threshold\n"


def test_a_timeline_is_shown_by_day(url: str, service: FakeService) -> None:
    assert run("timeline").exit_code == 4
    remember("green tea", "black coffee", "white tea")
    for memory_id in (1, 2, 3):
        service.memories[memory_id]["timestamp"] = f"2026-03-0{1 + memory_id // 2}T12:00:00+00:00"

    shown = run("timeline").stdout.splitlines()

    assert [line for line in shown if line.startswith("2026")] == ["2026-03-01", "2026-03-02"]
    assert shown[1].startswith("[1] 2026-03-01 ")
    assert shown[1].endswith("  s — green tea")
    assert shown[2:4] == ["    after it: [2] black coffee", ""]
    tea = json.loads(run("timeline", "white tea", "-k", "1", "--json").stdout)
    assert [day["memories"][0]["id"] for day in tea["days"]] == [3]


def test_a_memory_is_shown_whole_and_changed(url: str, service: FakeService) -> None:
    remember("green tea", source="ann")

    assert run("update", "1", "white tea", "-m", '{"n": 1}').stdout == "Changed memory 1\n"
    assert service.memories[1]["source"] == "ann"
    shown = run("show", "1").stdout
    assert shown.startswith("[1] ann\nstored    ")
    assert shown.endswith('metadata  {"n": 1}\n\nwhite tea\n')
    assert json.loads(run("show", "1", "--json").stdout)["text"] == "white tea"
    assert run("update", "1").exit_code == 2
    assert run("show", "9").exit_code == 1


def test_names_of_backups_are_completed(url: str, service: FakeService) -> None:
    run("backup", "--prefix", "noon")
    run("backup", "--prefix", "night")

    def completed(words: str) -> list[str]:
        shell = {"_FAISS_MEMORY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "2"}
        result = CliRunner().invoke(app, prog_name="faiss-memory", env=shell)
        return result.stdout.split()

    assert completed("faiss-memory restore no") == [service.backups[0]]
    assert sorted(completed("faiss-memory verify n")) == sorted(service.backups)
    service.refusals.append(Refused(503, "starting"))
    assert completed("faiss-memory restore no") == []


def test_json_is_one_document_a_line(url: str) -> None:
    remember("one", "two")
    memories = [json.loads(line) for line in run("list", "--json").stdout.splitlines()]
    assert [memory["text"] for memory in memories] == ["one", "two"]
    [answer] = run("search", "one", "--json").stdout.splitlines()
    assert json.loads(answer)["results"][0]["similarity"] == 1.0
    assert json.loads(run("status", "--json").stdout)["total_memories"] == 2
    assert json.loads(run("add", "three", "--json").stdout)["id"] == 3
    assert json.loads(run("delete", "3", "--json").stdout)["deleted_count"] == 1
    made = json.loads(run("backup", "--json").stdout)
    assert made["success"]
    assert json.loads(run("backup", "--list", "--json").stdout)["count"] == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["search", "one"], 0),
        (["search", "nothing like it", "--threshold", "0.9"], 4),
        (["search", "nothing like it", "--threshold", "0.9", "--json"], 4),
        (["list", "--source", "nowhere"], 0),
        (["delete", "99"], 1),
        (["delete", "--source", "nowhere", "--yes"], 4),
        (["delete"], 2),
        (["delete", "1", "--source", "s"], 2),
        (["search"], 2),
        (["search", "x", "-k", "101"], 2),
        (["search", "x", "--metadata", "[]"], 2),
        (["search", "  "], 1),
        (["serch"], 2),
        (["--version"], 0),
        (["search", "-h"], 0),
        (["restore", "nope", "--yes"], 1),
        (["import", "no-such-file"], 2),
        (["search", "one", "--url", "ftp://there"], 2),
        (["search", "one", "--url", "http://127.0.0.1:1"], 3),
    ],
)
def test_exit_codes_say_how_it_ended(url: str, arguments: list[str], code: int) -> None:
    remember("one")
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert code == 0 or result.stderr or "--json" in arguments
    assert "Traceback" not in result.output


def test_a_service_that_is_not_there_is_told_in_words(url: str) -> None:
    result = run("status", "--url", "http://127.0.0.1:1/")
    assert result.stderr == (
        "faiss-memory: The service at http://127.0.0.1:1 does not answer (Connection refused). "
        "Start it with `make serve` or `faiss-memory serve`.\n"
    )
    assert "FAISS_URL" in run("status", "--url", "http://there.invalid").stderr


def test_a_misspelt_command_and_a_wrong_address_are_told_what_may_be_meant(url: str) -> None:
    assert "Did you mean 'search'" in run("serch").stderr
    assert "check FAISS_URL" in run("search", "x", "--url", f"{url}/elsewhere").stderr


def test_help_and_complaints_import_neither_rich_nor_the_service() -> None:
    code = (
        "import sys; from scripts.cli.app import app\n"
        "for words in (['--help'], ['search', '--help'], ['search', '-k', 'x']):\n"
        "    try: app(words)\n"
        "    except SystemExit: pass\n"
        "print(sorted({'rich', 'ray', 'faiss', 'httpx', 'numpy'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.endswith("[]\n"), result.stdout


def test_something_else_that_answers_is_no_service(tmp_path: Path) -> None:
    (tmp_path / "stats").write_text("hello")
    code = "import http.server; http.server.test(http.server.SimpleHTTPRequestHandler, port=0)"
    with subprocess.Popen(
        [sys.executable, "-uc", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        port = server.stdout.readline().split(" port ")[1].split()[0]
        result = run("status", "--url", f"http://127.0.0.1:{port}")
        server.terminate()
    assert result.exit_code == 1
    assert "is no FAISS Memory service" in result.stderr


def test_the_key_is_sent_and_never_shown(
    url: str, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.api_key = KEY
    refused = run("status")
    assert refused.exit_code == 1
    assert "Set FAISS_API_KEY" in refused.stderr
    monkeypatch.setenv("FAISS_API_KEY", KEY)
    outputs = [run("status"), run("status", "--help"), run("search", "x", "--url", "http://[")]
    assert [result.exit_code for result in outputs] == [0, 0, 2]
    assert not any(KEY in result.output for result in outputs)


def test_a_busy_service_is_waited_for(
    url: str, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    service.refusals = [Refused(429, "busy", {"Retry-After": "3"}), Refused(503, "starting")]
    assert run("add", "patience").exit_code == 0
    assert waits[0] == 3.0
    assert len(service.memories) == 1


def test_a_service_that_is_still_starting_is_told_from_one_that_refuses(
    url: str, service: FakeService
) -> None:
    for status, code in ((503, 3), (429, 1), (422, 1)):
        service.refusals = [Refused(status, "no")]
        with pytest.raises(RefusedError) as refusal:
            Service(url, patience_s=0).get("/stats")
        assert refusal.value.exit_code == code


def test_an_add_whose_answer_is_lost_happens_once(url: str, service: FakeService) -> None:
    service.answers_to_lose = 1
    assert run("add", "once", "--no-deduplicate").stdout == "Added memory 1\n"
    assert len(service.memories) == 1


EVIL = "a\x1b[31mred\x1b]0;title\x07 \x9b2J \u202eltr [bold]b[/bold] [link=x]\r\x08 z"


@pytest.mark.parametrize("arguments", [["search", "red"], ["list"]])
def test_a_memory_cannot_steer_the_terminal(url: str, arguments: list[str]) -> None:
    remember(EVIL, source="s\x1b[2J\n[red]")
    output = run(*arguments).stdout
    assert not [
        c for c in output if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 or c == "\u202e"
    ]
    assert r"\x1b[31mred\x1b]0;title\x07 \x9b2J \u202eltr [bold]b[/bold] [link=x]" in output
    shown = run(*arguments, "--json").stdout
    assert not {"\x1b", "\x9b", "\u202e"} & set(shown)
    document = json.loads(shown)
    assert (document["results"][0] if "results" in document else document)["text"] == EVIL


def on_a_terminal(*arguments: str, typed: str) -> tuple[int, str]:
    """Run the command on a terminal of its own; returns its exit code and what it showed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [*COMMAND, *arguments])
    shown, asked = b"", False
    while True:
        ready, _, _ = select.select([terminal], [], [], 60)
        try:
            read = os.read(terminal, 65536) if ready else b""
        except OSError:  # the other side is closed
            read = b""
        if not read:
            break
        shown += read
        if not asked and b"[y/N]" in shown:
            os.write(terminal, typed.encode())
            asked = True
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown.decode()


def test_deleting_many_asks_a_person_and_wants_yes_from_a_program(
    url: str, service: FakeService
) -> None:
    remember("one", "two", source="mine")
    nobody = run("delete", "--source", "mine")
    assert nobody.exit_code == 2
    assert "--yes" in nobody.stderr
    code, shown = on_a_terminal("delete", "--source", "mine", typed="n\n")
    assert (code, len(service.memories)) == (1, 2)
    assert "Delete 2 memories whose source contains 'mine'?" in shown
    assert "Nothing was changed" in shown
    code, shown = on_a_terminal("delete", "--source", "mine", typed="y\n")
    assert (code, len(service.memories)) == (0, 0), shown


def test_a_source_can_be_named_exactly(url: str, service: FakeService) -> None:
    remember("one", source="project-1")
    remember("two", source="project-10")

    for command in (["search", "one two"], ["list"]):
        result = run(*command, "--source-exact", "project-1", "--json")
        assert '"project-1"' in result.stdout
        assert "project-10" not in result.stdout
    deleted = run("delete", "--source-exact", "project-1", "--yes")
    assert deleted.stdout == "Deleted 1 memory\n"
    assert [memory["source"] for memory in service.memories.values()] == ["project-10"]
    again = run("delete", "--source-exact", "project-1", "--yes")
    assert "No memory has a source that is 'project-1'." in again.stderr


def test_restoring_asks_too(url: str, service: FakeService) -> None:
    [name] = run("backup").stdout.split()
    assert run("restore", name).exit_code == 2
    assert "POST /restore" not in service.requests
    assert run("restore", name, "--yes").exit_code == 0


def test_a_search_imports_neither_the_engine_nor_what_is_slow(url: str) -> None:
    remember("fast")
    code = (
        "import sys; sys.argv[1:] = ['search', 'fast']\n"
        "from scripts.cli.app import app\n"
        "app(standalone_mode=False)\n"
        "slow = {'ray', 'faiss', 'engine', 'deployments', 'numpy', 'httpx', 'rich', 'pydantic'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "[1]" in done.stdout


def test_the_shell_completes_commands() -> None:
    done = subprocess.run(
        COMMAND,
        cwd=ROOT,
        env={
            **os.environ,
            "_FAISS_MEMORY_COMPLETE": "complete_bash",
            "COMP_WORDS": "faiss-memory s",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["serve", "service", "setup", "status", "search", "show"]


def test_every_command_and_format_is_documented() -> None:
    documented = first_cells(TEXT, "Command line")
    formats = [format.value for format in Format if format is not Format.AUTO]
    assert documented == [*COMMANDS, *formats]


def test_every_command_explains_itself() -> None:
    for name in COMMANDS:
        result = run(name, "--help")
        assert result.exit_code == 0, result.output
        assert f"{name} [OPTIONS]" in result.output


def test_a_reader_that_goes_away_is_no_error(url: str) -> None:
    remember(*(f"number {n}" for n in range(30)))
    piped = subprocess.run(
        f"{' '.join(COMMAND)} list --all | head -1",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert piped.stdout.endswith("  s — number 0\n")
    assert "Traceback" not in piped.stderr
