"""`python -m scripts.serve`: see `scripts.launcher.serve`."""

import typer

from scripts.launcher.serve import main

if __name__ == "__main__":
    typer.run(main)
