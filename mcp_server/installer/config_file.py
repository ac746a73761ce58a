"""Careful edits of a file that belongs to someone else's program.

An edit is planned as the text before and after. Applying it keeps a copy beside the file,
replaces the file in one step, and refuses when the file changed in between.
"""

from __future__ import annotations

import difflib
import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path


class ConfigError(Exception):
    """A file that cannot be edited safely; nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A planned change of one file. None stands for no file."""

    path: Path
    before: str | None
    after: str | None

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return self.before != self.after

    def diff(self) -> str:
        """The change as a unified diff."""
        return "".join(
            f"{line}\n"
            for line in difflib.unified_diff(
                (self.before or "").splitlines(),
                (self.after or "").splitlines(),
                str(self.path) if self.before is not None else os.devnull,
                str(self.path) if self.after is not None else os.devnull,
                lineterm="",
            )
        )

    def apply(self) -> Path | None:
        """Carry the change out. Durable when this returns.

        Returns:
            Where the file as it was is kept; None when there was none.

        Raises:
            ConfigError: the file is no longer as it was when the edit was planned.
        """
        if read(self.path) != self.before:
            raise ConfigError(f"{self.path} was changed by someone else meanwhile; run this again.")
        backup = None if self.before is None else _kept(self.path)
        if self.after is None:
            self.path.unlink(missing_ok=True)
        else:
            _replace(self.path, self.after)
        return backup


def read(path: Path) -> str | None:
    """The text of a file; None when there is none.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} cannot be read ({exc}); nothing was changed.") from exc


def _kept(path: Path) -> Path:
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d_%H%M%S_%f")
    backup = path.with_name(f"{path.name}.{stamp}.bak")
    shutil.copy2(path, backup)
    return backup


def _replace(path: Path, text: str) -> None:
    # Behind a symlink (dotfile managers make them) the file itself is replaced, not the link.
    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, partial)
        Path(partial).replace(target)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
