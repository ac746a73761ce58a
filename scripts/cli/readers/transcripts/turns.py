"""A turn as a transcript tells it, piece by piece, and the memory it becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from engine.words.spoken import TURN_CHARS, is_left_out, spoken, turn_text
from scripts.cli.readers.inputs import InputFile, lines
from scripts.cli.readers.json_lines import parse_object
from scripts.cli.readers.records import Memory, Options, Record, Unreadable, moment
from scripts.cli.readers.transcripts.projects import project_of

_KEPT_CHARS = 4 * TURN_CHARS
"""Of a prompt or an answer while it is read: more than is remembered, less than fills memory."""
_PREFIX = "project/"
SUMMARY = "summary"
"""In the key of a memory that is no turn but what its host made of those before."""


@dataclass(slots=True, kw_only=True)
class Turn:
    """A prompt and what was answered so far."""

    id: str | None
    """The host's own."""
    time: str | None
    cwd: str | None = None
    branch: str | None = None
    prompts: list[str] = field(default_factory=list)
    answer: str = ""
    answer_id: object = None
    """Of the message that the answer is of; its later texts belong to it too."""

    def ask(self, text: str) -> None:
        """Add what its user said."""
        if text and text not in self.prompts and sum(map(len, self.prompts)) < _KEPT_CHARS:
            self.prompts.append(text[:_KEPT_CHARS])

    def say(self, text: str, message_id: object = None) -> None:
        """Take the assistant's last words for the answer."""
        if not (text := spoken(text)):
            return
        if message_id is not None and message_id == self.answer_id:
            text = f"{self.answer}\n\n{text}"
        self.answer, self.answer_id = text[:_KEPT_CHARS], message_id


@dataclass(slots=True, kw_only=True)
class Session:
    """One transcript's session while it is read."""

    client: str
    file: InputFile
    options: Options
    id: str = ""
    n_turns: int = 0
    n_summaries: int = 0
    origin: str = ""
    """Where it is read."""

    def turn(self, turn: Turn | None) -> Iterator[Record]:
        """The memory of a turn that is over; none where nobody said anything to remember."""
        if turn is None or not turn.prompts:
            return
        self.n_turns += 1
        prompt = "\n\n".join(turn.prompts)
        if not is_left_out(prompt):
            text = turn_text(self._clean(prompt), self._clean(turn.answer))
            yield from self._memory(text, turn.id or str(self.n_turns), turn)

    def summary(self, text: str, at: Turn) -> Iterator[Record]:
        """The memory of what the host made of the turns so far."""
        if text := spoken(text):
            self.n_summaries += 1
            text = self._clean(text)[:TURN_CHARS]
            yield from self._memory(text, f"{SUMMARY}/{self.n_summaries}", at)

    def _clean(self, text: str) -> str:
        """Whole, before it is cut: half a secret is not told for one."""
        text = text.encode("utf-8", "replace").decode()  # halves of a pair are no characters
        secrets = self.options.secrets
        return text if secrets is None else secrets.without(text)

    def _memory(self, text: str, name: str, turn: Turn) -> Iterator[Record]:
        project = project_of(turn.cwd) if turn.cwd else self._folder()
        if project is None:
            return
        prefix = _PREFIX if self.options.source is None else self.options.source
        metadata = {"session": self.id, "client": self.client}
        if turn.branch:
            metadata["branch"] = turn.branch
        line: dict[str, Any] = {
            "text": text,
            "source": f"{prefix}{project}",
            "key": f"{self.id}/{name}",
            "metadata": metadata,
            "deduplicate": False,
        }
        if (time := moment(turn.time)) is not None:
            line["timestamp"] = time
        yield Memory(line=line, origin=self.origin)

    def _folder(self) -> str:
        return self.file.path.resolve().parent.name if self.file.path else "stdin"


Row = dict[str, Any]


def read_rows(
    session: Session,
    take: Callable[[Row], Iterator[Record]],
    end: Callable[[], Iterator[Record]],
) -> Iterator[Record]:
    """Every record of a transcript, line by line; a line that is broken is told and left out.

    Args:
        session: of the file.
        take: the records that a line completes.
        end: those that the end of the file completes.
    """
    with session.file.opened() as stream:
        for number, content in lines(stream):
            session.origin = f"{session.file.name}, line {number}"
            try:
                row = parse_object(content)
            except ValueError as exc:
                # The host is writing it: it is read with the next ones.
                if content is None or content.endswith(b"\n"):
                    yield Unreadable(origin=session.origin, reason=str(exc))
                continue
            try:
                yield from take(row)
            except (AttributeError, TypeError, KeyError):
                yield Unreadable(origin=session.origin, reason="not as its host writes it")
    yield from end()


def texts(content: object, *kinds: str) -> list[str]:
    """The texts of a message's content: itself, or its blocks of those kinds."""
    if isinstance(content, str):
        return [content]
    blocks = content if isinstance(content, list) else []
    return [
        block["text"]
        for block in blocks
        if isinstance(block, dict)
        and block.get("type") in kinds
        and isinstance(block.get("text"), str)
    ]
