"""Options that several commands share, and what comes out of them."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperOption

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
NAMESPACE_VARIABLE = "FAISS_NAMESPACE"

PLAIN: dict[str, Any] = {
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["--help", "-h"]},
}
"""Help and complaints without rich: importing it takes longer than all the rest."""

AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON on stdout, for programs.")]
DataDir = Annotated[Path | None, typer.Option(help="Instead of DATA_DIR.")]
Redact = Annotated[
    bool, typer.Option("--redact", help="Replace secrets in texts by [redacted:kind].")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


class Order(str, Enum):
    """How hits are listed."""

    BEST = "best"
    NEWEST = "newest"
    OLDEST = "oldest"


FILTERS: dict[str, Any] = {
    "source": Annotated[
        str | None, typer.Option("--source", "-s", help="Only sources that contain this.")
    ],
    "source_exact": Annotated[str | None, typer.Option(help="Only this very source.")],
    "source_prefix": Annotated[str | None, typer.Option(help="Only sources that start with this.")],
    "since": Annotated[
        str | None,
        typer.Option(
            help="Only what was created then or later: 2026-03-31, 2026-03, today, yesterday, 7d, "
            "or an ISO-8601 time."
        ),
    ],
    "until": Annotated[
        str | None,
        typer.Option(help="Only what was created then or before; a day or a month counts whole."),
    ],
    "timezone": Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Whose days those are, like Europe/Berlin. Default: UTC."
        ),
    ],
}
"""Of every command that reads several memories: the service's parameters of these names."""


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `FILTERS`, which it gets as one argument, `where`."""
    own = inspect.signature(command, eval_str=True).parameters
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in FILTERS.items()
    ]
    shown = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name in own
        for parameter in (options if name == "where" else [own[name]])
    ]

    @functools.wraps(command)
    def with_filters(**given: Any) -> None:  # noqa: ANN401 - whatever the options are
        where = {name: given.pop(name) for name in FILTERS}
        command(where=where, **given)

    with_filters.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    with_filters.__annotations__ = {each.name: each.annotation for each in shown}
    return with_filters


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
