"""The commands that errors name, as they work where this program runs: checkout, package, image."""

import os
import shlex
import sys


def script_command(words: str, data_dir: str | os.PathLike[str] = "") -> str:
    """Return what starts a program of `scripts`, for `sh` in any directory.

    Args:
        words: the module's name and its arguments, as in `store doctor`.
        data_dir: the data directory that the program is for; empty: it needs none.
    """
    command = f"{shlex.quote(sys.executable)} -m scripts.{words}"
    where = os.fspath(data_dir)
    return f"{command} --data-dir {shlex.quote(os.path.abspath(where))}" if where else command  # noqa: PTH100
