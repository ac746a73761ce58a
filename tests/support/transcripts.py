"""Transcripts as Claude Code and Codex write them, of several of their releases."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

Row = dict[str, Any]
SECRET = "ghp_" + "Ab3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC2"


def write(path: Path, *rows: Row | bytes) -> Path:
    """A transcript of these lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def claude_line(kind: str, content: object, n: int, **more: Any) -> Row:
    """A line of Claude Code; `n` is its second and its uuid."""
    message = {"role": kind, "content": content} | ({"id": f"m{n}"} if kind == "assistant" else {})
    return {
        "type": kind,
        "uuid": f"u{n}",
        "sessionId": "s1",
        "cwd": "/nowhere/app",
        "gitBranch": "main",
        "isSidechain": False,
        "timestamp": f"2026-11-30T10:{n // 60:02d}:{n % 60:02d}.000Z",
        "message": message,
    } | more


def said(text: str) -> list[Row]:
    """An assistant's content."""
    return [{"type": "text", "text": text}]


def tool_output(text: str) -> list[Row]:
    """What a tool answered, as a line of the user has it."""
    return [{"type": "tool_result", "tool_use_id": "t", "content": text}]


def codex_line(kind: str, n: int, /, **payload: Any) -> Row:
    """A line of Codex; `n` is its second."""
    at = f"2026-11-30T11:{n // 60:02d}:{n % 60:02d}.000Z"
    return {"timestamp": at, "type": kind, "payload": payload}


def codex_message(role: str, text: str, n: int) -> Row:
    """What the model got or gave."""
    kind = "output_text" if role == "assistant" else "input_text"
    content = [{"type": kind, "text": text}]
    return codex_line("response_item", n, type="message", role=role, content=content)


def codex_session(*turns: tuple[str, str], session: str = "c1", cwd: str = "/nowhere/app") -> Any:
    """A session of the newest releases."""
    git = {"branch": "main", "commit_hash": "0" * 40}
    meta = {"id": session, "cwd": cwd, "source": "cli", "git": git}
    rows = [codex_line("session_meta", 0, **meta)]
    for n, (prompt, answer) in enumerate(turns, start=1):
        turn = f"{session}-t{n}"
        rows += [
            codex_line("event_msg", n, type="task_started", turn_id=turn),
            codex_message("user", "<environment_context>\nzsh\n</environment_context>", n),
            codex_line("turn_context", n, turn_id=turn, cwd=cwd),
            codex_message("user", prompt, n),
            codex_line("event_msg", n, type="user_message", message=prompt, images=[]),
            codex_line("event_msg", n, type="agent_message", message="I look at it."),
            codex_line("response_item", n, type="function_call_output", output="x" * 100),
            codex_message("assistant", answer, n),
            codex_line("event_msg", n, type="agent_message", message=answer),
            codex_line("event_msg", n, type="task_complete", turn_id=turn),
        ]
    return rows


def generated(top: Path, n_bytes: int, *, n_files: int = 10, tool_chars: int = 8_000) -> int:
    """Write about so many bytes of Claude Code's transcripts; the number of turns."""
    rng = random.Random(7)
    words = [f"word{n}" for n in range(500)]
    n_turns = 0
    for number in range(n_files):
        path = top / f"-nowhere-app{number % 3}" / f"s{number}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            n = 0
            while file.tell() < n_bytes // n_files:
                n += 1
                own = {"sessionId": f"s{number}", "cwd": f"/nowhere/app{number % 3}"}
                own |= {"promptId": f"p{n}"}
                prompt, answer = (" ".join(rng.choices(words, k=k)) for k in (20, 60))
                output = "".join(rng.choices("abcdefghij \n", k=tool_chars))
                for row in (
                    claude_line("user", f"{prompt} {number} {n}", 4 * n % 3600, **own),
                    claude_line("assistant", said("Looking."), (4 * n + 1) % 3600, **own),
                    claude_line("user", tool_output(output), (4 * n + 2) % 3600, **own),
                    claude_line("assistant", said(answer), (4 * n + 3) % 3600, **own),
                ):
                    file.write(json.dumps(row) + "\n")
            n_turns += n
    return n_turns
