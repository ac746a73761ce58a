"""What works without a running service: the launcher, and the scripts for a stopped one.

The only module here that reaches the engine, Ray and the service's settings, and only when one of
its commands runs: everything else starts in the time of a search.
"""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from scripts.cli.options import AsJson
from scripts.cli.service import Json
from scripts.cli.terminal import print_json

Config = Annotated[
    Path | None, typer.Option(help="What to run and how. Default: the serve_config.yaml beside us.")
]
Detach = Annotated[
    bool, typer.Option("--detach", help="Return when it answers; it runs on without a terminal.")
]
DataDir = Annotated[Path | None, typer.Option(help="Instead of DATA_DIR.")]


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
    from scripts.launcher import kept_service

    getattr(kept_service, action.value)()


def doctor(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Say what is wrong with a stopped service's data, and the remedy.

    Exits with 1 when something is.
    """
    from engine.recovery.doctor import examine
    from scripts.offline import store

    if not as_json:
        store.doctor(data_dir)
    with store.locked(data_dir) as (directory, backups):
        findings = [asdict(finding) for finding in examine(directory, backups)]
    print_json({"ok": not findings, "data_dir": str(directory), "findings": findings})
    raise typer.Exit(1 if findings else 0)


def restore_offline(name: str, *, as_json: bool) -> None:
    """Put a backup in the store's place while no service runs."""
    import engine.recovery.offline
    from scripts.offline import store

    if not as_json:
        return store.restore(name)
    with store.locked(None) as (directory, backups):
        aside = engine.recovery.offline.restore_offline(directory, backups, name)
    return print_json(
        {"success": True, "restored_from": name, "replaced": str(aside) if aside else None}
    )


def check_offline(names: list[str]) -> list[Json]:
    """What `POST /backup/verify` answers for each backup, or for all, while no service runs."""
    from scripts.offline import store

    with store.locked(None) as (_, backups):
        chosen = names or [summary.name for summary in backups.summaries()]
        checks = [backups.verify(name, store.CHECK) for name in chosen]
    return [
        {"backup_name": check.name, "ok": not check.problems, "problems": check.problems}
        for check in checks
    ]
