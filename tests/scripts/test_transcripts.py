"""Transcripts of Claude Code and Codex: what becomes a turn, and which project it is of."""

from __future__ import annotations

import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import zstandard

from scripts.cli.readers import Format, kind_of, read
from scripts.cli.readers.inputs import InputFile
from scripts.cli.readers.records import Memory, Options, Unreadable
from scripts.cli.readers.secrets import Secrets
from scripts.cli.readers.transcripts.projects import project_of
from tests.support.transcripts import (
    SECRET,
    claude_line,
    codex_line,
    codex_message,
    codex_session,
    generated,
    said,
    tool_output,
    write,
)


def opened(path: Path) -> InputFile:
    return InputFile(path=path, root=path.parent, relative=path.name)


def lines_of(path: Path, **options: Any) -> list[dict[str, Any]]:
    file = opened(path)
    records = list(read(file, kind_of(file, Format.AUTO), Options(**options)))
    assert all(isinstance(record, Memory) for record in records), records
    return [record.line for record in records if isinstance(record, Memory)]


def turns(path: Path, **options: Any) -> dict[str, str]:
    return {line["key"]: line["text"] for line in lines_of(path, **options)}


def test_a_turn_is_the_prompt_and_the_last_answer(tmp_path: Path) -> None:
    path = write(
        tmp_path / "s1.jsonl",
        {"type": "permission-mode", "permissionMode": "default", "sessionId": "s1"},
        claude_line("user", "Which port?", 1, promptId="p1"),
        claude_line("assistant", said("Let me look."), 2),
        claude_line("assistant", [{"type": "tool_use", "name": "Read"}], 3),
        claude_line("user", tool_output("PORT=1"), 4, promptId="p1"),
        claude_line("assistant", [{"type": "thinking", "thinking": "hm"}], 5),
        claude_line("assistant", said("It is"), 6)
        | {"message": {"id": "m", "content": said("It is")}},
        claude_line("assistant", [], 7) | {"message": {"id": "m", "content": said("8900.")}},
        claude_line("user", said("And the host?"), 8, promptId="p2"),
    )
    assert lines_of(path)[0] == {
        "text": "User: Which port?\n\nAssistant: It is\n\n8900.",
        "source": "project/app",
        "key": "s1/p1",
        "metadata": {"session": "s1", "client": "claude-code", "branch": "main"},
        "deduplicate": False,
        "timestamp": "2026-11-30T10:00:01+00:00",
    }
    assert turns(path)["s1/p2"] == "User: And the host?"


def test_older_releases_turns_are_told_by_their_first_line(tmp_path: Path) -> None:
    path = write(
        tmp_path / "s1.jsonl",
        {"type": "summary", "summary": "A title", "leafUuid": "u2"},
        claude_line("user", "one", 1),
        claude_line("assistant", said("yes"), 2),
        claude_line("user", "two", 3),
    )
    assert turns(path) == {"s1/u1": "User: one\n\nAssistant: yes", "s1/u3": "User: two"}


@pytest.mark.parametrize(
    "line",
    [
        claude_line("user", "secret agent", 3, isSidechain=True),
        claude_line("user", "of the host", 3, isMeta=True),
        claude_line(
            "user", "<command-name>/model</command-name>\n<command-args></command-args>", 3
        ),
        claude_line("user", "<local-command-stdout>Set</local-command-stdout>", 3),
        claude_line("user", "<task-notification><id>1</id> done</task-notification>", 3),
        claude_line("user", "[Request interrupted by user for tool use]", 3),
        claude_line("user", "not this one #skip", 3),
        claude_line("user", "<private>all of it</private>", 3),
        {"type": "system", "subtype": "compact_boundary", "sessionId": "s1"},
        {"type": "attachment", "sessionId": "s1", "attachment": {"type": "hook_success"}},
    ],
)
def test_what_no_person_said_or_wants_remembered_is_no_turn(
    tmp_path: Path, line: dict[str, Any]
) -> None:
    after = claude_line("assistant", said("not said to anybody"), 4)
    first = claude_line("user", "hello", 1)
    path = write(tmp_path / "s1.jsonl", first, claude_line("assistant", said("hi"), 2), line)
    assert turns(path) == {"s1/u1": "User: hello\n\nAssistant: hi"}
    if line["type"] == "user" and not line.get("isSidechain") and not line.get("isMeta"):
        path = write(tmp_path / "s1.jsonl", first, line, after)
        assert turns(path) == {"s1/u1": "User: hello"}


