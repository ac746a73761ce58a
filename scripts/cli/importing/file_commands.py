"""`faiss-memory build` and `watch`: memories that follow files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scripts.cli.errors import UsageError
from scripts.cli.importing.kept_transcripts import kept_by
from scripts.cli.options import DEFAULT_URL, AsJson, Url, Yes, service_at
from scripts.cli.readers import SUFFIXES, TRANSCRIPTS, Format
from scripts.cli.readers.records import Options
from scripts.cli.readers.secrets import Secrets
from scripts.cli.service import Json, Service
from scripts.cli.terminal import confirm, counted, note, one_line, print_json, say


def build(
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="Files, directories or globs in the service's workspace; default all."),
    ] = None,
    replace_all: Annotated[
        bool, typer.Option("--replace-all", help="Remove every other memory too.")
    ] = False,
    yes: Yes = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Have the service read text files of its workspace again.

    Passages that did not change keep their ids. Files elsewhere: `faiss-memory import`.
    """
    service = service_at(url)
    if replace_all:
        confirm("Remove every memory that is not from these files?", yes=yes)
    workspace = workspace_of(service)
    sources = [_source(path, workspace) for path in paths] if paths else None
    answer = service.post("/index/build", {"sources": sources, "replace_all": replace_all})
    if as_json:
        print_json(answer)
    else:
        report_build(answer)


def watch(
    directory: Annotated[
        Path | None,
        typer.Argument(
            help="What to watch; by default this directory, or the transcripts that --format "
            "names, where they are kept.",
            show_default=False,
            exists=True,
            file_okay=False,
        ),
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option("--format", "-f", help="claude-code or codex: follow their transcripts."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            "-s",
            metavar="PREFIX",
            help="Put before every source. Only for files that the service cannot read itself.",
        ),
    ] = None,
    redact: Annotated[
        bool | None,
        typer.Option(
            help="Replace secrets in texts by [redacted:kind], as is done with transcripts by "
            "default; files are read here and sent.",
            show_default=False,
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Read what is there, and end.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Keep memories in step with the text files of a directory.

    Until Ctrl-C, changed files are read again, and what deleted files said is deleted. In the
    service's workspace the service reads them; elsewhere they are read here and sent. Of an
    assistant's transcripts every turn is sent, and stays when its transcript is deleted.
    """
    from scripts.cli.importing.file_syncs import UploadSync, WorkspaceSync
    from scripts.cli.importing.transcript_syncs import TranscriptSync
    from scripts.cli.importing.watching import follow

    service = service_at(url)
    if format is not None:
        if format not in TRANSCRIPTS:
            raise UsageError("--format is of transcripts: claude-code or codex")
        top = (directory or kept_by(format)).resolve()
        secrets = None if redact is False else Secrets()
        options = Options(source=source, secrets=secrets)
        turns = TranscriptSync(service, top, format, options, as_json=as_json)
        follow(turns, top, once=once, suffixes=SUFFIXES[format])
        return
    directory = directory or Path()
    top = directory.resolve()
    workspace = workspace_of(service)
    is_own = workspace is not None and top.is_relative_to(workspace)
    if source is None and workspace is not None and is_own and not redact:
        file_sync: WorkspaceSync | UploadSync = WorkspaceSync(
            service,
            workspace,
            on_built=_tell_in_json if as_json else _tell,
            on_refused=lambda name, reason: note(f"{name}: {reason}"),
        )
        note(f"{directory} is in the service's workspace: the service reads its files.")
    else:
        file_sync = UploadSync(service, top, source, redact=bool(redact), as_json=as_json)
        where = f"outside the service's workspace {workspace}" if workspace else "not the service's"
        why = "" if is_own else f" is {where}"
        note(f"{directory}{why}: its files are read here and sent.")
        note(f"Sources begin with {one_line(file_sync.prefix) or 'the file names'}.")
    follow(file_sync, top, once=once)


def _tell_in_json(names: list[str], answer: Json) -> None:
    print_json({"type": "build", "files": names, **answer})


def _tell(names: list[str], answer: Json) -> None:
    note(", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else ""))
    report_build(answer)


def workspace_of(service: Service) -> Path | None:
    """The service's workspace if it is a directory of this machine; None if nobody can tell."""
    if not service.is_local:
        return None
    from engine.workspace.directory_id import directory_id

    stats = service.get("/stats")
    named = Path(stats.get("workspace_dir") or "")
    # Through a tunnel, localhost is another machine, with directories of the same names.
    here = directory_id(named)
    is_same = here is not None and stats.get("workspace_id", here) == here
    return named.resolve() if named.is_absolute() and is_same else None


def _source(path: str, workspace: Path | None) -> str:
    """A path as the service takes it: relative to its workspace."""
    here = Path(path).expanduser()
    if workspace is None or not here.exists():
        return path
    real = here.resolve()
    if not real.is_relative_to(workspace):
        raise UsageError(
            f"{path} is outside the service's workspace {workspace}. "
            f"Send it with `faiss-memory import {path}` or `faiss-memory watch`, "
            "or start the service with another WORKSPACE_DIR."
        )
    return real.relative_to(workspace).as_posix()


def report_build(answer: Json) -> None:
    """Say what a build changed."""
    say(
        f"{counted(answer['files_processed'], 'file')}: "
        f"{counted(answer['memories_added'], 'passage')} added, "
        f"{answer.get('memories_removed', 0):,} removed, {answer.get('unchanged', 0):,} unchanged"
    )
    for skipped in answer.get("skipped", []):
        note(f"Skipped {skipped['path']}: {skipped['reason']}")
