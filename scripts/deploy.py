"""`python -m scripts.deploy`: see `scripts.launcher.deploy`."""

import typer

from scripts.launcher.deploy import main

if __name__ == "__main__":
    typer.run(main)
