"""Why a command failed, in words, and the status that it exits with.

```
CliError               1  the service refused, or something is wrong with what was given
├── UsageError         2  the command line makes no sense
├── RefusedError       1  the service answered with an error; 3 while it is starting
├── UnreachableError   3  no service answers
└── NothingFoundError  4  there is nothing that matches
```
"""

from __future__ import annotations

_NOT_READY = 503


class CliError(Exception):
    """A command failed; `str()` is for people, and says what to do."""

    exit_code = 1


class UsageError(CliError):
    """The command line cannot be carried out as it stands."""

    exit_code = 2


class UnreachableError(CliError):
    """No answer came from the service, or it broke off."""

    exit_code = 3


class NothingFoundError(CliError):
    """Nothing matches."""

    exit_code = 4


class RefusedError(CliError):
    """The service answered with an error status."""

    def __init__(self, status: int, detail: str, advice: str = "") -> None:
        super().__init__(status, detail, advice)
        self.status = status
        self.detail = detail
        self.advice = advice
        if status == _NOT_READY:
            self.exit_code = UnreachableError.exit_code

    def __str__(self) -> str:
        words = f"The service refused: {self.detail.rstrip('.')} ({self.status})."
        return f"{words} {self.advice}".strip()
