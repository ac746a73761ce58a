"""Options that several commands share, and what comes out of them."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from scripts.cli.service import PATIENCE_S, Service
from wire.addresses import URL

Url = Annotated[
    str,
    typer.Option(
        envvar="FAISS_URL",
        help="Where the service is; its key is taken from FAISS_API_KEY alone.",
        rich_help_panel="Service",
    ),
]

DEFAULT_URL = URL

AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON on stdout, for programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
SourceFilter = Annotated[
    str | None, typer.Option("--source", "-s", help="Only sources that contain this.")
]
SourcePrefix = Annotated[str | None, typer.Option(help="Only sources that start with this.")]
Since = Annotated[
    str | None,
    typer.Option(
        help="Only what was created then or later: 2026-03-31, 2026-03, today, yesterday, 7d, "
        "or an ISO-8601 time."
    ),
]
Until = Annotated[
    str | None,
    typer.Option(help="Only what was created then or before; a day or a month counts whole."),
]
TimeZone = Annotated[
    str | None,
    typer.Option(
        "--timezone", metavar="NAME", help="Whose days those are, like Europe/Berlin. Default: UTC."
    ),
]


def service_at(url: str, *, patience_s: float = PATIENCE_S) -> Service:
    """A client of the service that the command line and the environment name."""
    # Not an option: what stands on a command line, everyone on the machine can read.
    return Service(url, os.environ.get("FAISS_API_KEY", ""), patience_s=patience_s)
