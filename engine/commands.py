"""The commands that errors name, as they work where this program runs: checkout, package, image."""

import shlex
import sys


def script_command(words: str) -> str:
    """Return what starts a program of `scripts`, for `sh` in any directory.

    Args:
        words: the module's name and its arguments, as in `store doctor`.
    """
    return f"{shlex.quote(sys.executable)} -m scripts.{words}"
