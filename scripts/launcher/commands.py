"""The commands that start the service, at once or from each login on, and fetch its model.

The rest of the launcher is imported when one of them runs.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None, typer.Option(help="What to run and how. Default: the serve_config.yaml beside us.")
]
Detach = Annotated[
    bool, typer.Option("--detach", help="Return when it answers; it runs on without a terminal.")
]


def serve(config: Config = None, detach: Detach = False) -> None:
    """Run the service until Ctrl-C, as `make serve` does. Settings come from the environment."""
    from scripts.launcher import serve as launcher

    if detach:
        launcher.run_detached(config or launcher.DEFAULT_CONFIG)
    else:
        launcher.main(config or launcher.DEFAULT_CONFIG)


def setup(
    force: Annotated[
        bool, typer.Option("--force", help="Check every byte and build the graphs anew.")
    ] = False,
) -> None:
    """Fetch the embedding model and build what the service runs; the first `serve` does it too."""
    from scripts.model import set_up as setup_model

    setup_model.main(force=force)


class ServiceAction(str, Enum):
    """What `service` does."""

    install = "install"
    status = "status"
    uninstall = "uninstall"


def service(action: ServiceAction) -> None:
    """Keep the service running: from each login on, by a systemd user unit or a launchd agent.

    It takes over the settings that the environment has now; `install` again changes them.
    """
    from scripts.launcher import supervised_service

    getattr(supervised_service, action.value)()
