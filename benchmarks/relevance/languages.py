"""Notes in scripts that the model hardly knows, over REST on a running service, as JSON.

Twenty notes in each of eight scripts go into one store, one by one. Are all stored; is each found
first by a word of its own, and by a question with that word in it; is anything shown as a match of
100 % that is not the same?
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.support.results import RESULTS_DIR, write_result
from benchmarks.support.running_service import RunningService, free_ports, launched

_NOTES = Path(__file__).with_name("notes_in_scripts.json")
_SHOWN_AS_ALL = 0.995
"""From here on a share is 100 % without decimals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A memory, and a word that no other one has."""

    text: str
    word: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Notes in one script."""

    name: str
    question: str
    """With {} where a word goes."""
    notes: list[Note]


def read_scripts() -> list[Script]:
    """All of them."""
    content = json.loads(_NOTES.read_text(encoding="utf-8"))
    return [
        Script(name=name, question=part["question"], notes=[Note(**note) for note in part["notes"]])
        for name, part in content.items()
    ]


def measure(service: RunningService, scripts: list[Script]) -> dict[str, Any]:
    """Add all notes, then look for each."""
    stored = {
        script.name: sum(
            service.ask("POST", "/memory/add", body(note))["success"] for note in notes
        )
        for script in scripts
        if (notes := script.notes)
    }
    return {
        script.name: {"notes": len(script.notes), "stored": stored[script.name]}
        | found(service, script)
        for script in scripts
    }


def body(note: Note) -> dict[str, Any]:
    """Of an add with its defaults."""
    return {"text": note.text, "source": "notes"}


def found(service: RunningService, script: Script) -> dict[str, Any]:
    """How many notes come first, and what is shown as 100 % that is not what was asked."""
    first = {"word": 0, "question": 0, "text": 0}
    shown_as_all = []
    for note in script.notes:
        forms = {
            "word": note.word,
            "question": script.question.format(note.word),
            "text": note.text,
        }
        for form, query in forms.items():
            hits = service.ask("POST", "/search", {"query": query})["results"]
            first[form] += bool(hits) and hits[0]["text"] == note.text
            shown_as_all += [
                [query, hit["text"]]
                for hit in hits
                if max(hit["score"], hit["similarity"]) >= _SHOWN_AS_ALL and hit["text"] != query
            ]
    return {"found_first_by": first, "shown_as_100_percent": shown_as_all}


def main(
    first_port: Annotated[int, typer.Option(help="The first free one from here on.")] = 8980,
    results_dir: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULTS_DIR,
) -> None:
    """Measure what becomes of them and print JSON."""
    [port] = free_ports(first_port, 1)
    with (
        tempfile.TemporaryDirectory(prefix="fmb-", dir="/tmp") as directory,
        launched(Path(directory) / "data", port) as service,
    ):
        result = measure(service, read_scripts())
    write_result("languages", result, results_dir)


if __name__ == "__main__":
    typer.run(main)
