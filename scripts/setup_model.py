"""`python -m scripts.setup_model`: see `scripts.model.set_up`."""

import typer

from scripts.model.set_up import main

if __name__ == "__main__":
    typer.run(main)
