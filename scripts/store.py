"""`python -m scripts.store`: see `scripts.offline.store`."""

from scripts.offline.store import app

if __name__ == "__main__":
    app()
