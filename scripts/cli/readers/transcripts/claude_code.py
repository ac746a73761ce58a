"""Claude Code's transcripts, `~/.claude/projects/<directory>/<session>.jsonl`.

A line is `{"type", "uuid", "sessionId", "cwd", "gitBranch", "timestamp", "message", …}`. A turn's
lines of the user, its tools' output among them, carry one `promptId` since 2.1; before, a turn is
told by the `uuid` of its first line. `isMeta` lines are the host's own, `isSidechain` ones are of
subagents, `isCompactSummary` is what the host made of the turns before. A fork copies lines and
says whose they were (`forkedFrom`).
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.words.spoken import spoken
from scripts.cli.readers.inputs import InputFile
from scripts.cli.readers.records import Options, Record
from scripts.cli.readers.transcripts.turns import Row, Session, Turn, read_rows, texts

CLIENT = "claude-code"
_NO_ANSWERS = "<synthetic>"
"""The model of what the host says itself."""


def read_claude_code(file: InputFile, options: Options) -> Iterator[Record]:
    """A memory a turn, and one a compaction's summary."""
    reader = _Reader(Session(client=CLIENT, file=file, options=options))
    return read_rows(reader.session, reader.take, reader.end)


class _Reader:
    def __init__(self, session: Session) -> None:
        self.session = session
        self._turn: Turn | None = None
        self._known: set[str | None] = set()
        """Turns of this session that are over."""

    def take(self, row: Row) -> Iterator[Record]:
        kind = row.get("type")
        if kind not in ("user", "assistant") or row.get("isSidechain") or row.get("isMeta"):
            return
        if row.get("repeatsCompactSummary") or row.get("isApiErrorMessage"):
            return
        message = row["message"]
        said = texts(message.get("content"), "text")
        if kind == "assistant":
            if self._turn is not None and message.get("model") != _NO_ANSWERS:
                self._turn.say("\n\n".join(said), message.get("id"))
        elif row.get("isCompactSummary"):  # maybe amid a turn, which goes on
            yield from self._of_session(row)
            yield from self.session.summary("\n\n".join(said), _turn_of(row))
        elif not _is_tool_output(message.get("content")):
            yield from self._prompt(row, spoken("\n\n".join(said)))

    def _prompt(self, row: Row, text: str) -> Iterator[Record]:
        same = row.get("promptId")
        if self._turn is None or same is None or same != self._turn.id:
            yield from self.end()
            yield from self._of_session(row)
            # Without words of its own (a command, a notification) it stays one of nobody.
            self._turn = _turn_of(row)
            if self._turn.id in self._known:  # kept over a compaction, and written again
                self._turn = None
                return
        self._turn.ask(text)

    def end(self) -> Iterator[Record]:
        if self._turn is not None:
            self._known.add(self._turn.id)
            yield from self.session.turn(self._turn)
        self._turn = None

    def _of_session(self, row: Row) -> Iterator[Record]:
        """Begin anew where a line is of another session than the one before."""
        forked = row.get("forkedFrom")
        own = forked.get("sessionId") if isinstance(forked, dict) else row.get("sessionId")
        own = str(own or self._file_name())
        if own != self.session.id:
            yield from self.end()
            self._known.clear()
            self.session.id, self.session.n_turns, self.session.n_summaries = own, 0, 0

    def _file_name(self) -> str:
        return self.session.file.relative.rpartition("/")[2].partition(".")[0]


def _turn_of(row: Row) -> Turn:
    return Turn(
        id=_text(row.get("promptId")) or _text(row.get("uuid")),
        time=_text(row.get("timestamp")),
        cwd=_text(row.get("cwd")),
        branch=_text(row.get("gitBranch")),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _is_tool_output(content: object) -> bool:
    return isinstance(content, list) and any(
        isinstance(block, dict) and block.get("type") == "tool_result" for block in content
    )
