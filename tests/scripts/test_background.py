"""`faiss-memory service` and `serve --detach`: the service without a terminal."""

from __future__ import annotations

import plistlib
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.settings import Settings, load_settings
from scripts.cli.app import app
from scripts.launcher.background import Job, agent_plist, job_of, supervisor_for, unit_text
from scripts.launcher.runtime_dir import LauncherError

HOSTILE = 'a"b\\c%d$e f'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with settings, and a `systemctl` that only writes down what it is told."""
    for name in Settings.model_fields:
        if name != "model_dir":
            monkeypatch.delenv(name.upper(), raising=False)
    home = tmp_path / "my home"
    bin_dir = tmp_path / "bin"
    for directory in (home, bin_dir):
        directory.mkdir()
    for program in ("systemctl", "launchctl"):
        fake = bin_dir / program
        fake.write_text(f'#!/bin/sh\necho {program} "$@" >> "{tmp_path}/told"\n')
        fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_dir}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("DATA_DIR", "my data")
    monkeypatch.setenv("API_KEY", HOSTILE)
    monkeypatch.chdir(home)
    return home


def job(**settings: str) -> Job:
    return job_of(load_settings(), {"DATA_DIR": "my data", "API_KEY": HOSTILE, **settings})


def told(tmp_path: Path) -> list[str]:
    return (tmp_path / "told").read_text().splitlines()


def test_a_unit_carries_the_settings_of_now_and_absolute_paths(home: Path) -> None:
    lines = unit_text(job()).splitlines()
    assert f'ExecStart="{sys.executable}" "-m" "scripts.serve"' in lines
    assert 'Environment="API_KEY=a\\"b\\\\c%%d$e f"' in lines
    assert f'Environment="DATA_DIR={home}/my data"' in lines
    assert f'Environment="WORKSPACE_DIR={home}"' in lines
    assert f"WorkingDirectory={home}/my data" in lines
    assert not any("PORT" in line for line in lines)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_finds_no_fault_in_the_unit(home: Path, tmp_path: Path) -> None:
    unit = tmp_path / "faiss-memory.service"
    unit.write_text(unit_text(job()))
    (home / "my data").mkdir()
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", unit],
        env={"PATH": "/usr/bin:/bin", "HOME": str(home), "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_agent_says_the_same_to_launchd(home: Path) -> None:
    agent = plistlib.loads(agent_plist(job()))
    assert agent["ProgramArguments"] == [sys.executable, "-m", "scripts.serve"]
    assert agent["EnvironmentVariables"] == {
        "API_KEY": HOSTILE,
        "DATA_DIR": f"{home}/my data",
        "WORKSPACE_DIR": str(home),
    }
    assert agent["WorkingDirectory"] == f"{home}/my data"
    assert agent["KeepAlive"] == {"SuccessfulExit": False}


@pytest.mark.parametrize(
    ("platform", "place", "first", "last"),
    [
        (
            "linux",
            ".config/systemd/user/faiss-memory.service",
            "systemctl --user start faiss-memory.service",
            "systemctl --user daemon-reload",
        ),
        (
            "darwin",
            "Library/LaunchAgents/faiss-memory.plist",
            "launchctl bootstrap gui/",
            "launchctl bootout gui/",
        ),
    ],
)
def test_what_is_installed_is_private_and_goes_without_a_trace(
    home: Path, tmp_path: Path, platform: str, place: str, first: str, last: str
) -> None:
    supervisor = supervisor_for(job(), platform=platform, home=home, environ={})
    assert supervisor.path == home / place
    assert not supervisor.uninstall()
    supervisor.install()
    assert stat.S_IMODE(supervisor.path.stat().st_mode) == 0o600
    assert told(tmp_path)[-1].startswith(first)
    supervisor.install()  # again: with other settings, for instance
    assert supervisor.uninstall()
    assert told(tmp_path)[-1].startswith(last)
    assert not supervisor.path.exists()


@pytest.mark.skipif(sys.platform == "darwin", reason="the command looks at the real platform")
def test_the_command_installs_tells_and_uninstalls(home: Path, tmp_path: Path) -> None:
    def run(action: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["service", action])
        return result.exit_code, " ".join(result.output.split())

    assert run("status")[0] == 3
    code, output = run("install")
    assert (code, "keeps the service running" in output) == (0, True), output
    assert run("status")[0] == 0
    assert told(tmp_path)[-1] == "systemctl --user --no-pager status faiss-memory.service"
    assert run("uninstall") == (0, "Uninstalled; your memories stay.")
    assert (home / "my data").is_dir()


def test_what_the_platform_refuses_leaves_nothing(home: Path, tmp_path: Path) -> None:
    (tmp_path / "bin" / "systemctl").write_text("#!/bin/sh\necho no bus >&2\nexit 1\n")
    supervisor = supervisor_for(job(), platform="linux", home=home, environ={})
    with pytest.raises(LauncherError, match=r"daemon-reload` failed: no bus\. .* --detach"):
        supervisor.install()
    assert not supervisor.path.exists()


def test_a_detached_start_that_fails_says_why(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKSPACE_DIR", str(home / "none"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    result = CliRunner().invoke(app, ["serve", "--detach"])
    assert result.exit_code == 1
    assert "WORKSPACE_DIR=" in result.output
    assert "Traceback" not in result.output
