"""Options that several commands share, and what comes out of them."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
from typer.core import TyperOption

from scripts.cli.service import PATIENCE_S, Service

Url = Annotated[
    str,
    typer.Option(
        envvar="FAISS_URL",
        help="Where the service is; its key is taken from FAISS_API_KEY alone.",
        rich_help_panel="Service",
    ),
]
DEFAULT_URL = "http://localhost:8900"
NAMESPACE_VARIABLE = "FAISS_NAMESPACE"

PLAIN: dict[str, Any] = {
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["--help", "-h"]},
}
"""Help and complaints without rich: importing it takes longer than all the rest."""

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
    return Service(
        url,
        os.environ.get("FAISS_API_KEY", ""),
        namespace=os.environ.get(NAMESPACE_VARIABLE, ""),
        patience_s=patience_s,
    )


def namespace_option() -> TyperOption:
    """`--namespace` for every command that calls the service: see `scripts.cli.app`."""

    def choose(_ctx: Any, _param: Any, value: str | None) -> None:  # noqa: ANN401 (typer's own)
        if value is not None:
            os.environ[NAMESPACE_VARIABLE] = value

    return TyperOption(
        param_decls=["--namespace"],
        metavar="NAME",
        envvar=NAMESPACE_VARIABLE,
        show_envvar=True,
        expose_value=False,
        callback=choose,
        help="Whose memories: one of the service's namespaces. Default: the key's own, or default.",
    )
