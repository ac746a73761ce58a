"""scripts/install-cron.sh, against a crontab and a systemctl of the test's own."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.fake_service import serving
from tests.support.scripts_under_test import BackingUp, Checkout, checkout

__all__ = ["checkout"]

THEIRS = "# mine\nMAILTO=\"a b\"\n\n0 5 * * 1 tar 'x y' %\\% \\n  # trailing  \n@reboot faiss\n"
KEY = "k3y 'with' $(touch pwned) % \\ \""

CRONTAB = """
case $1 in
  -l) cat "$HOME/table" 2>/dev/null || { echo "no crontab for anna" >&2; exit 1; } ;;
  -) cat >"$HOME/table.new" && mv "$HOME/table.new" "$HOME/table" ;;
esac
"""


@pytest.fixture
def table(checkout: Checkout) -> Path:
    checkout.program("crontab", CRONTAB)
    checkout.env |= {"FAISS_API_KEY": KEY, "GDRIVE_FOLDER_NAME": "our 100%"}
    return checkout.home / "table"


def settings_of(checkout: Checkout) -> Path:
    return checkout.home / ".config" / "faiss-memory" / "backup.env"


def as_cron_runs(line: str) -> str:
    """The command of a crontab line: see crontab(5) for what becomes of %."""
    command = line.split(maxsplit=5)[5]
    assert not re.search(r"(?<!\\)%", command), "cron would end the command there"
    return command.replace("\\%", "%")


def test_one_line_is_installed_once_and_taken_out_again(checkout: Checkout, table: Path) -> None:
    table.write_text(THEIRS)
    for _ in range(3):
        done = checkout.run("install-cron.sh", "install")
        assert (done.returncode, done.stderr) == (0, "")
    lines = table.read_text()
    assert lines.startswith(THEIRS)
    [ours] = lines.removeprefix(THEIRS).splitlines()
    assert ours.startswith("*/30 * * * * ")
    assert "k3y" not in lines
    assert checkout.run("install-cron.sh", "status").returncode == 0
    assert checkout.run("install-cron.sh", "uninstall").returncode == 0
    assert table.read_text() == THEIRS
    assert not settings_of(checkout).exists()
    assert checkout.run("install-cron.sh", "status").returncode == 1
    assert checkout.run("install-cron.sh", "uninstall").returncode == 0


def test_the_line_makes_a_snapshot_when_cron_runs_it(checkout: Checkout, table: Path) -> None:
    service = BackingUp(data_dir=checkout.data_dir, api_key=KEY)
    with serving(service) as url:
        installed = checkout.run("install-cron.sh", "install", FAISS_URL=url, BACKUP_DIR="snap s")
        assert installed.returncode == 0
        [line] = table.read_text().splitlines()
        done = subprocess.run(
            ["/bin/sh", "-c", as_cron_runs(line)],
            cwd="/",
            env={"HOME": str(checkout.home), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list((checkout.home / "snap s").glob("2*/manifest.json"))
    assert "newest snapshot" in checkout.run("install-cron.sh", "status").stdout
    assert not (checkout.home / "pwned").exists()


def test_settings_are_private_and_kept_from_one_install_to_the_next(
    checkout: Checkout, table: Path
) -> None:
    settings = settings_of(checkout)
    checkout.run("install-cron.sh", "install", RETENTION_DAYS="9")
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    checkout.run("install-cron.sh", "install", UPLOAD_INTERVAL_MIN="70", FAISS_API_KEY="")
    shown = subprocess.run(
        ["bash", "-c", '. "$1"; printf "%s\\n" "$RETENTION_DAYS" "$UPLOAD_INTERVAL_MIN" '
         '"$FAISS_API_KEY" "$GDRIVE_FOLDER_NAME"', "-", settings],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.splitlines() == ["9", "70", KEY, "our 100%"]


ORIGINAL = "#!/bin/bash\ncp $FAISS_DATA_DIR/index.faiss ~/backups/faiss-memory/\n"


def test_lines_of_the_original_backup_script_are_named(checkout: Checkout, table: Path) -> None:
    original = checkout.home / "faiss-memory" / "scripts" / "backup.sh"
    original.parent.mkdir(parents=True)
    original.write_text(ORIGINAL)
    theirs = checkout.home / "backup.sh"
    theirs.write_text("tar c ~/photos")
    ours = checkout.directory / "scripts" / "backup.sh"
    lines = [
        (f"*/30 * * * * {original} >> /tmp/log 2>&1", True),
        (
            f"*/30 * * * * FAISS_API_KEY=secret cd {original.parents[1]} && ./scripts/backup.sh",
            True,
        ),
        ("0 3 * * * $HOME/faiss-memory/scripts/backup.sh --cleanup", True),
        ("0 3 * * * /gone/faiss-memory/scripts/backup-gdrive.sh", True),
        (f"# */30 * * * * {original}", False),
        (f"0 * * * * bash {theirs}", False),
        (f"0 * * * * {ours}", False),
        ("0 * * * * /gone/backup.sh", False),
        ("", False),
        ("0 5 * * 1 tar 'x y' %\\%", False),
    ]
    table.write_text("".join(f"{line}\n" for line, _ in lines))
    expected = [n for n, (_, is_old) in enumerate(lines, 1) if is_old]
    for arguments in (["install"], ["status"], ["uninstall"], ["status"]):
        done = checkout.run("install-cron.sh", *arguments)
        named = [int(n) for n in re.findall(r"line (\d+) of the crontab runs", done.stdout)]
        assert named == ([] if arguments == ["uninstall"] else expected)
        assert done.stderr == ""
        assert "secret" not in done.stdout
    assert table.read_text() == "".join(f"{line}\n" for line, _ in lines), "nothing was changed"
    for program in ("crontab", "systemctl"):
        checkout.program(program, CRONTAB)
    assert "line 1 of the" in checkout.run("install-cron.sh", "install", "--systemd").stdout


@pytest.mark.parametrize(
    ("crontab", "said"),
    [
        (
            '[ "$1" != -l ] || { echo "you are not allowed" >&2; exit 1; }; cat >"$HOME/table"',
            "not allowed",
        ),
        (f'[ "$1" = -l ] || {{ cat >/dev/null; exit 1; }}\n{CRONTAB}', "did not accept"),
        (f'[ "$1" = -l ] || {{ cat >/dev/null; exit 0; }}\n{CRONTAB}', "lacks lines"),
    ],
)
def test_a_crontab_that_fails_is_left_alone_and_reported(
    checkout: Checkout, table: Path, crontab: str, said: str
) -> None:
    table.write_text(THEIRS)
    checkout.program("crontab", crontab)
    done = checkout.run("install-cron.sh", "install")
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr
    assert table.read_text() == THEIRS


def test_a_timer_is_the_alternative_and_never_both(checkout: Checkout, table: Path) -> None:
    log = checkout.home / "systemctl.log"
    checkout.program("systemctl", 'printf "%s\\n" "$*" >>"$HOME/systemctl.log"')
    units = checkout.home / ".config" / "systemd" / "user"
    assert checkout.run("install-cron.sh", "install", "--systemd").returncode == 0
    service = (units / "faiss-memory-backup.service").read_text()
    # As systemd.service(5) reads a command line.
    quoted = re.search(r'bash "((?:[^"\\]|\\.)*)" --env "((?:[^"\\]|\\.)*)"\n', service)
    assert quoted
    words = [
        re.sub(r"\\(.)", r"\1", word).replace("%%", "%").replace("$$", "$")
        for word in quoted.groups()
    ]
    assert words == [
        str(checkout.directory / "scripts" / "backup.sh"), str(settings_of(checkout)),
    ]  # fmt: skip
    assert "OnCalendar=*:0/30" in (units / "faiss-memory-backup.timer").read_text()
    assert "--user enable --now faiss-memory-backup.timer" in log.read_text()
    assert "uninstall it first" in checkout.run("install-cron.sh", "install").stderr
    assert checkout.run("install-cron.sh", "uninstall").returncode == 0
    assert "--user disable --now faiss-memory-backup.timer" in log.read_text()
    assert list(units.iterdir()) == []
    checkout.program("systemctl", "exit 1")
    refused = checkout.run("install-cron.sh", "install", "--systemd")
    assert (refused.returncode, "did not take the timer" in refused.stderr) == (1, True)
    assert list(units.iterdir()) == []


def test_without_cron_it_says_what_to_do(checkout: Checkout) -> None:
    for tool in ("bash", "date", "dirname", "mktemp", "rm"):
        (checkout.programs / tool).symlink_to(str(shutil.which(tool)))
    done = checkout.run("install-cron.sh", "install", PATH=str(checkout.programs))
    assert done.returncode == 1
    assert "install-cron.sh install --systemd" in done.stderr
