"""Embed every memory anew, after MODEL_NAME or MODEL_PRECISION has changed. Stop the service first.

Interrupted, the store still has its old vectors, and the next run goes on where this one stopped.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from deployments.settings import SettingsError, load_settings
from engine.backups.catalogue import Backups
from engine.disk.data_lock import DataLock
from engine.errors import EngineError, StorageError
from engine.index_options import BACKUPS_NAME
from engine.model.embedder import Embedder
from engine.model.files import default_model_dir
from engine.recovery.precision import precision_of
from engine.recovery.reembed import reembed
from engine.store.database import DATABASE_NAME
from engine.store.upgrade import upgrade
from scripts.cli.progress import progress


def main(
    data_dir: Annotated[Path | None, typer.Option(help="Instead of DATA_DIR.")] = None,
) -> None:
    """Embed every memory anew with the model that the settings (as the service reads them) name."""
    console = Console(stderr=True)
    try:
        settings = load_settings(**({"data_dir": data_dir} if data_dir else {}))
        os.umask(0o077)
        database = settings.data_dir / DATABASE_NAME
        if not database.exists():
            raise StorageError(f"there is no store in {settings.data_dir}; set DATA_DIR")
        embedder = Embedder(
            settings.model_dir or default_model_dir(os.environ, Path.home()),
            precision=precision_of(settings.data_dir, settings.model_precision),
        )
        with DataLock(settings.data_dir, timeout_s=1.0):
            upgrade(database)
            backups = Backups(settings.data_dir / BACKUPS_NAME, keep={"safety": 10})
            backup = backups.create(database, "pre_reembed", kind="safety")
            console.print(f"The vectors before are kept in {escape(backup.path)}")
            with progress("Embedding") as shown:
                for done, total in reembed(database, embedder.identity, embedder.embed):
                    shown.update(n=done, done=done / max(total, 1))
    except (EngineError, SettingsError) as exc:
        console.print(f"[bold red]The store is as it was:[/] {escape(str(exc))}")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print("Stopped; the store is as it was. Run this again to go on.")
        raise typer.Exit(130) from None
    console.print(f"Done: the store now holds {embedder.identity.precision} vectors.")
