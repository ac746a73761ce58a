"""Which directory a path is, so that two processes can tell whether they see the same one."""

from __future__ import annotations

import hashlib
import platform
import stat
from contextlib import suppress
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def directory_id(path: Path) -> str | None:
    """The same for one directory of one running machine, by whatever name; None for no directory.

    A path alone says little: the other end of a tunnel has a `/home/anna` too. Containers of a
    machine share its directories with it, and its kernel.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    if not stat.S_ISDIR(status.st_mode):
        return None
    kernel = platform.node()
    with suppress(OSError):
        kernel = _BOOT_ID.read_text()
    words = f"{kernel.strip()}\0{status.st_dev}\0{status.st_ino}"
    return hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()[:16]
