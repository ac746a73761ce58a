"""`python -m scripts.reembed`: see `scripts.cli.offline.reembed`."""

import typer

from scripts.cli.offline.reembed import main

if __name__ == "__main__":
    typer.run(main)
