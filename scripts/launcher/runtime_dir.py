"""The launcher's own directory: lock, Ray's token, sockets, logs of the processes it starts.

It belongs to one data directory and lives under `/tmp`, not `TMPDIR`: Unix socket paths end at
107 bytes, and Ray and HAProxy append more than 80 to it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

OWNER_VARIABLE = "FAISS_MEMORY_RUNTIME_DIR"
"""Environment variable that marks the processes of one launcher."""

_KEPT_SESSIONS = 1
"""Ray sessions whose logs stay for a look at what happened, besides the current one."""
_KILL_TIMEOUT_S = 5.0


class LauncherError(Exception):
    """The service cannot start; the message says why and what to do."""


def runtime_dir_of(data_dir: Path, parent: Path = Path("/tmp")) -> Path:
    """Where the launcher that serves `data_dir` keeps its things, or shall.

    Everybody may make directories in `parent`: where a stranger took the usual name, it is
    followed by something that nobody can guess.
    """
    digest = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:8]
    usual = parent / f"fm-{os.getuid()}-{digest}"
    own = [path for path in sorted(parent.glob(f"{usual.name}*")) if _is_own_directory(path)]
    if own:
        return own[0]
    is_taken = os.path.lexists(usual)
    return usual.with_name(f"{usual.name}-{secrets.token_urlsafe(3)}") if is_taken else usual


def _is_own_directory(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeDir:
    """An open runtime directory; its lock is held until the process ends."""

    path: Path
    lock_fd: int

    @classmethod
    def open(cls, path: Path) -> RuntimeDir:
        """Make it private, take its lock, end what a killed launcher left behind.

        Raises:
            LauncherError: another launcher is at work, or the directory is someone else's.
        """
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            status = path.lstat()
        except OSError as exc:
            raise LauncherError(f"cannot use {path}: {exc.strerror}") from exc
        private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
        if not private or status.st_uid != os.getuid():
            raise LauncherError(f"{path} is not a private directory of this user: remove it")
        lock_fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock_fd, 32, 0).decode("ascii", "replace").strip()
            os.close(lock_fd)
            raise LauncherError(
                f"this data directory is already served by process {holder or 'unknown'}"
            ) from None
        # systemd-tmpfiles spares what is old in a directory that someone has locked.
        fcntl.flock(os.open(path, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_SH)
        os.truncate(lock_fd, 0)
        os.pwrite(lock_fd, f"{os.getpid()}\n".encode(), 0)
        opened = cls(path=path, lock_fd=lock_fd)
        opened.end_leftovers()
        opened._clear_old_files()
        return opened

    @classmethod
    def of_running(cls, path: Path) -> RuntimeDir:
        """The runtime directory of a launcher that is at work.

        Raises:
            LauncherError: none is.
        """
        try:
            with (path / "lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return cls(path=path, lock_fd=-1)
        except OSError:
            pass
        raise LauncherError(
            "no service runs on this data directory; start it with: make serve, "
            "or faiss-memory serve"
        )

    @property
    def address_path(self) -> Path:
        """Where the launcher writes the address of its Ray node."""
        return self.path / "ray_address"

    @property
    def ray_dir(self) -> Path:
        """Ray's temporary directory: sessions with logs and sockets."""
        return self.path / "ray"

    @property
    def haproxy_dir(self) -> Path:
        """HAProxy's configuration and sockets; short, for its sockets' sake."""
        return self.path / "ha"

    @property
    def log_pipe(self) -> Path:
        """The named pipe that replicas log to."""
        return self.path / "log"

    @property
    def token_path(self) -> Path:
        """Ray's cluster token, readable by this user only."""
        return self.path / "ray_token"

    def ensure_token(self) -> Path:
        """Make the token at the first start; later starts keep it."""
        try:
            fd = os.open(self.token_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return self.token_path
        with os.fdopen(fd, "w") as token:
            token.write(secrets.token_hex(32))
        return self.token_path

    def end_leftovers(self) -> None:
        """Kill what this launcher, or one that is gone since its lock is ours, has started.

        Raises:
            LauncherError: they do not end.
        """
        deadline = time.monotonic() + _KILL_TIMEOUT_S
        while leftovers := [pid for pid in own_pids(self.path) if pid != os.getpid()]:
            for pid in leftovers:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise LauncherError(f"cannot end processes {leftovers} of an earlier start")
            time.sleep(0.05)

    def _clear_old_files(self) -> None:
        shutil.rmtree(self.haproxy_dir, ignore_errors=True)
        sessions = sorted(self.ray_dir.glob("session_2*"), reverse=True)
        for session in sessions[_KEPT_SESSIONS:]:
            shutil.rmtree(session, ignore_errors=True)


def own_pids(path: Path, proc: Path = Path("/proc")) -> list[int]:
    """Processes of this user that a launcher with this runtime directory started.

    Children count for themselves: those of Ray's dashboard write their title over the mark.

    Args:
        path: the runtime directory, which launchers hand down as `OWNER_VARIABLE`.
        proc: where Linux lists processes; empty on other systems, whose Ray processes end
            with the launcher and which run no HAProxy.
    """
    mark = f"{OWNER_VARIABLE}={path}".encode()
    marked, parents = set(), {}
    for entry in proc.glob("[0-9]*"):
        try:
            if entry.stat().st_uid != os.getuid():
                continue
            environment = (entry / "environ").read_bytes().split(b"\0")
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            parents[int(entry.name)] = int(parent)
            if mark in environment:
                marked.add(int(entry.name))
    return [pid for pid, parent in parents.items() if pid in marked or parent in marked]
