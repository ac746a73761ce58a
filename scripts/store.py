"""`python -m scripts.store`: see `scripts.cli.offline.store`."""

from scripts.cli.offline.store import app

if __name__ == "__main__":
    app()
