"""Which file is which: the same one for every command, from whichever directory it is given.

A file is called by its path below a root: its own path in full (`~` for the home directory), its
path in the service's workspace, or a root that the user names with `--source`. Its passages have a
key that tells whose they are: of this machine, or for a named root of one directory on it. The
service's own builds give no key.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import uuid
from contextlib import suppress
from pathlib import Path

OWNER_PREFIX = "file:"
"""What the key of every passage that was sent begins with."""


def path_name(path: Path) -> str:
    """A path as it is called by itself, symlinks followed: `~/notes/a.md`, `/srv/docs/b.md`."""
    real, home = path.resolve(), _home()
    if home is not None and real.is_relative_to(home):
        return utf8(f"~/{real.relative_to(home).as_posix()}").removesuffix("/.")
    return utf8(real.as_posix())


def owner(root: Path | None = None) -> str:
    """The key of passages of files below a root that the user named; None: called by their path."""
    place = str(_home() if root is None else root.resolve())
    digest = hashlib.sha256(f"{_machine()}\0{place}".encode("utf-8", "surrogateescape"))
    return f"{OWNER_PREFIX}{digest.hexdigest()[:16]}"


def utf8(name: str) -> str:
    """A name without what is no UTF-8, which must not reach JSON as lone surrogates."""
    return os.fsencode(name).decode("utf-8", "replace")


def _home() -> Path | None:
    try:
        return Path.home().resolve()
    except RuntimeError:
        return None


@functools.cache
def _machine() -> str:
    """What tells this machine from others that use the same service, whatever network it is in."""
    for path in (Path("/etc/machine-id"), _own_id()):
        with suppress(OSError, ValueError):
            if known := path.read_text("ascii").strip():
                return known
    made = uuid.uuid4().hex
    try:
        _own_id().parent.mkdir(parents=True, exist_ok=True)
        _own_id().write_text(made, "ascii")
    except OSError:
        return platform.node()
    return made


def _own_id() -> Path:
    """Where a machine without an id of its own keeps the one it was given."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "faiss-memory" / "machine"
