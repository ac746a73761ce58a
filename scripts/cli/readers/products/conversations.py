"""`conversations.json` of ChatGPT's and of Claude's data export: a memory per question and answer.

ChatGPT: `[{"id", "title", "create_time", "current_node", "mapping": {id: {"parent", "message"}}}]`,
a tree in which an edited question or a second answer is a branch; the one that its user saw last
ends at `current_node`. Claude: `[{"uuid", "name", "chat_messages": [{"sender", "content", …}]}]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from scripts.cli.errors import CliError
from scripts.cli.readers.documents import load_document, rows_of
from scripts.cli.readers.inputs import InputFile
from scripts.cli.readers.records import Memory, Options, Record, Unreadable, content_key, moment

_MAX_PART_CHARS = 40_000
"""A longer exchange is more than one memory."""
_ASKS = ("user", "human")
_SAYS = ("assistant",)
_READABLE_TYPES = ("text", "multimodal_text", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Message:
    id: str
    is_question: bool
    text: str
    time: str | None


@dataclass(slots=True, kw_only=True)
class _Exchange:
    """A question and what was answered."""

    id: str
    time: str | None
    updated: str | None
    texts: list[str] = field(default_factory=list)


def read_chatgpt(file: InputFile, options: Options) -> Iterator[Record]:
    """The source is `chatgpt/<conversation's id>`, the key the question's id."""
    return _read(file, options, "chatgpt/", _of_chatgpt)


def read_claude(file: InputFile, options: Options) -> Iterator[Record]:
    """The source is `claude/<conversation's id>`, the key the question's id."""
    return _read(file, options, "claude/", _of_claude)


def _read(
    file: InputFile,
    options: Options,
    default_prefix: str,
    messages_of: Callable[[dict[str, Any]], Iterator[_Message]],
) -> Iterator[Record]:
    prefix = default_prefix if options.source is None else options.source
    with file.opened() as stream:
        conversations = rows_of(load_document(stream, file))
    if conversations is None:
        raise CliError(f"{file.name} is no list of conversations")
    for number, conversation in enumerate(conversations, start=1):
        origin = f"{file.name}, conversation {number}"
        try:
            messages = list(messages_of(conversation))
        except (AttributeError, KeyError, TypeError):
            yield Unreadable(origin=origin, reason="no conversation as that program writes it")
            continue
        for exchange in _exchanges(messages):
            for line in _lines(conversation, exchange, prefix):
                yield Memory(line=line, origin=origin)


def _of_chatgpt(conversation: dict[str, Any]) -> Iterator[_Message]:
    for node in _branch(conversation["mapping"], conversation.get("current_node")):
        message = node.get("message") or {}
        content, about = message.get("content") or {}, message.get("metadata") or {}
        role = (message.get("author") or {}).get("role")
        # What the model said to its tools and to itself, its user never saw.
        if (
            role not in (*_ASKS, *_SAYS)
            or content.get("content_type") not in _READABLE_TYPES
            or message.get("recipient") not in ("all", None)
            or about.get("is_visually_hidden_from_conversation")
        ):
            continue
        text = "\n\n".join(filter(None, map(_part, content.get("parts") or [])))
        yield _Message(
            id=str(message.get("id") or content_key("message", text)),
            is_question=role in _ASKS,
            text=text,
            time=moment(message.get("create_time")),
        )


def _branch(nodes: dict[str, Any], last: object) -> list[dict[str, Any]]:
    """The nodes from the root to `last`, or to the latest one when that is none."""
    if last not in nodes and nodes:
        last = max(
            nodes, key=lambda name: (nodes[name].get("message") or {}).get("create_time") or 0
        )
    branch: list[dict[str, Any]] = []
    seen = set()
    while isinstance(last, str) and last in nodes and last not in seen:
        seen.add(last)
        branch.append(nodes[last])
        last = nodes[last].get("parent")
    return branch[::-1]


def _part(part: object) -> str:
    if isinstance(part, dict):  # an image, or what was said aloud
        part = part.get("text")
    return part.strip() if isinstance(part, str) else ""


def _of_claude(conversation: dict[str, Any]) -> Iterator[_Message]:
    for message in conversation["chat_messages"]:
        said = [
            _part(block)
            for block in message.get("content") or []
            if isinstance(block, dict) and block.get("type") == "text"
        ]
        if message["sender"] in (*_ASKS, *_SAYS):
            text = "\n\n".join(filter(None, said)) or _part(message.get("text"))
            yield _Message(
                id=str(message.get("uuid") or content_key("message", text)),
                is_question=message["sender"] in _ASKS,
                text=text,
                time=moment(message.get("created_at")),
            )


def _exchanges(messages: Iterable[_Message]) -> Iterator[_Exchange]:
    """Messages in pairs of question and answer, each of which may be several messages."""
    current: _Exchange | None = None
    was_question = False
    for message in messages:
        if not message.text:
            continue
        if current is None or (message.is_question and not was_question):
            if current is not None:
                yield current
            current = _Exchange(id=message.id, time=message.time, updated=None)
        who = "User" if message.is_question else "Assistant"
        current.texts.append(f"{who}: {message.text}")
        current.updated = message.time or current.updated
        was_question = message.is_question
    if current is not None:
        yield current


def _lines(
    conversation: dict[str, Any], exchange: _Exchange, prefix: str
) -> Iterator[dict[str, Any]]:
    names = ("conversation_id", "id", "uuid")
    own = next((str(conversation[name]) for name in names if conversation.get(name)), "")
    title = str(conversation.get("title") or conversation.get("name") or "").strip()
    said = "\n\n".join(exchange.texts)
    begun = moment(conversation.get("create_time") or conversation.get("created_at"))
    times = {"timestamp": exchange.time or begun, "updated_at": exchange.updated}
    for part, start in enumerate(range(0, len(said), _MAX_PART_CHARS)):
        text = said[start : start + _MAX_PART_CHARS]
        line: dict[str, Any] = {
            "text": f"{title}\n\n{text}" if title else text,
            "source": f"{prefix}{own or content_key('conversation', title)}",
            "key": f"{exchange.id}#{part}" if part else exchange.id,
            "deduplicate": False,
        }
        line |= {name: time for name, time in times.items() if time}
        yield line | ({"metadata": {"title": title}} if title else {})
