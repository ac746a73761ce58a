"""Codex's transcripts, `~/.codex/sessions/<year>/<month>/<day>/rollout-<time>-<session>.jsonl`.

A line is `{"timestamp", "type", "payload"}`: `session_meta`, `turn_context`, `response_item` (what
the model sees), `event_msg` (what its user saw) and `compacted`. What was typed is an event since
0.3x; before, it is told from what the host adds by its envelope. Turns have a `turn_id` since 0.9x.
The first releases wrote the items bare, after a line with the session's id. Old files may be packed
(`.jsonl.zst`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.words.spoken import spoken
from scripts.cli.readers.inputs import InputFile
from scripts.cli.readers.records import Options, Record
from scripts.cli.readers.transcripts.turns import Row, Session, Turn, read_rows, texts

CLIENT = "codex"
_BEGINS = ("task_started", "turn_started")
_ENDS = ("task_complete", "turn_complete", "turn_aborted")


def read_codex(file: InputFile, options: Options) -> Iterator[Record]:
    """A memory a turn, and one a compaction's summary."""
    reader = _Reader(Session(client=CLIENT, file=file, options=options))
    return read_rows(reader.session, reader.take, reader.end)


class _Reader:
    def __init__(self, session: Session) -> None:
        self.session = session
        self._turn: Turn | None = None
        self._is_typed = False
        """Whether this turn's prompts are events; the items only repeat them."""
        self._is_subagent = False
        self._cwd: str | None = None
        self._branch: str | None = None
        self._time: str | None = None

    def take(self, row: Row) -> Iterator[Record]:
        if self._is_subagent:
            return
        kind, payload = row.get("type"), row.get("payload")
        self._time = row.get("timestamp") or self._time
        if not isinstance(payload, dict):
            if kind == "message":
                yield from self._item(row)
            elif kind is None and "id" in row:
                self._meta(row)
        elif kind == "session_meta":
            self._meta(payload)
        elif kind == "turn_context":
            self._cwd = payload.get("cwd") or self._cwd
            yield from self._in_turn(payload.get("turn_id"))
        elif kind == "response_item" and payload.get("type") == "message":
            yield from self._item(payload)
        elif kind == "event_msg":
            yield from self._event(payload)
        elif kind == "compacted":
            at = self._turn or self._new(None)
            yield from self.session.summary(str(payload.get("message") or ""), at)

    def end(self) -> Iterator[Record]:
        yield from self.session.turn(self._turn)
        self._turn, self._is_typed = None, False

    def _meta(self, meta: dict[str, Any]) -> None:
        if self.session.id:  # of the session that this one was forked from
            return
        source = meta.get("source")
        self._is_subagent = isinstance(source, dict) and any("sub" in name for name in source)
        self.session.id = str(meta.get("id") or meta.get("session_id") or "unknown")
        self._cwd = meta.get("cwd") or self._cwd
        git = meta.get("git")
        self._branch = git.get("branch") if isinstance(git, dict) else None

    def _event(self, event: dict[str, Any]) -> Iterator[Record]:
        kind = event.get("type")
        if kind in _BEGINS:
            yield from self._in_turn(event.get("turn_id"))
        elif kind == "user_message":
            text = spoken(str(event.get("message") or ""))
            if self._turn is None or (self._turn.id is None and self._turn.answer):
                yield from self._begin(None)
            assert self._turn is not None, "it was begun"
            if not self._is_typed:
                self._is_typed, self._turn.prompts = True, []
            self._turn.time = self._turn.time or self._time
            self._turn.ask(text)
        elif kind == "agent_message" and self._turn is not None:
            self._turn.say(str(event.get("message") or ""))
        elif kind in _ENDS:
            if self._turn is not None:
                self._turn.say(str(event.get("last_agent_message") or ""))
            if event.get("turn_id"):
                yield from self.end()

    def _item(self, item: dict[str, Any]) -> Iterator[Record]:
        text = "\n\n".join(texts(item.get("content"), "input_text", "output_text", "text"))
        if item.get("role") == "assistant":
            if self._turn is not None:
                self._turn.say(text)
        elif item.get("role") == "user" and (text := spoken(text)):
            if self._turn is None or (self._turn.id is None and self._turn.answer):
                yield from self._begin(None)
            assert self._turn is not None, "it was begun"
            if not self._is_typed:
                self._turn.ask(text)

    def _in_turn(self, turn_id: object) -> Iterator[Record]:
        """What follows belongs to the turn of this id."""
        if not isinstance(turn_id, str):
            return
        if self._turn is not None and self._turn.id is None and not self._turn.answer:
            self._turn.id = turn_id
        elif self._turn is None or self._turn.id != turn_id:
            yield from self._begin(turn_id)
        if self._turn is not None:
            self._turn.cwd = self._cwd

    def _begin(self, turn_id: str | None) -> Iterator[Record]:
        yield from self.end()
        self._turn = self._new(turn_id)

    def _new(self, turn_id: str | None) -> Turn:
        return Turn(id=turn_id, time=self._time, cwd=self._cwd, branch=self._branch)
