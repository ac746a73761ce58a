"""scripts/backup.sh: what it copies, notices, drops and leaves alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from scripts.cli.offline.store import app
from tests import ROOT
from tests.support.fake_service import Json, serving
from tests.support.scripts_under_test import (
    BackingUp,
    Checkout,
    checkout,
    tree,
    write_backup,
)
from tests.support.service import Service, shared_service

__all__ = ["checkout", "shared_service"]

SCRIPTS = ["backup.sh", "backup-gdrive.sh", "install-cron.sh"]


@pytest.fixture
def service(checkout: Checkout) -> Iterator[BackingUp]:
    service = BackingUp(data_dir=checkout.data_dir)
    with serving(service) as url:
        checkout.env["FAISS_URL"] = url + "/"
        yield service


@pytest.mark.service
def test_a_snapshot_of_the_running_service_is_restored_on_an_empty_machine(
    shared_service: Service, checkout: Checkout, tmp_path: Path
) -> None:
    (checkout.directory / ".venv").symlink_to(sys.prefix)
    data = tmp_path / "their data"
    data.symlink_to(shared_service.data_dir)
    memory = {"text": "Snapshots of xylophones are kept.", "source": "s", "deduplicate": False}
    httpx.post(
        f"{shared_service.base_url}/memory/add", json=memory, trust_env=False
    ).raise_for_status()

    done = checkout.run("backup.sh", FAISS_URL=shared_service.base_url, FAISS_DATA_DIR=str(data))

    assert (done.returncode, done.stderr) == (0, "")
    [name] = checkout.snapshots()
    snapshot, made = checkout.backup_dir / name, data / "backups" / f"scheduled_{name}"
    for path in made.iterdir():
        assert (snapshot / path.name).read_bytes() == path.read_bytes()
    assert (snapshot / "verified").exists()  # a restore was tried
    assert done.stdout in checkout.log()

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(snapshot, elsewhere / "backups" / f"scheduled_{name}")
    restored = CliRunner().invoke(
        app, ["restore", f"scheduled_{name}", "--data-dir", str(elsewhere)]
    )
    assert restored.exit_code == 0, restored.output
    assert b"Snapshots of xylophones" in (elsewhere / "memories.db").read_bytes()


def test_a_snapshot_shares_with_the_one_before_what_did_not_change(
    service: BackingUp, checkout: Checkout
) -> None:
    assert checkout.run("backup.sh").returncode == 0
    service.files["delta_1_2"] = "second"
    assert checkout.run("backup.sh").returncode == 0
    one, two = (checkout.backup_dir / name for name in checkout.snapshots())
    assert (one / "base_1.db").samefile(two / "base_1.db")
    assert (two / "delta_1_2.db").read_text() == "second"
    of_service = checkout.data_dir / "backups" / service.names[0]
    assert not (one / "base_1.db").samefile(of_service / "base_1.db")


def test_the_key_is_sent_and_never_on_a_command_line(
    service: BackingUp, checkout: Checkout, tmp_path: Path
) -> None:
    service.api_key = 'k3y "with\\ $traps'
    seen = tmp_path / "seen"
    checkout.program("curl", f'printf \'%s\\n\' "$@" >>{seen}; exec {shutil.which("curl")} "$@"')
    refused = checkout.run("backup.sh", FAISS_API_KEY="wrong")
    assert refused.returncode == 1
    assert 'API error 401: {"detail": "Invalid or missing API key"}' in refused.stderr
    assert checkout.run("backup.sh", FAISS_API_KEY=service.api_key).returncode == 0
    assert "k3y" not in seen.read_text()
    assert "scheduled" in seen.read_text()


def test_only_its_own_old_snapshots_are_dropped(checkout: Checkout) -> None:
    box = checkout.backup_dir
    for name in ("20200101_000000", "20200101_000000_2", "20990101_000000"):
        write_backup(box / name, base_1="x")
    write_backup(box / "20200103_000000", base_1="x")
    (box / "20200103_000000" / "my notes.txt").write_text("mine")
    write_backup(box / "20200104_000000 copy", base_1="x")
    write_backup(box / "scheduled_20200105_000000", base_1="x")
    (box / "20200106_000000").mkdir()
    (box / "20200107_000000").write_text("a file")
    write_backup(box / "elsewhere", base_1="x")
    (box / "20200108_000000").symlink_to(box / "elsewhere")
    (box / "$(touch pwned)").mkdir()
    before = tree(box)

    rehearsed = checkout.run("backup.sh", "--cleanup", "--test")
    assert rehearsed.stdout.count("would drop snapshot 2020") == 3
    assert tree(box) == before
    done = checkout.run("backup.sh", "--cleanup")

    assert done.returncode == 0, done.stderr
    assert "20200103_000000 is old, but left alone: it holds my notes.txt" in done.stdout
    gone = {"20200101_000000", "20200101_000000_2"}
    assert {p.name for p in box.iterdir()} == {
        *(name for name in before if "/" not in name and name not in gone),
        "backup.log",
        ".snapshots.lock",
    }


def test_the_newest_snapshot_stays_however_old_it_is(checkout: Checkout) -> None:
    for name in ("20200101_000000", "20200102_000000"):
        write_backup(checkout.backup_dir / name, base_1="x")
    assert checkout.run("backup.sh", "--cleanup", RETENTION_DAYS="08").returncode == 0
    assert checkout.snapshots() == ["20200102_000000"]


def test_a_rehearsal_checks_and_changes_nothing(service: BackingUp, checkout: Checkout) -> None:
    checkout.env |= {"BACKUP_REMOTE": str(checkout.directory / "remote"), "RETENTION_DAYS": "1"}
    first = checkout.run("backup.sh", "--test")
    assert first.returncode == 1  # there is nothing yet to be uploaded, and it says so
    assert "there is no snapshot" in first.stderr
    assert not checkout.backup_dir.exists()
    assert checkout.run("backup.sh").returncode == 0
    service.files["delta_1_2"] = "second"
    write_backup(checkout.backup_dir / "20200101_000000", base_1="x")
    before = tree(checkout.directory)

    done = checkout.run("backup.sh", "--test", UPLOAD_INTERVAL_MIN="0")

    assert (done.returncode, done.stderr) == (0, "")
    assert "would drop snapshot 20200101_000000" in done.stdout
    assert tree(checkout.directory) == before
    assert len(service.names) == 1
    assert checkout.run("backup.sh", "--test", FAISS_DATA_DIR="/nowhere").returncode == 1
    checkout.program("df", "echo Filesystem; echo /dev/my disk 900 880 2 99% /mnt/my disk")
    assert "has 2 KB free" in checkout.run("backup.sh", "--test").stderr
    (checkout.programs / "df").unlink()
    (checkout.backup_dir / checkout.snapshots()[-1] / "base_1.db").write_text("rotten")
    assert "is damaged: base_1.db" in checkout.run("backup.sh", "--test").stderr


def test_a_damaged_newest_snapshot_is_reported_and_a_sound_one_made(
    service: BackingUp, checkout: Checkout
) -> None:
    assert checkout.run("backup.sh").returncode == 0
    [rotten] = checkout.snapshots()
    (checkout.backup_dir / rotten / "base_1.db").write_text("rotten")
    done = checkout.run("backup.sh")
    assert done.returncode == 1
    assert f"{rotten}, is damaged: base_1.db is not the file that was written" in done.stderr
    assert done.stderr in checkout.log()
    new = checkout.backup_dir / checkout.snapshots()[-1]
    assert (new / "base_1.db").read_text() == service.files["base_1"]
    assert checkout.run("backup.sh").returncode == 0


def test_a_damaged_backup_becomes_no_snapshot(service: BackingUp, checkout: Checkout) -> None:
    service.damaged = True
    done = checkout.run("backup.sh")
    assert done.returncode == 1
    assert "is damaged: base_1.db is not the file that was written" in done.stderr
    assert checkout.snapshots() == []
    assert not list(checkout.backup_dir.glob(".2*"))


def test_a_full_disk_leaves_the_snapshots_as_they_were(
    service: BackingUp, checkout: Checkout
) -> None:
    assert checkout.run("backup.sh").returncode == 0
    before = tree(checkout.backup_dir / checkout.snapshots()[0])
    service.files["delta_1_2"] = "x" * 50_000
    done = checkout.run("backup.sh", max_file_bytes=20_000)
    assert done.returncode == 1
    assert "FAILED: could not copy" in done.stderr
    [only] = checkout.snapshots()
    assert tree(checkout.backup_dir / only) == before
    assert not list(checkout.backup_dir.glob(".2*"))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("exit 7", "could not reach"),
        ("printf '<html>\\n200'", "not one of FAISS Memory: <html>"),
        ('printf \'{"backup_path": "../../etc"}\\n200\'', "a backup of an unknown name: etc"),
        ("printf 'busy\\n503'", "API error 503: busy"),
    ],
)
def test_a_service_that_fails_is_reported(checkout: Checkout, answer: str, said: str) -> None:
    checkout.program("curl", answer)
    done = checkout.run("backup.sh")
    assert done.returncode == 1
    assert said in done.stderr
    assert said in checkout.log()
    assert checkout.snapshots() == []


def test_overlapping_runs_make_one_snapshot(service: BackingUp, checkout: Checkout) -> None:
    asked, may_answer = threading.Event(), threading.Event()
    route = service._route

    def slow(method: str, path: str, query: dict[str, str], body: Json) -> Json:
        asked.set()
        assert may_answer.wait(60)
        return route(method, path, query, body)

    service._route = slow  # type: ignore[method-assign]
    with ExitStack() as stack:
        stack.callback(may_answer.set)
        first = stack.enter_context(checkout.start("backup.sh"))
        assert asked.wait(60)
        second = checkout.run("backup.sh")
        assert second.returncode == 75
        assert "another run is under way" in second.stdout
        may_answer.set()
        assert first.wait(60) == 0
    assert len(checkout.snapshots()) == 1
    assert checkout.run("backup.sh").returncode == 0


def test_what_a_killed_run_left_is_swept_and_nothing_else(
    service: BackingUp, checkout: Checkout
) -> None:
    write_backup(checkout.backup_dir / ".20261122_000000.partial", base_1="half")
    (checkout.backup_dir / ".my.partial").mkdir()
    assert checkout.run("backup.sh").returncode == 0
    assert [p.name for p in checkout.backup_dir.glob(".*partial")] == [".my.partial"]
    assert len(checkout.snapshots()) == 1


def test_settings_may_come_from_a_file_and_bad_ones_are_named(
    service: BackingUp, checkout: Checkout
) -> None:
    file = checkout.home / "my settings"
    file.write_text(f"FAISS_URL={checkout.env.pop('FAISS_URL')}\n")
    assert checkout.run("backup.sh", "--env", str(file)).returncode == 0
    assert "cannot read" in checkout.run("backup.sh", "--env", "/nowhere").stderr
    bad = checkout.run("backup.sh", RETENTION_DAYS="-1")
    assert (bad.returncode, "RETENTION_DAYS=-1: expected" in bad.stderr) == (1, True)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_explains_its_flags(checkout: Checkout, script: str) -> None:
    done = checkout.run(script, "--help")
    assert done.returncode == 0
    source = (ROOT / "scripts" / script).read_text("utf-8")
    for flag in ("--test", "--cleanup", "--setup", "--force", "--env", "install", "uninstall"):
        if f"{flag})" in source or f"{flag}:" in source:
            assert flag in done.stdout
    assert checkout.run(script, "--nonsense").returncode == 1


def test_the_scripts_are_executable_and_shellcheck_finds_nothing() -> None:
    paths = sorted((ROOT / "scripts").glob("*.sh"))
    assert all(os.access(path, os.X_OK) for path in paths if path.name in SCRIPTS)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run(
        [shellcheck, "--external-sources", *paths], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
