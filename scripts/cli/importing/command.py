"""`faiss-memory import`: files of many kinds become memories."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from scripts.cli.errors import (
    CliError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from scripts.cli.importing.choosing import chosen_files, refuse_files_of_one_name
from scripts.cli.importing.dry_run import show
from scripts.cli.importing.file_commands import workspace_of
from scripts.cli.importing.journal import Journal, Tally, journal_path
from scripts.cli.importing.kept_transcripts import named_paths
from scripts.cli.importing.reading import Reading
from scripts.cli.importing.sending import Sender, parts_of
from scripts.cli.importing.stored_passages import forget_rest
from scripts.cli.options import DEFAULT_URL, AsJson, Url, service_at
from scripts.cli.progress import progress
from scripts.cli.readers import (
    TEXT_SUFFIXES,
    Format,
)
from scripts.cli.readers.identity import utf8
from scripts.cli.readers.records import Options
from scripts.cli.service import Json, Service
from scripts.cli.terminal import counted, note, note_redacted, print_json, say


def import_memories(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, directories, globs; - is stdin. Transcripts of claude-code and codex: "
            "by default where these keep them."
        ),
    ] = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="What they are.")] = Format.AUTO,
    source: Annotated[
        str | None,
        typer.Option("--source", "-s", metavar="PREFIX", help="Put before every source."),
    ] = None,
    deduplicate: Annotated[
        bool | None,
        typer.Option(
            help="Skip what is stored already. By default only memories without an id of their "
            "own are compared. Of an export always what is missing is added, and nothing else.",
            show_default=False,
        ),
    ] = None,
    redact: Annotated[
        bool | None,
        typer.Option(
            help="Replace secrets in texts by [redacted:kind] before they are sent, as is done "
            "with transcripts by default. The service then reads no files itself.",
            show_default=False,
        ),
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="CSV, JSON: the column or field of the text.")
    ] = None,
    source_column: Annotated[str | None, typer.Option(help="Likewise, of the source.")] = None,
    key_column: Annotated[str | None, typer.Option(help="Likewise, of its own id.")] = None,
    stop_on_error: Annotated[
        bool, typer.Option("--stop-on-error", help="End at the first bad memory.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be sent, and send nothing.")
    ] = False,
    resume: Annotated[
        bool, typer.Option(help="Continue this command where it was interrupted.")
    ] = True,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Import files: text, JSON Lines, CSV, other memories' exports.

    Interrupted, the same command continues and adds nothing twice. Exits with 1 when a memory
    could not be read or was refused; the others are in.
    """
    paths = named_paths(paths, format)
    reading = Reading(
        files=chosen_files(paths, format, as_json=as_json),
        format=format,
        options=Options(
            source=source,
            text_column=text_column,
            source_column=source_column,
            key_column=key_column,
        ),
        deduplicate=deduplicate,
        redact=redact,
        stop_on_error=stop_on_error,
        as_json=as_json,
    )
    refuse_files_of_one_name(reading)
    service = service_at(url)
    if source is None and not redact:
        _mark_workspace_files(service, reading, needed=not dry_run)
    if dry_run:
        show(reading)
        return
    built = _build(service, reading)
    reading.choose([file for file in reading.files if file.in_workspace is None])
    tally = _send_rest(service, reading, _journal(service, paths, reading, resume=resume))
    tally.add(built)
    _report(tally, reading)


def _journal(service: Service, paths: list[str], reading: Reading, *, resume: bool) -> Journal:
    """The journal of this very command."""
    named = [path if path == "-" else str(Path(path).expanduser().absolute()) for path in paths]
    options, deduplicate = reading.options, reading.deduplicate
    columns = [options.text_column, options.source_column, options.key_column]
    identity = [service.place, named, reading.format.value, options.source, deduplicate, columns]
    path = journal_path(identity if reading.redact is None else [*identity, reading.redact])
    if not resume:
        path.unlink(missing_ok=True)
    journal = Journal(path, deduplicate=deduplicate is not False)
    if journal.n_before:
        note(f"Continuing after {counted(journal.n_before, 'memory')} that are in already.")
    return journal