def test_reminders_private_parts_and_recalled_memories_are_stripped(tmp_path: Path) -> None:
    text = (
        "Keep this.<system-reminder>\nnot this\n</system-reminder>\n"
        '<faiss-memory session="1">\nnor that\n</faiss-memory>\n'
        "<private>nor\nmy pin</private> And this."
    )
    path = write(
        tmp_path / "s1.jsonl",
        claude_line("user", text, 1),
        claude_line("assistant", said("Kept.<private>no</private>"), 2),
    )
    [only] = turns(path).values()
    assert only.split() == ["User:", "Keep", "this.", "And", "this.", "Assistant:", "Kept."]


def test_a_compaction_is_one_memory_and_the_turn_around_it_goes_on(tmp_path: Path) -> None:
    path = write(
        tmp_path / "s1.jsonl",
        claude_line("user", "long work", 1, promptId="p1"),
        claude_line("assistant", said("I begin."), 2),
        claude_line("user", "What was done.", 3, promptId="p1", isCompactSummary=True),
        claude_line("user", "long work", 1, promptId="p1"),
        claude_line("assistant", said("Done."), 4),
        claude_line("user", "next", 5, promptId="p2"),
        claude_line("user", "long work", 1, promptId="p1"),
    )
    assert turns(path) == {
        "s1/summary/1": "What was done.",
        "s1/p1": "User: long work\n\nAssistant: Done.",
        "s1/p2": "User: next",
    }


def test_a_fork_keeps_the_keys_of_what_it_copied(tmp_path: Path) -> None:
    forked = {"sessionId": "s2", "forkedFrom": {"sessionId": "s1", "messageUuid": "u1"}}
    path = write(
        tmp_path / "s2.jsonl",
        claude_line("user", "old", 1, **forked),
        claude_line("user", "new", 2, sessionId="s2"),
    )
    assert list(turns(path)) == ["s1/u1", "s2/u2"]


def test_a_codex_turn_is_what_its_user_saw(tmp_path: Path) -> None:
    path = write(
        tmp_path / "rollout-1.jsonl", *codex_session(("Which port?", "8900."), ("And?", "No."))
    )
    assert lines_of(path)[0] == {
        "text": "User: Which port?\n\nAssistant: 8900.",
        "source": "project/app",
        "key": "c1/c1-t1",
        "metadata": {"session": "c1", "client": "codex", "branch": "main"},
        "deduplicate": False,
        "timestamp": "2026-11-30T11:00:01+00:00",
    }
    assert turns(path)["c1/c1-t2"] == "User: And?\n\nAssistant: No."


def test_codex_releases_without_turn_ids_or_events_are_read(tmp_path: Path) -> None:
    events = [
        codex_line("session_meta", 0, id="c2", cwd="/nowhere/app"),
        codex_message("user", "<user_instructions>be kind</user_instructions>", 0),
        codex_line("event_msg", 1, type="user_message", message="one", kind="plain"),
        codex_message("user", "one", 1),
        codex_line("turn_context", 1, cwd="/nowhere/app"),
        codex_message("assistant", "1", 2),
        codex_line("event_msg", 2, type="agent_message", message="1"),
        codex_line("event_msg", 3, type="user_message", message="two", kind="plain"),
        codex_line("compacted", 4, message="So far: one."),
    ]
    path = write(tmp_path / "rollout-2.jsonl", *events)
    assert turns(path) == {
        "c2/1": "User: one\n\nAssistant: 1",
        "c2/summary/1": "So far: one.",
        "c2/2": "User: two",
    }
    bare = [
        {"id": "c3", "timestamp": "2025-06-01T00:00:00Z", "instructions": None},
        {"record_type": "state"},
        codex_message("user", "one", 0)["payload"],
        codex_message("assistant", "1", 0)["payload"],
        codex_message("user", "two", 0)["payload"],
    ]
    path = write(tmp_path / "rollout-3.jsonl", *bare)
    assert turns(path) == {"c3/1": "User: one\n\nAssistant: 1", "c3/2": "User: two"}


