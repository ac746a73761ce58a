"""`faiss-memory show` and `update`: one memory by its id."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from scripts.cli.errors import UsageError
from scripts.cli.memory_commands import json_object, read_argument
from scripts.cli.options import DEFAULT_URL, AsJson, Redact, Url, service_at
from scripts.cli.terminal import day, heading, note_redacted, one_line, print_json, say

Id = Annotated[int, typer.Argument(min=0, metavar="ID", help="As `list` shows it.")]


def show(memory_id: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show a memory whole."""
    memory = service_at(url).get(f"/memory/{memory_id}")
    if as_json:
        print_json(memory)
        return
    heading(f"[{memory['id']}] {one_line(memory['source'])}")
    say(f"stored    {day(memory['timestamp'])}")
    if memory["updated_at"] != memory["timestamp"]:
        say(f"changed   {day(memory['updated_at'])}")
    if memory["key"] is not None:
        say(f"key       {one_line(memory['key'])}")
    if memory["metadata"]:
        say(f"metadata  {json.dumps(memory['metadata'], ensure_ascii=False)}")
    say()
    say(memory["text"])


def update(
    memory_id: Id,
    text: Annotated[str | None, typer.Argument(help="Its new text; - is stdin.")] = None,
    source: Annotated[str | None, typer.Option("--source", "-s", help="Its new source.")] = None,
    metadata: Annotated[
        str | None, typer.Option("--metadata", "-m", help="Its new metadata, a JSON object.")
    ] = None,
    redact: Redact = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Change a memory; what is not given stays."""
    if text is None and source is None and metadata is None:
        raise UsageError("give a text, --source or --metadata")
    changes = {
        "text": None if text is None else read_argument(text),
        "source": source,
        "metadata": json_object(metadata),
        "redact": redact,
    }
    memory = service_at(url).patch(f"/memory/{memory_id}", changes)
    if as_json:
        print_json(memory)
    else:
        say(f"Changed memory {memory['id']}")
        note_redacted(memory.get("redacted"))
