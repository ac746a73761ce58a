r"""What goes to the terminal: JSON for programs, text for people, and nothing that steers it.

A memory's text comes from anywhere. Escape sequences and other control characters in it are shown
as `\x1b`, so that a memory cannot recolour, retitle or answer for the terminal.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import typer

from scripts.cli.errors import CliError, UsageError

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the writing direction
    "\u2028\u2029\ufeff\ud800-\udfff]"
)
_SHORT_CHARS = 150


def safe(text: object) -> str:
    """Text as a terminal may get it, line breaks and tabs kept."""
    return _UNSAFE.sub(_escaped, str(text).replace("\r\n", "\n"))


def one_line(text: object, max_chars: int = _SHORT_CHARS) -> str:
    """The beginning of a text, white space run together."""
    line = " ".join(str(text)[: 4 * max_chars].split())
    return safe(line if len(line) <= max_chars else line[: max_chars - 1] + "…")


def said_already(answer: dict[str, Any]) -> str:
    """Which memory says the same as one that was skipped, and how it puts it."""
    text = answer.get("duplicate_text")
    said = f"memory {answer.get('duplicate_of', '?')} says that already"
    return f"{said}: {one_line(text)}" if text else said


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def print_json(document: object) -> None:
    """One JSON document on one line of stdout."""
    line = json.dumps(document, ensure_ascii=False)
    # JSON's own escapes, so that the document stays what it was.
    print(_UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", line), flush=True)


def say(text: str = "") -> None:
    """A line of a command's answer, on stdout."""
    print(safe(text))


def note(text: str) -> None:
    """A line about what goes on, on stderr."""
    print(safe(text), file=sys.stderr, flush=True)


def complain(error: CliError) -> None:
    """Say why a command failed."""
    note(f"faiss-memory: {error}")


def heading(text: str) -> None:
    """A line of the answer that stands out on a terminal."""
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(typer.style(safe(text), bold=True) if colour else safe(text))


def note_redacted(counts: Mapping[str, int] | None) -> None:
    """Say which secrets were replaced, where there were any."""
    if counts:
        found = ", ".join(f"{kind} ({n:,})" for kind, n in sorted(counts.items()))
        note(f"Secrets replaced: {found}.")


def confirm(question: str, *, yes: bool) -> None:
    """Go on when `--yes` was given or a person says so.

    Raises:
        UsageError: nobody is there to ask.
        CliError: the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody is there to ask: give --yes if you mean it.")
    if not typer.confirm(safe(question), err=True):
        raise CliError("Nothing was changed.")


def counted(n: int, noun: str) -> str:
    """A number of things, in English."""
    if n == 1:
        return f"1 {noun}"
    return f"{n:,} {noun[:-1]}ies" if noun.endswith("y") else f"{n:,} {noun}s"


def day(timestamp: str) -> str:
    """A time of the service in this machine's zone, to the minute."""
    return datetime.fromisoformat(timestamp).astimezone().strftime("%Y-%m-%d %H:%M")
