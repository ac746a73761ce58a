"""Look at and mend a data directory while the service is stopped: verify, restore, rebuild, doctor.

While it runs, use its routes instead: /backups, /backup/verify, /restore.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from deployments.settings import SettingsError, load_settings
from engine.backups.catalogue import Backups
from engine.backups.verification import problems_of
from engine.defaults import EXACT_BELOW
from engine.disk.data_lock import DataLock
from engine.errors import EngineError, StorageError
from engine.index_options import BACKUPS_NAME
from engine.recovery.doctor import examine
from engine.recovery.offline import accept_loss, rebuild_indexes, restore_offline
from scripts.cli.options import AsJson, DataDir
from scripts.cli.progress import progress
from scripts.cli.service import Json
from scripts.cli.terminal import print_json

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

_CHECK = functools.partial(problems_of, exact_below=EXACT_BELOW)
"""What a backup is put through."""


@contextmanager
def locked(data_dir: Path | None) -> Iterator[tuple[Path, Backups]]:
    """A data directory that no service uses, and its backups; says so and ends if one does."""
    try:
        directory = data_dir or load_settings().data_dir
        if not directory.is_dir():
            raise StorageError(f"{directory} is not a directory; set DATA_DIR")
        os.umask(0o077)
        with DataLock(directory, timeout_s=1.0):
            yield directory, Backups(directory / BACKUPS_NAME, keep={})
    except (EngineError, SettingsError) as exc:
        errors.print("[bold red]Failed:[/]", escape(str(exc)))
        raise typer.Exit(1) from None


@app.command()
def backups(data_dir: DataDir = None) -> None:
    """List the backups, newest first."""
    with locked(data_dir) as (_, found):
        for summary in found.summaries():
            console.print(f"{summary.name}  {summary.total_memories} memories", markup=False)


@app.command()
def verify(
    name: Annotated[str | None, typer.Argument(help="A backup; all of them without it.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Check that backups can be restored: hashes, integrity, counts, and a search."""
    n_bad = 0
    for check in checks([name] if name else [], data_dir):
        n_bad += not check["ok"]
        problems = "; ".join(check["problems"]) or "ok"
        console.print(f"{check['backup_name']}: {problems}", markup=False)
    raise typer.Exit(1 if n_bad else 0)


def checks(names: list[str], data_dir: Path | None = None) -> Iterator[Json]:
    """What `POST /backup/verify` answers for each backup, or for all, while no service runs."""
    with locked(data_dir) as (_, found):
        for each in names or [summary.name for summary in found.summaries()]:
            problems = found.verify(each, _CHECK).problems
            yield {"backup_name": each, "ok": not problems, "problems": problems}


@app.command()
def restore(
    name: Annotated[str, typer.Argument(help="As `backups` lists it.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Put a backup in the store's place; the database before is kept."""
    with locked(data_dir) as (directory, found):
        aside = restore_offline(directory, found, name)
    if as_json:
        replaced = str(aside) if aside else None
        print_json({"success": True, "restored_from": name, "replaced": replaced})
        return
    kept = f" What was there is in {aside}." if aside else ""
    console.print(f"Restored {name}.{kept}", markup=False)


@app.command()
def accept(data_dir: DataDir = None) -> None:
    """Go on with what the store holds, though writes after it were acknowledged and are lost."""
    with locked(data_dir) as (directory, _):
        n_memories = accept_loss(directory)
    console.print(f"The next start goes on with {n_memories} memories.")


@app.command()
def rebuild(data_dir: DataDir = None) -> None:
    """Build the cached posting lists anew from the store."""
    with locked(data_dir) as (directory, _), progress("Reading") as shown:
        for done, total in rebuild_indexes(directory):
            shown.update(n=done, done=done / max(total, 1))
    console.print("The posting lists are built anew.")


@app.command()
def doctor(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Say what is wrong with a stopped service's data, and the remedy.

    Exits with 1 when something is.
    """
    with locked(data_dir) as (directory, found):
        findings = list(examine(directory, found))
    if as_json:
        shown = [asdict(finding) for finding in findings]
        print_json({"ok": not findings, "data_dir": str(directory), "findings": shown})
        raise typer.Exit(1 if findings else 0)
    for finding in findings:
        console.print(f"[bold red]{escape(finding.problem)}[/]\n  {escape(finding.remedy)}")
    if not findings:
        console.print("Nothing is wrong.")
    raise typer.Exit(1 if findings else 0)
