"""`faiss-memory export`: every memory, or those of a filter, as JSON Lines."""

from __future__ import annotations

import http.client
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from scripts.cli.errors import CliError, UnreachableError
from scripts.cli.options import (
    DEFAULT_URL,
    AsJson,
    Url,
    filtered,
    service_at,
)
from scripts.cli.progress import Progress, progress
from scripts.cli.terminal import counted, note, print_json

_TOLD_EVERY = 500


@filtered
def export(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write. Default: stdout.")
    ] = None,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="With vectors, so that none is computed again.")
    ] = False,
    *,
    where: dict[str, Any],
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Export memories as JSON Lines, as of one moment. `import` reads them back.

    A file appears under its name only when it is complete. With --json stdout gets the outcome,
    which needs -o.
    """
    if as_json and output is None:
        raise typer.BadParameter("needs -o FILE: stdout already gets the export, which is JSON")
    service = service_at(url)
    params = {**where, "embeddings": embeddings}
    with (
        _written(output) as file,
        progress("Exporting", quiet=as_json) as shown,
        service.call("GET", "/export", params=params) as answer,
    ):
        n_memories = _copy(answer, file, shown, service.url)
    if as_json:
        print_json({"success": True, "count": n_memories, "path": str(output)})
    elif output is not None:
        note(f"{counted(n_memories, 'memory')} in {output}")


def _copy(answer: http.client.HTTPResponse, file: IO[bytes], shown: Progress, url: str) -> int:
    """Write the lines of an export; returns how many memories it holds.

    Raises:
        UnreachableError: it broke off; what was written is not all.
    """
    n_memories, total = 0, 0
    last: dict[str, Any] = {}
    for line in _whole_lines(answer):
        file.write(line)
        if n_memories == 0 or line.startswith((b'{"type": "footer"', b'{"type":"footer"')):
            last = json.loads(line)
            if last.get("type") == "header":
                total = int(last.get("total") or 0)
                continue
            if last.get("type") == "footer":
                break
        n_memories += 1
        if n_memories % _TOLD_EVERY == 0:
            shown.update(n=n_memories, done=min(n_memories / total, 1.0) if total else 0.0)
    if last.get("type") != "footer" or last.get("count") != n_memories:
        raise UnreachableError(f"The export of {url} broke off after {n_memories:,} memories.")
    return n_memories


def _whole_lines(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        yield from (line for line in answer if line.endswith(b"\n"))
    except (OSError, http.client.HTTPException):
        return


@contextmanager
def _written(output: Path | None) -> Iterator[IO[bytes]]:
    """Where to write: stdout, or a file that takes its name only if the block ends well."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    output = output.resolve()
    partial: Path | None = None
    try:
        if output.exists() and not output.is_file():  # a device or a pipe stays what it is
            with output.open("wb") as file:
                yield file
            return
        descriptor, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
        partial = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(output)
    except OSError as exc:
        raise CliError(f"{output} cannot be written: {exc.strerror or exc}") from exc
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)
