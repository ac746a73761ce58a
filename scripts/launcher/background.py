"""The service without a terminal: the launcher detached, or kept running by the platform.

On Linux a systemd user unit keeps it, on macOS a launchd agent. Both start the launcher with the
settings of the environment that they were made in.
"""

from __future__ import annotations

import os
import plistlib
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_log_path

from deployments.settings import Settings
from scripts.launcher.runtime_dir import LauncherError

ANSWERS = b"FAISS Memory answers at"
"""What the launcher prints when the service is ready."""

_UNIT = "faiss-memory.service"
_AGENT = "faiss-memory"
_NOT_CARRIED = frozenset({"log_pipe"})
_POLL_S = 0.1
_STOP_MARGIN_S = 10
_ADVICE = "Without it: faiss-memory serve --detach"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The launcher as another program starts it."""

    command: tuple[str, ...]
    directory: Path
    environment: Mapping[str, str]
    stop_timeout_s: float
    log_path: Path


def job_of(settings: Settings, environ: Mapping[str, str], *, config: Path | None = None) -> Job:
    """The launcher with these settings, wherever it is started.

    Args:
        settings: read from `environ`.
        environ: what it sets is handed on.
        config: an absolute path; None: the launcher's default.
    """
    options = ("--config", str(config)) if config else ()
    names = ["data_dir", "workspace_dir"]
    names += [n for n in Settings.model_fields if environ.get(n.upper()) and n not in _NOT_CARRIED]
    return Job(
        command=(sys.executable, "-m", "scripts.serve", *options),
        # Not where a folder `scripts` of somebody else's may lie.
        directory=settings.data_dir,
        environment={name.upper(): _raw(settings, name, environ) for name in sorted(set(names))},
        stop_timeout_s=settings.stop_timeout_s,
        log_path=user_log_path("faiss-memory", appauthor=False) / f"service-{settings.port}.log",
    )


def _raw(settings: Settings, name: str, environ: Mapping[str, str]) -> str:
    value = getattr(settings, name)
    return str(value) if isinstance(value, Path) else environ[name.upper()]


def start_detached(job: Job) -> tuple[int, str]:
    """Start the launcher in a session of its own, and wait until the service answers.

    Returns:
        Its process id, and the line in which it says where it answers.

    Raises:
        LauncherError: it ended before; the message is what it wrote.
    """
    job.log_path.parent.mkdir(parents=True, exist_ok=True)
    with job.log_path.open("wb") as log:
        process = subprocess.Popen(
            job.command,
            cwd=job.directory,
            env={**os.environ, **job.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        return process.pid, _wait_until_it_answers(process, job.log_path)
    except KeyboardInterrupt:
        process.terminate()
        raise


def _wait_until_it_answers(process: subprocess.Popen[bytes], log_path: Path) -> str:
    while True:
        ended = process.poll() is not None
        lines = log_path.read_bytes().splitlines()
        for line in lines:
            if line.startswith(ANSWERS):
                return line.decode("utf-8", "replace")
        if ended:
            said = [line.decode("utf-8", "replace") for line in lines if line[:1] != b"{"]
            raise LauncherError("\n".join([*said, f"All that it wrote is in {log_path}"]))
        time.sleep(_POLL_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervisor:
    """The file that has the platform keep a program running, and the commands about it."""

    path: Path
    content: bytes
    start: tuple[tuple[str, ...], ...]
    stop: tuple[tuple[str, ...], ...]
    forget: tuple[tuple[str, ...], ...]
    """After the file is gone."""
    status: tuple[str, ...]

    def install(self) -> None:
        """Write the file, readable by its owner alone, and start the service; or start it anew.

        Raises:
            LauncherError: the platform's program is not there, or refuses.
        """
        if self.path.exists():
            for command in self.stop:
                _run(command, may_fail=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        with os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
            f.write(self.content)
        try:
            for command in self.start:
                _run(command)
        except LauncherError:
            self.path.unlink()
            raise

    def uninstall(self) -> bool:
        """Stop the service and remove the file; returns whether there was one."""
        if not self.path.exists():
            return False
        for command in self.stop:
            _run(command, may_fail=True)
        self.path.unlink()
        for command in self.forget:
            _run(command, may_fail=True)
        return True


def _run(command: tuple[str, ...], *, may_fail: bool = False) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        if may_fail:
            return
        raise LauncherError(f"there is no {command[0]} on this machine. {_ADVICE}") from None
    if done.returncode and not may_fail:
        raise LauncherError(f"`{' '.join(command)}` failed: {done.stderr.strip()}. {_ADVICE}")


def supervisor_for(
    job: Job, *, platform: str, home: Path, environ: Mapping[str, str]
) -> Supervisor:
    """What keeps the job running on this platform, for this user.

    Args:
        job: what to keep running.
        platform: as `sys.platform`.
        home: the user's home directory.
        environ: for `XDG_CONFIG_HOME`.
    """
    if platform == "darwin":
        return _launchd(job, home)
    return _systemd(job, Path(environ.get("XDG_CONFIG_HOME") or home / ".config"))


def _systemd(job: Job, config: Path) -> Supervisor:
    control = ("systemctl", "--user")
    return Supervisor(
        path=config / "systemd" / "user" / _UNIT,
        content=unit_text(job).encode(),
        start=(
            (*control, "daemon-reload"),
            (*control, "enable", _UNIT),
            (*control, "start", _UNIT),
        ),
        stop=((*control, "disable", "--now", _UNIT),),
        forget=((*control, "daemon-reload"),),
        status=(*control, "--no-pager", "status", _UNIT),
    )


def unit_text(job: Job) -> str:
    """A systemd user unit; see systemd.service(5) and systemd.exec(5)."""
    words = " ".join(_quoted(word).replace("$", "$$") for word in job.command)
    variables = [f"Environment={_quoted(f'{n}={v}')}" for n, v in job.environment.items()]
    lines = [
        "[Unit]",
        "Description=FAISS Memory",
        "",
        "[Service]",
        f"ExecStart={words}",
        f"WorkingDirectory={str(job.directory).replace('%', '%%')}",
        *variables,
        "Restart=on-failure",
        "RestartSec=5",
        # Only the launcher is asked to stop: it ends the others in order.
        "KillMode=mixed",
        f"TimeoutStopSec={job.stop_timeout_s + _STOP_MARGIN_S:g}",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]
    return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'.replace("\n", "\\n")


def _launchd(job: Job, home: Path) -> Supervisor:
    domain = f"gui/{os.getuid()}"
    path = home / "Library" / "LaunchAgents" / f"{_AGENT}.plist"
    return Supervisor(
        path=path,
        content=agent_plist(job),
        start=(("launchctl", "bootstrap", domain, str(path)),),
        stop=(("launchctl", "bootout", f"{domain}/{_AGENT}"),),
        forget=(),
        status=("launchctl", "print", f"{domain}/{_AGENT}"),
    )


def agent_plist(job: Job) -> bytes:
    """A launchd agent; see launchd.plist(5)."""
    return plistlib.dumps(
        {
            "Label": _AGENT,
            "ProgramArguments": list(job.command),
            "WorkingDirectory": str(job.directory),
            "EnvironmentVariables": dict(job.environment),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ExitTimeOut": int(job.stop_timeout_s + _STOP_MARGIN_S),
            "StandardOutPath": str(job.log_path),
            "StandardErrorPath": str(job.log_path),
        }
    )
