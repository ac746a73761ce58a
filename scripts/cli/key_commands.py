"""`faiss-memory keys`: who may call the service, in which namespaces, to do what."""

from __future__ import annotations

from typing import Annotated

import typer

from scripts.cli.errors import CliError, NothingFoundError, UsageError
from scripts.cli.options import DEFAULT_URL, PLAIN, AsJson, Url, Yes, service_at
from scripts.cli.service import Json
from scripts.cli.terminal import confirm, day, heading, note, one_line, print_json, say

keys = typer.Typer(
    help="Make, list, change and revoke keys. Needs the service's API_KEY, or an admin's key.",
    add_completion=False,
    **PLAIN,
)

Id = Annotated[str, typer.Argument(metavar="ID", help="As `keys list` shows it.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", metavar="SCOPE", help="read, write or admin; may be repeated."),
]
Globs = Annotated[
    list[str] | None,
    typer.Option("--in", metavar="GLOB", help="A namespace, or team.* for many; may be repeated."),
]
Expiry = Annotated[
    str | None, typer.Option("--expires", metavar="TIME", help="ISO-8601; `never` for no end.")
]
Memories = Annotated[
    str | None, typer.Option("--max-memories", metavar="N", help="`none` for any number.")
]
Writes = Annotated[
    str | None, typer.Option("--writes-per-minute", metavar="N", help="`none` for any number.")
]


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is.")],
    scope: Scopes = None,
    namespaces: Globs = None,
    expires: Expiry = None,
    max_memories: Memories = None,
    writes_per_minute: Writes = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Make a key: it reads and writes, in every namespace, unless told otherwise.

    Its text is alone on stdout, this once: nobody can show it again.
    """
    asked = _fields(scope, namespaces, expires, max_memories, writes_per_minute)
    given = {field: value for field, value in asked.items() if value is not None}
    answer = service_at(url).post("/keys", {"name": name, **given})
    if as_json:
        print_json(answer)
        return
    if answer["key"] is None:
        raise CliError(
            f"Key {answer['id']} was made, but its text is lost: revoke it, and make another."
        )
    note(f"Key {answer['id']} for {_rights(answer)}. Its text, which is not shown again:")
    say(answer["key"])


@keys.command("list")
def list_keys(url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List the keys that are not revoked."""
    answer = service_at(url).get("/keys")
    if as_json:
        print_json(answer)
        return
    if not answer["keys"]:
        raise NothingFoundError("There is no key.")
    for key in answer["keys"]:
        used = "never used" if key["last_used_at"] is None else f"used {day(key['last_used_at'])}"
        say(f"{key['id']}  {one_line(key['name'])}  {_rights(key)}  {used}")


@keys.command()
def show(
    key_id: Annotated[
        str, typer.Argument(metavar="[ID]", help="Default: the key that is in use.")
    ] = "me",
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show a key without its text."""
    service = service_at(url)
    if key_id == "me":
        key = service.get("/keys/me")
    else:
        found = [each for each in service.get("/keys")["keys"] if each["id"] == key_id]
        if not found:
            raise NothingFoundError(f"There is no key {key_id}.")
        [key] = found
    if as_json:
        print_json(key)
        return
    heading(f"{key['id']}  {one_line(key['name'])}")
    for field, value in key.items():
        if field not in ("id", "name") and value is not None:
            shown = " ".join(value) if isinstance(value, list) else value
            say(f"{field:<18} {day(shown) if field.endswith('_at') else shown}")


@keys.command()
def change(
    key_id: Id,
    name: Annotated[str | None, typer.Option("--name", help="Its new name.")] = None,
    scope: Scopes = None,
    namespaces: Globs = None,
    expires: Expiry = None,
    max_memories: Memories = None,
    writes_per_minute: Writes = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Change what a key may do; what is not given stays."""
    asked = _fields(scope, namespaces, expires, max_memories, writes_per_minute)
    given = {
        "expires_at": (expires, asked["expires_at"]),
        "max_memories": (max_memories, asked["max_memories"]),
        "writes_per_minute": (writes_per_minute, asked["writes_per_minute"]),
    }
    changes = {field: value for field, (spelled, value) in given.items() if spelled is not None}
    plain = {"name": name, "scopes": asked["scopes"], "namespaces": asked["namespaces"]}
    changes |= {field: value for field, value in plain.items() if value is not None}
    if not changes:
        raise UsageError("give what is to change: --name, --scope, --in, --expires, …")
    key = service_at(url).patch(f"/keys/{key_id}", changes, with_nulls=True)
    if as_json:
        print_json(key)
    else:
        say(f"Key {key['id']} is for {_rights(key)}")


@keys.command()
def revoke(key_id: Id, yes: Yes = False, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Refuse a key from now on, everywhere and for good."""
    confirm(f"Revoke key {key_id}? It cannot be brought back.", yes=yes)
    answer = service_at(url).delete(f"/keys/{key_id}")
    if as_json:
        print_json(answer)
    else:
        say(f"Revoked {answer['revoked_id']}")


def _fields(
    scope: list[str] | None,
    namespaces: list[str] | None,
    expires: str | None,
    max_memories: str | None,
    writes_per_minute: str | None,
) -> Json:
    return {
        "scopes": scope or None,
        "namespaces": namespaces or None,
        "expires_at": None if expires == "never" else expires,
        "max_memories": _number(max_memories),
        "writes_per_minute": _number(writes_per_minute),
    }


def _number(spelled: str | None) -> int | None:
    if spelled in (None, "none"):
        return None
    try:
        return int(spelled)
    except ValueError:
        raise UsageError(f"{spelled!r} is no number, and not `none`") from None


def _rights(key: Json) -> str:
    return f"{'+'.join(key['scopes'])} in {', '.join(key['namespaces'])}"
