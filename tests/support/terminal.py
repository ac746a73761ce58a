"""A terminal window that a test can close."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.service import START_PATIENCE_S


class Terminal:
    """A terminal with one command in it, as a session of its own."""

    def __init__(self, command: list[str], env: dict[str, str], cwd: Path) -> None:
        self.shown = b""
        ours, theirs = pty.openpty()
        self._ours = ours
        self.process = subprocess.Popen(
            [sys.executable, "-c", _IN_ITS_TERMINAL, *command],
            env=env,
            cwd=cwd,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def wait_for(self, words: bytes) -> None:
        """Read until the command has written this. A watchdog ends one that never does."""
        watchdog = threading.Timer(START_PATIENCE_S, self.process.kill)
        watchdog.start()
        try:
            while words not in self.shown:
                self.shown += os.read(self._ours, 65536)
        except OSError:
            pytest.fail(f"it ended before: {self.shown.decode('utf-8', 'replace')}")
        finally:
            watchdog.cancel()

    def close(self) -> None:
        """As a window is closed."""
        os.close(self._ours)


_IN_ITS_TERMINAL = """\
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
