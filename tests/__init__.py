"""The tests, in rooms that mirror the source; what several of them use is in `tests.support`."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
