"""`python -m scripts.reembed`: see `scripts.offline.reembed`."""

import typer

from scripts.offline.reembed import main

if __name__ == "__main__":
    typer.run(main)
