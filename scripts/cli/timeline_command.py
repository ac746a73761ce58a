"""`faiss-memory timeline`: memories by day."""

from __future__ import annotations

from typing import Annotated

import typer

from scripts.cli.errors import NothingFoundError
from scripts.cli.memory_commands import read_argument
from scripts.cli.options import DEFAULT_URL, AsJson, Url, filtered, service_at
from scripts.cli.service import Json
from scripts.cli.terminal import day, heading, one_line, print_json, say
from wire import limits


@filtered
def timeline(
    query: Annotated[
        str | None, typer.Argument(help="What to look for; - is stdin. Default: the newest.")
    ] = None,
    k: Annotated[
        int, typer.Option("-k", min=1, max=limits.MAX_HITS, help="How many at most.")
    ] = limits.PAGE,
    newest: Annotated[bool, typer.Option("--newest", help="Newest first.")] = False,
    *,
    where: Json,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show memories by day, oldest first. Exits with 4 when there are none."""
    asked = None if query is None else read_argument(query)
    order = "newest" if newest else "oldest"
    answer = service_at(url).post("/timeline", {"query": asked, "k": k, "order": order, **where})
    if as_json:
        print_json(answer)
        raise typer.Exit(0 if answer["days"] else NothingFoundError.exit_code)
    for number, one in enumerate(answer["days"]):
        if number:
            say()
        heading(one["date"])
        for memory in one["memories"]:
            at = f"[{memory['id']}] {day(memory['timestamp'])}  {one_line(memory['source'])}"
            say(f"{at} — {one_line(memory['text'])}")
            for place in ("before", "after"):
                if beside := memory.get(place):
                    say(f"    {place} it: [{beside['id']}] {one_line(beside['text'])}")
    if not answer["days"]:
        raise NothingFoundError("No memories.")
