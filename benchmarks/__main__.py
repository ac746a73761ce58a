"""Run benchmarks by name, or all of them, with their defaults.

python -m benchmarks [NAME ...]
"""

from __future__ import annotations

import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


class Benchmark(str, Enum):
    """The modules that measure, quick ones first."""

    embedding_quality = "embedding_quality"
    keyword_search = "keyword_search"
    vector_search = "vector_search"
    sameness = "sameness"
    languages = "languages"
    backup_cost = "backup_cost"
    rest = "rest"
    ingest = "ingest"
    recall = "recall"
    foreign_questions = "foreign_questions"
    known_items = "known_items"
    scale = "scale"


def module_of(name: str) -> str:
    """The module that is a benchmark, in whichever room it stands."""
    [file] = Path(__file__).parent.glob(f"*/{name}.py")
    return f"benchmarks.{file.parent.name}.{name}"


def main(
    names: Annotated[
        list[Benchmark] | None, typer.Argument(help="Which; by default all but scale.")
    ] = None,
) -> None:
    """Run benchmarks; `python -m benchmarks.ROOM.NAME --help` shows the options of one."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    failed = []
    usual = [benchmark for benchmark in Benchmark if benchmark is not Benchmark.scale]
    for name in [benchmark.value for benchmark in names or usual]:
        console.rule(name)
        # A process each: none inherits the memory or the threads of the one before.
        if subprocess.run([sys.executable, "-m", module_of(name)], check=False).returncode:
            failed.append(name)
    if failed:
        console.print(f"Not measured: {', '.join(failed)}", style="red")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