def _send_rest(service: Service, reading: Reading, journal: Journal) -> Tally:
    """Send what the service does not read itself, so that it can be continued."""
    continues = True
    try:
        tally = _send_all(service, reading, journal)
        tally.removed += sum(
            forget_rest(service, file, reading.options.source, n) for file, n in reading.n_passages
        )
        continues = False
        return tally
    except UsageError:
        continues = journal.has_parts
        raise
    finally:
        journal.close(complete=not continues)
        if continues:
            note("Not finished. The same command continues from here.")


def _mark_workspace_files(service: Service, reading: Reading, *, needed: bool) -> None:
    """Leave the text files of the service's workspace to the service."""
    try:
        workspace = workspace_of(service)
    except (UnreachableError, RefusedError):
        if needed:
            raise
        return
    for file in reading.files:
        real = file.path.resolve() if file.path is not None else None
        if real is None or workspace is None or not real.is_relative_to(workspace):
            continue
        if real.suffix.lower() in TEXT_SUFFIXES and reading.is_text(file):
            file.in_workspace = utf8(real.relative_to(workspace).as_posix())


def _build(service: Service, reading: Reading) -> Tally:
    """Have the service read the files of its workspace."""
    tally = Tally()

    def refuse(name: str, reason: str) -> None:
        reading.n_unreadable += 1
        reading.complain(name, reason)

    def count(_: list[str], answer: Json) -> None:
        tally.added += answer["memories_added"]
        tally.unchanged += answer["unchanged"]
        tally.removed += answer["memories_removed"]
        for skipped in answer.get("skipped", []):
            refuse(skipped["path"], skipped["reason"])

    paths = [file.path.resolve() for file in reading.files if file.path and file.in_workspace]
    if paths and (workspace := workspace_of(service)):
        from scripts.cli.importing.file_syncs import WorkspaceSync

        WorkspaceSync(service, workspace, on_built=count, on_refused=refuse).sync(paths, [])
    tally.lines = tally.added + tally.unchanged
    return tally


def _send_all(service: Service, reading: Reading, journal: Journal) -> Tally:
    total = Tally()
    with progress("Importing", quiet=reading.as_json) as shown:

        def tell(tally: Tally, share_of_part: float) -> None:
            # What was read but not yet acknowledged is not done.
            share = share_before + (reading.share_read() - share_before) * share_of_part
            shown.update(n=total.lines + tally.lines, done=share)

        sender = Sender(
            service,
            deduplicate=journal.deduplicate,
            stop_on_error=reading.stop_on_error,
            on_error=reading.complain,
            on_duplicate=reading.note_duplicate,
            on_progress=tell,
        )
        share_before = 0.0
        for number, part in enumerate(parts_of(reading.memories())):
            content = part.content
            tally = journal.outcome(number, content)
            if tally is None:
                tally = sender.send(part, journal.key(number)).tally
                journal.note(number, content, tally)
            total.add(tally)
            share_before = reading.share_read()
            shown.update(n=total.lines, done=share_before)
    return total


def _report(tally: Tally, reading: Reading) -> None:
    n_failed = tally.errors + reading.n_unreadable
    if reading.as_json:
        counts = {**asdict(tally), "errors": n_failed}
        if not tally.removed:
            del counts["removed"]
        redacted = {"redacted": dict(reading.secrets.counts)} if reading.secrets.counts else {}
        print_json({"type": "summary", **counts, "ok": n_failed == 0, **redacted})
    else:
        parts = [f"{tally.added:,} added"]
        parts += [f"{tally.updated:,} updated"] if tally.updated else []
        known = tally.duplicates + tally.unchanged
        parts += [f"{known:,} known already"] if known else []
        parts += [f"{tally.removed:,} removed"] if tally.removed else []
        say(", ".join(parts))
        for why in reading.skipped:
            note(f"Skipped {why}")
        if tally.duplicates > len(reading.skipped) > 0:
            note(f"and {tally.duplicates - len(reading.skipped):,} more like these.")
        note_redacted(reading.secrets.counts)
    if n_failed:
        raise CliError(f"{n_failed:,} could not be imported; see above.")
