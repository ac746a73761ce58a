"""`import` and `watch` of transcripts, against the service's own routes and store."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from scripts.cli.app import app
from tests import ROOT
from tests.support.light_service import light_service
from tests.support.transcripts import SECRET, claude_line, codex_session, generated, said, write

PATIENCE_S = 120


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home directory, beside an empty service that commands find."""
    for name in ("FAISS_API_KEY", "CLAUDE_CONFIG_DIR", "CODEX_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with light_service(tmp_path / "light") as url:
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("FAISS_URL", url)
        yield tmp_path / "home"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def stored() -> dict[str, str]:
    """What each turn says, by its source and key."""
    lines = run("list", "--all", "--json").stdout.splitlines()
    return {f"{m['source']} {m['key']}": m["text"] for m in map(json.loads, lines)}


def eventually(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s, "it never came true"
        time.sleep(0.1)


def session(home: Path, *prompts: str) -> Path:
    rows: list[dict[str, Any]] = []
    for n, prompt in enumerate(prompts):
        rows += [
            claude_line("user", prompt, 2 * n, promptId=f"p{n}"),
            claude_line("assistant", said(f"answer {n}"), 2 * n + 1),
        ]
    return write(home / ".claude/projects/-nowhere-app/s1.jsonl", *rows)


def test_transcripts_are_found_where_they_are_kept_and_imported_once(home: Path) -> None:
    session(home, f"push with {SECRET}")
    write(home / ".codex/sessions/2026/11/30/rollout-1.jsonl", *codex_session(("one", "1")))

    assert run("import", "--format", "claude-code").stdout == "1 added\n"
    assert run("import", "--format", "codex").stdout == "1 added\n"
    both = {
        "project/app s1/p0": "User: push with [redacted:github]\n\nAssistant: answer 0",
        "project/app c1/c1-t1": "User: one\n\nAssistant: 1",
    }
    assert stored() == both
    assert run("import", "--format", "claude-code").stdout == "0 added, 1 known already\n"
    session(home, f"push with {SECRET}", "and pull")
    assert run("import", "--format", "claude-code").stdout == "1 added, 1 known already\n"
    assert stored() == both | {"project/app s1/p1": "User: and pull\n\nAssistant: answer 1"}


def test_a_transcript_is_known_without_its_format_and_keeps_secrets_when_told(home: Path) -> None:
    path = session(home, f"push with {SECRET}")
    assert run("import", path, "--no-redact", "--source", "mine/").stdout == "1 added\n"
    assert stored() == {"mine/app s1/p0": f"User: push with {SECRET}\n\nAssistant: answer 0"}


def test_a_dry_run_counts_before_anything_is_sent(home: Path) -> None:
    session(home, f"push with {SECRET}", "and pull")
    told = run("import", "--format", "claude-code", "--dry-run").stderr
    assert "1 session of 1 project, 2 turns" in told
    assert "project/app: 2 turns" in told
    assert "Secrets replaced: github (1)." in told
    assert stored() == {}


def test_without_transcripts_or_files_it_says_what_is_missing(home: Path) -> None:
    home.mkdir()
    assert run("import", "--format", "codex").exit_code == 4
    assert run("import").exit_code == 2
    assert run("watch", "--format", "csv").exit_code == 2


def test_a_broken_line_is_told_and_the_rest_is_in(home: Path) -> None:
    path = session(home, "one")
    path.write_bytes(b"{broken\n" + path.read_bytes())
    result = run("import", "--format", "claude-code")
    assert result.exit_code == 1
    assert f"{path}, line 1: no JSON" in result.stderr
    assert list(stored()) == ["project/app s1/p0"]


def test_an_import_killed_three_times_ends_as_an_uninterrupted_one(home: Path) -> None:
    n_turns = generated(home / ".claude/projects", 10_000_000, tool_chars=100)
    command = [sys.executable, "-m", "scripts.cli.app", "import", "--format", "claude-code"]
    n_before = 0
    for _ in range(3):
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as importing:
            while len(stored()) == n_before and importing.poll() is None:
                time.sleep(0.05)
            importing.kill()
        n_before = len(stored())
    assert 0 < n_before < n_turns
    assert run("import", "--format", "claude-code").exit_code == 0
    interrupted = stored()
    assert len(interrupted) == n_turns

    assert run("delete", "--source", "project/", "--yes").exit_code == 0
    assert run("import", "--format", "claude-code", "--no-resume").exit_code == 0
    assert stored() == interrupted


def test_a_watched_transcript_is_followed_and_its_turns_outlive_it(
    home: Path, tmp_path: Path
) -> None:
    path = session(home, "one")
    command = [sys.executable, "-m", "scripts.cli.app", "watch", "--format", "claude-code"]
    log = tmp_path / "watch.log"
    with log.open("w") as output, subprocess.Popen(command, cwd=ROOT, stderr=output) as watcher:
        try:
            eventually(lambda: "Stop with Ctrl-C" in log.read_text() or watcher.poll() is not None)
            assert list(stored()) == ["project/app s1/p0"], log.read_text()
            session(home, "one", f"push {SECRET}")
            eventually(lambda: len(stored()) == 2)
            path.unlink()
            other = codex_session(("one", "1"))
            write(path.with_name("ignored.jsonl"), *other)
        finally:
            watcher.send_signal(signal.SIGINT)
    assert watcher.returncode == 0, log.read_text()
    assert stored() == {
        "project/app s1/p0": "User: one\n\nAssistant: answer 0",
        "project/app s1/p1": "User: push [redacted:github]\n\nAssistant: answer 1",
    }