def test_codex_subagents_are_no_sessions_and_packed_files_are_read(tmp_path: Path) -> None:
    source = {"subagent": {"thread_spawn": {"parent_thread_id": "c1"}}}
    rows = codex_session(("one", "1"))
    meta = codex_line("session_meta", 0, id="c4", source=source)
    assert turns(write(tmp_path / "rollout-4.jsonl", meta, *rows[1:])) == {}
    plain = write(tmp_path / "rollout-5.jsonl", *rows)
    packed = tmp_path / "rollout-6.jsonl.zst"
    packed.write_bytes(zstandard.compress(plain.read_bytes()))
    assert turns(packed) == turns(plain)


def test_a_broken_line_is_named_and_one_that_is_being_written_is_not(tmp_path: Path) -> None:
    path = write(tmp_path / "s1.jsonl", claude_line("user", "one", 1), b"{broken")
    with path.open("ab") as file:
        file.write(b'{"type": "us')
    records = list(read(opened(path), Format.CLAUDE_CODE, Options()))
    assert [r.origin for r in records if isinstance(r, Unreadable)] == [f"{path}, line 2"]
    assert len(records) == 2


def test_a_turn_has_a_bound_and_a_secret_at_it_is_found(tmp_path: Path) -> None:
    long = "y" * 19_960 + " " + SECRET
    path = write(
        tmp_path / "s1.jsonl",
        claude_line("user", long, 1),
        claude_line("user", "q " * 9_000, 2),
        claude_line("assistant", said("a " * 90_000), 3),
    )
    secrets = Secrets()
    first, second = turns(path, secrets=secrets).values()
    assert secrets.counts == {"github": 1}
    assert SECRET[:8] not in first
    assert len(first) < 20_000 == len(second)
    assert second.count("q") > 4_000 < second.count("a ")


def git(*words: str, cwd: Path) -> None:
    subprocess.run(["git", *words], cwd=cwd, check=True, capture_output=True)


def test_worktrees_of_one_repository_are_one_project(tmp_path: Path) -> None:
    repository = tmp_path / "shop"
    repository.mkdir()
    git("init", "-q", cwd=repository)
    author = ("-c", "user.name=a", "-c", "user.email=a")
    git(*author, "commit", "-q", "--allow-empty", "-m", "a", cwd=repository)
    git("worktree", "add", "-q", str(tmp_path / "elsewhere"), cwd=repository)
    (tmp_path / "elsewhere" / "deep").mkdir()
    (tmp_path / "plain").mkdir()
    off = tmp_path / "off"
    off.mkdir()
    (off / ".faiss-memory-off").touch()

    assert project_of(str(tmp_path / "elsewhere" / "deep")) == "shop"
    assert project_of(str(repository / "gone" / "for ever")) == "shop"
    assert project_of(str(tmp_path / "plain")) == "plain"
    assert project_of(str(off / "below")) is None
    path = write(tmp_path / "s1.jsonl", claude_line("user", "one", 1, cwd=str(off)))
    assert turns(path) == {}


def test_memory_does_not_grow_with_a_transcript(tmp_path: Path) -> None:
    generated(tmp_path, 24_000_000, n_files=1)
    [path] = tmp_path.rglob("*.jsonl")
    tracemalloc.start()
    try:
        n_turns = sum(1 for _ in read(opened(path), Format.CLAUDE_CODE, Options()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert n_turns > 1_000
    assert peak < 4_000_000
