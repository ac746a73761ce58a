"""Readers: each turns one kind of file into memories, one after another, without holding them all.

`auto` tells the kind by the file's suffix, for JSON by its first bytes, and for a database by its
tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from scripts.cli.errors import UsageError
from scripts.cli.readers.databases import kind_of_database
from scripts.cli.readers.inputs import InputFile
from scripts.cli.readers.json_kinds import LINES, kind_of_json
from scripts.cli.readers.records import Options, Record

_DOCUMENTS = frozenset({".html", ".htm", ".xhtml", ".pdf", ".docx", ".ipynb"})
TEXT_SUFFIXES = _DOCUMENTS | {".md", ".markdown", ".mdx", ".rst", ".txt", ".text"}
_TABLES = frozenset({".csv", ".tsv"})
_DATABASES = frozenset({".sqlite3", ".sqlite", ".db"})


class Format(str, Enum):
    """What a file is."""

    AUTO = "auto"
    TEXT = "text"
    JSONL = "jsonl"
    JSON = "json"
    CSV = "csv"
    MCP = "mcp"
    MEM0 = "mem0"
    CHROMA = "chroma"
    MEMORY_SERVICE = "mcp-memory-service"
    CHATGPT = "chatgpt"
    CLAUDE = "claude"
    CLAUDE_CODE = "claude-code"
    CODEX = "codex"


KNOWN_NAMES = frozenset({"chroma.sqlite3", "sqlite_vec.db", "conversations.json"})
"""What Chroma, mcp-memory-service, ChatGPT and Claude call theirs."""

TRANSCRIPTS = frozenset({Format.CLAUDE_CODE, Format.CODEX})
"""What coding assistants keep of sessions: told by content or by name, never by a directory."""

NOT_READ = {
    suffix: f"{name} is not read; {how}, and import that"
    for suffixes, name, how in (
        (
            (".odt", ".rtf", ".epub"),
            "a word processor's file",
            "convert it (pandoc -t gfm)",
        ),
        ((".doc", ".pptx", ".xlsx"), "an office file", "save it as text or CSV"),
    )
    for suffix in suffixes
}
"""Why documents with a suffix are not taken in."""

_JSON = frozenset({".json"})
SUFFIXES: dict[Format, frozenset[str]] = {
    Format.AUTO: TEXT_SUFFIXES | KNOWN_NAMES,
    Format.TEXT: TEXT_SUFFIXES,
    Format.JSONL: LINES,
    Format.JSON: _JSON,
    Format.CSV: _TABLES,
    Format.MCP: LINES | _JSON,
    Format.MEM0: LINES | _JSON,
    Format.CHROMA: _DATABASES | _JSON,
    Format.MEMORY_SERVICE: _DATABASES | _JSON,
    Format.CHATGPT: _JSON,
    Format.CLAUDE: _JSON,
    Format.CLAUDE_CODE: LINES,
    Format.CODEX: LINES,
}
"""What is taken of a directory; a file that is named itself may be called anything."""


def read(file: InputFile, chosen: Format, options: Options) -> Iterator[Record]:
    """The memories of a file, and the places where there is none that can be read.

    Raises:
        UsageError: see `kind_of`.
    """
    # Imported by kind: a reader may need packages that take longer than the others' work.
    kind = kind_of(file, chosen)
    if kind is Format.TEXT:
        from scripts.cli.readers.text_files import read_text

        return read_text(file, options)
    if kind is Format.CSV:
        from scripts.cli.readers.tables import read_table

        return read_table(file, options)
    if kind is Format.MCP:
        from scripts.cli.readers.products.mcp_memory import read_mcp

        return read_mcp(file, options)
    if kind is Format.MEM0:
        from scripts.cli.readers.products.mem0 import read_mem0

        return read_mem0(file, options)
    if kind is Format.CHROMA:
        from scripts.cli.readers.products.chroma import read_chroma

        return read_chroma(file, options)
    if kind is Format.MEMORY_SERVICE:
        from scripts.cli.readers.products.memory_service import read_memory_service

        return read_memory_service(file, options)
    if kind is Format.CHATGPT:
        from scripts.cli.readers.products.conversations import read_chatgpt

        return read_chatgpt(file, options)
    if kind is Format.CLAUDE:
        from scripts.cli.readers.products.conversations import read_claude

        return read_claude(file, options)
    if kind is Format.CLAUDE_CODE:
        from scripts.cli.readers.transcripts.claude_code import read_claude_code

        return read_claude_code(file, options)
    if kind is Format.CODEX:
        from scripts.cli.readers.transcripts.codex import read_codex

        return read_codex(file, options)
    if kind is Format.JSON:
        from scripts.cli.readers.json_documents import read_json

        return read_json(file, options)
    from scripts.cli.readers.json_lines import read_json_lines

    return read_json_lines(file, options)


def why_not_read(file: InputFile) -> str | None:
    """Why a document cannot be taken in; None for any other file."""
    if file.suffix in _DOCUMENTS:
        from scripts.cli.readers.text_files import missing_for

        return missing_for(file.suffix)
    return NOT_READ.get(file.suffix)


def kind_of(file: InputFile, chosen: Format) -> Format:
    """What a file is: what the user says, or else its name and its beginning.

    Raises:
        UsageError: nobody can tell.
    """
    if chosen is not Format.AUTO:
        return chosen
    suffix = file.suffix
    if suffix in TEXT_SUFFIXES:
        return Format.TEXT
    if why := NOT_READ.get(suffix):
        raise UsageError(f"{file.name}: {why}")
    if suffix in _TABLES:
        return Format.CSV
    if suffix in _DATABASES and (whose := kind_of_database(file)):
        return Format(whose)
    if suffix in LINES or suffix == ".json" or file.is_stdin:
        if found := kind_of_json(file):
            return Format(found)
        if suffix in LINES:  # empty, or with a bad first line, which is not all of it
            return Format.JSONL
        if file.is_stdin:
            return Format.TEXT
    raise UsageError(f"cannot tell what {file.name} is; say it with --format")
