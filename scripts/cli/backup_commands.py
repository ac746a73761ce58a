"""Backups over the service: make, list, restore, verify; and what is wrong with a stopped one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import PurePosixPath
from typing import Annotated

import typer

from scripts.cli.errors import CliError, NothingFoundError
from scripts.cli.options import DEFAULT_URL, AsJson, DataDir, Url, Yes, service_at
from scripts.cli.service import Json
from scripts.cli.terminal import confirm, print_json, say

Offline = Annotated[
    bool,
    typer.Option("--offline", help="Work on DATA_DIR itself; the service must be stopped."),
]


def _backup_names(incomplete: str) -> list[str]:
    """For the shell's completion, which says nothing when the service does not."""
    try:
        url = os.environ.get("FAISS_URL") or DEFAULT_URL
        found = service_at(url, patience_s=0).get("/backups")["backups"]
    except CliError:
        return []
    return [each["name"] for each in found if each["name"].startswith(incomplete)]


def backup(
    prefix: Annotated[str, typer.Option(help="Start of its name.")] = "manual",
    show: Annotated[bool, typer.Option("--list", help="List the backups instead.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Make a backup now, or list what there is."""
    service = service_at(url)
    if not show:
        answer = service.post("/backup", prefix=prefix)
        if as_json:
            print_json(answer)
        else:
            say(PurePosixPath(answer["backup_path"]).name)
        return
    answer = service.get("/backups")
    if as_json:
        print_json(answer)
        return
    for each in answer["backups"]:
        created = datetime.fromtimestamp(each["created"], timezone.utc).astimezone()
        n = each.get("total_memories")
        holds = "" if n is None else f"  {n:,} memories"
        say(f"{each['name']}  {created:%Y-%m-%d %H:%M}{holds}")


def restore(
    name: Annotated[
        str, typer.Argument(help="As `backup --list` shows it.", autocompletion=_backup_names)
    ],
    offline: Offline = False,
    yes: Yes = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Go back to a backup; what is there now is kept."""
    if offline:
        from scripts.cli.offline import store

        confirm(f"Put backup {name} in the place of the store in DATA_DIR?", yes=yes)
        store.restore(name, as_json=as_json)
        return
    service = service_at(url)
    confirm(f"Replace every memory of {service.url} by backup {name}?", yes=yes)
    answer = service.post("/restore", {"backup_name": name})
    if as_json:
        print_json(answer)
    else:
        say(f"Restored {answer['restored_from']}: {answer['total_memories']:,} memories.")
        say("What was there before is a backup too, named pre_restore_….")


def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Backups; all of them without any.", autocompletion=_backup_names),
    ] = None,
    offline: Offline = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Check that backups can be restored. Exits with 1 when one cannot."""
    n_checked = n_broken = 0
    for check in _checks_offline(names or []) if offline else _checks(names or [], url):
        n_checked += 1
        n_broken += not check["ok"]
        if as_json:
            print_json(check)
        else:
            say(f"{check['backup_name']}: {'ok' if check['ok'] else '; '.join(check['problems'])}")
    if not n_checked:
        raise NothingFoundError("There is no backup yet; make one with `faiss-memory backup`.")
    if n_broken:
        raise CliError(f"{n_broken} of {n_checked} backups cannot be restored.")


def _checks(names: list[str], url: str) -> Iterator[Json]:
    service = service_at(url)
    for name in names or [each["name"] for each in service.get("/backups")["backups"]]:
        yield service.post("/backup/verify", {"backup_name": name})


def _checks_offline(names: list[str]) -> Iterator[Json]:
    from scripts.cli.offline import store

    yield from store.checks(names)


def doctor(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Say what is wrong with a stopped service's data, and the remedy.

    Exits with 1 when something is.
    """
    from scripts.cli.offline import store

    store.doctor(data_dir, as_json)
