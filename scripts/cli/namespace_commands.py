"""`faiss-memory namespaces`: which there are, and what is done with one as a whole."""

from __future__ import annotations

from typing import Annotated

import typer

from scripts.cli.errors import NothingFoundError, UsageError
from scripts.cli.options import DEFAULT_URL, PLAIN, AsJson, Url, Yes, service_at
from scripts.cli.terminal import confirm, counted, day, print_json, say

namespaces = typer.Typer(
    help="List, rename and delete namespaces, and move memories between two.",
    add_completion=False,
    **PLAIN,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of a namespace.")]
To = Annotated[str, typer.Argument(metavar="TO", help="A namespace.")]


@namespaces.command("list")
def list_namespaces(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List the namespaces that hold something, of those that your key may use."""
    answer = service_at(url).get("/namespaces")
    if as_json:
        print_json(answer)
        return
    if not answer["namespaces"]:
        raise NothingFoundError("No namespace holds anything.")
    for each in answer["namespaces"]:
        changed = "" if each["last_updated"] is None else f"  changed {day(each['last_updated'])}"
        say(f"{each['name']}  {counted(each['memories'], 'memory')}{changed}")


@namespaces.command()
def rename(name: Name, to: To, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Call a namespace otherwise. Keys that name it do not follow."""
    answer = service_at(url).post(f"/namespaces/{name}/rename", {"to": to})
    if as_json:
        print_json(answer)
    else:
        say(f"{answer['renamed']} is now {answer['to']}")


@namespaces.command()
def delete(name: Name, yes: Yes = False, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Delete a namespace with all its memories; only a backup brings them back."""
    confirm(f"Delete every memory of namespace {name}?", yes=yes)
    answer = service_at(url).delete(f"/namespaces/{name}", confirm=name)
    if as_json:
        print_json(answer)
    else:
        say(f"Deleted {answer['deleted']} with {counted(answer['deleted_count'], 'memory')}")


@namespaces.command()
def move(
    to: To,
    ids: Annotated[
        list[int] | None, typer.Option("--id", min=0, help="A memory; may be repeated.")
    ] = None,
    source_prefix: Annotated[
        str | None, typer.Option(help="All whose source starts with this.")
    ] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Put memories of the namespace in use into another; they keep their ids."""
    if bool(ids) == (source_prefix is not None):
        raise UsageError("give --id or --source-prefix, and not both")
    body = {"to": to, "ids": ids or None, "source_prefix": source_prefix}
    answer = service_at(url).post("/memory/move", body)
    if as_json:
        print_json(answer)
    else:
        say(f"Moved {counted(answer['moved_count'], 'memory')} to {to}")
