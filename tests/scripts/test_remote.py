"""scripts/backup-gdrive.sh with the real rclone: what it uploads, checks, and drops."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.fake_service import serving
from tests.support.scripts_under_test import BackingUp, Checkout, checkout, tree, write_backup
from tests.support.service import free_port

__all__ = ["checkout"]

RCLONE = Path(sys.executable).with_name("rclone")
NOW = time.strftime("%Y%m%d_%H%M%S", time.gmtime())
FILE = f"faiss-memory_{NOW}.tar.gz"


@pytest.fixture
def remote(checkout: Checkout) -> Path:
    """The folder of a remote named after an e-mail address, as Drive's is."""
    config = checkout.home / "rclone.conf"
    storage = checkout.directory / "their storage"
    config.write_text(f"[anna@example.com]\ntype = alias\nremote = {storage}\n", "utf-8")
    checkout.env |= {
        "RCLONE_CONFIG": str(config),
        "GDRIVE_ACCOUNT": "anna@example.com",
        "GDRIVE_FOLDER_NAME": "my memories",
        "UPLOAD_INTERVAL_MIN": "0",
    }
    return storage / "my memories"


@contextmanager
def webdav(directory: Path) -> Iterator[str]:
    """A server of a protocol that has no hashes; yields the target."""
    directory.mkdir()
    port = free_port()
    command = [str(RCLONE), "serve", "webdav", "--addr", f"127.0.0.1:{port}", str(directory)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                httpx.get(f"http://127.0.0.1:{port}", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield f":webdav,url='http://127.0.0.1:{port}':my memories"
    finally:
        server.kill()
        server.wait()


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_the_newest_snapshot_arrives_ready_to_be_restored(
    checkout: Checkout, remote: Path, tmp_path: Path
) -> None:
    write_backup(checkout.backup_dir / "20200101_000000", base_1="old")
    snapshot = write_backup(checkout.backup_dir / NOW, base_1="x" * 1000, delta_1_2="y")
    done = checkout.run("backup-gdrive.sh")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"uploaded anna@example.com:my memories/{FILE}" in checkout.log()
    assert names_in(remote) == [FILE]
    subprocess.run(["tar", "-xzf", remote / FILE, "-C", tmp_path], check=True)
    restorable = tmp_path / f"scheduled_{NOW}"
    for path in snapshot.iterdir():
        assert (restorable / path.name).read_bytes() == path.read_bytes()
    assert not list(checkout.backup_dir.glob(".upload.??????"))


def test_an_upload_waits_for_the_interval_and_for_a_change(
    checkout: Checkout, remote: Path
) -> None:
    snapshot = write_backup(checkout.backup_dir / NOW, base_1="x")
    assert "uploaded" in checkout.run("backup-gdrive.sh").stdout
    (remote / FILE).unlink()
    soon = checkout.run("backup-gdrive.sh", UPLOAD_INTERVAL_MIN="55")
    assert (soon.returncode, "one is due after 55" in soon.stdout) == (0, True)
    assert "uploaded" in checkout.run("backup-gdrive.sh").stdout  # what is lost there comes again
    assert "nothing has changed" in checkout.run("backup-gdrive.sh").stdout
    assert "uploaded" in checkout.run("backup-gdrive.sh", "--force").stdout
    shutil.rmtree(snapshot)
    write_backup(snapshot, base_1="y")
    assert "uploaded" in checkout.run("backup-gdrive.sh").stdout
    assert "uploaded" in checkout.run("backup-gdrive.sh", GDRIVE_FOLDER_NAME="another").stdout


def test_any_rclone_remote_will_do_also_one_without_hashes(
    checkout: Checkout, tmp_path: Path
) -> None:
    write_backup(checkout.backup_dir / NOW, base_1="x")
    with webdav(tmp_path / "dav") as target:
        done = checkout.run("backup-gdrive.sh", BACKUP_REMOTE=target, RCLONE_CONFIG="")
        assert (done.returncode, done.stderr) == (0, "")
    assert tarfile.is_tarfile(tmp_path / "dav" / "my memories" / FILE)
    directory = tmp_path / "usb stick"
    done = checkout.run("backup-gdrive.sh", BACKUP_REMOTE=f"{directory}/", RCLONE_CONFIG="")
    assert (done.returncode, names_in(directory)) == (0, [FILE])


def test_only_its_own_old_files_are_dropped_and_never_the_newest(
    checkout: Checkout, remote: Path
) -> None:
    remote.mkdir(parents=True)
    own = [f"faiss-memory_{stamp}.tar.gz" for stamp in ("20200101_000000", "20200102_000000_2")]
    foreign = ["faiss-memory_20200101.tar.gz", "holiday.tar.gz", f"{own[0]}.txt", f"my {own[0]}"]
    for name in own + foreign:
        (remote / name).write_text("x")
    before = tree(remote)
    rehearsed = checkout.run("backup-gdrive.sh", "--cleanup", "--test")
    assert rehearsed.stdout.count("would drop") == 1
    assert tree(remote) == before
    assert checkout.run("backup-gdrive.sh", "--cleanup").returncode == 0
    assert names_in(remote) == sorted([own[1], *foreign])
    write_backup(checkout.backup_dir / NOW, base_1="x")
    assert checkout.run("backup-gdrive.sh").returncode == 0
    assert names_in(remote) == sorted([FILE, *foreign])


@pytest.mark.parametrize("damage", ["truncate -s 5", "sed -i s/./x/", "rm"])
def test_an_upload_that_arrives_damaged_is_no_success(
    checkout: Checkout, remote: Path, damage: str
) -> None:
    write_backup(checkout.backup_dir / NOW, base_1="x")
    arrived = str(remote / FILE).replace("'", "'\\''")
    checkout.program(
        "rclone",
        f"'{RCLONE}' \"$@\" || exit\n[ \"$1\" != copyto ] || {damage} '{arrived}'",
    )
    done = checkout.run("backup-gdrive.sh")
    assert done.returncode == 1
    assert f"{FILE} is not what was sent" in done.stderr
    assert names_in(remote) == []
    (checkout.programs / "rclone").unlink()
    assert "uploaded" in checkout.run("backup-gdrive.sh").stdout


def test_a_remote_that_fails_is_reported_and_the_snapshot_stays(
    checkout: Checkout, remote: Path
) -> None:
    with serving(BackingUp(data_dir=checkout.data_dir)) as url:
        done = checkout.run("backup.sh", FAISS_URL=url, BACKUP_REMOTE="nobody:x")
        assert (done.returncode, len(checkout.snapshots())) == (1, 1)
        assert "no remote named nobody; run backup-gdrive.sh --setup" in done.stderr
        remote.parent.write_text("a file where the folder should be")
        done = checkout.run("backup.sh", FAISS_URL=url)
        assert (done.returncode, len(checkout.snapshots())) == (1, 2)
        assert "cannot list" in done.stderr or "failed" in done.stderr
        assert "uploaded" not in checkout.log()
        remote.parent.unlink()
        done = checkout.run("backup.sh", FAISS_URL=url)
        assert (done.returncode, "uploaded" in done.stdout) == (0, True)


def test_a_damaged_snapshot_is_not_uploaded(checkout: Checkout, remote: Path) -> None:
    snapshot = write_backup(checkout.backup_dir / NOW, base_1="x")
    (snapshot / "base_1.db").write_text("rotten")
    done = checkout.run("backup-gdrive.sh", "--force")
    assert done.returncode == 1
    assert "is damaged: base_1.db" in done.stderr
    assert not remote.exists()


def test_a_full_disk_uploads_nothing(checkout: Checkout, remote: Path) -> None:
    noise = "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(30_000))
    write_backup(checkout.backup_dir / NOW, base_1=noise)
    done = checkout.run("backup-gdrive.sh", max_file_bytes=10_000)
    assert (done.returncode, "FAILED" in done.stderr) == (1, True)
    assert not remote.exists()
    assert not list(checkout.backup_dir.glob(".upload.??????"))


def test_overlapping_uploads_are_one(checkout: Checkout, remote: Path) -> None:
    write_backup(checkout.backup_dir / NOW, base_1="x")
    started, go = checkout.home / "started", checkout.home / "go"
    checkout.program(
        "rclone",
        f'[ "$1" != copyto ] || {{ touch "$HOME/{started.name}"; '
        f'until [ -e "$HOME/{go.name}" ]; do sleep 0.1; done; }}\nexec \'{RCLONE}\' "$@"',
    )
    with checkout.start("backup-gdrive.sh") as first:
        for _ in range(600):
            if started.exists():
                break
            time.sleep(0.1)
        try:
            assert checkout.run("backup-gdrive.sh", "--force").returncode == 75
        finally:
            go.touch()
        assert first.wait(60) == 0
    assert names_in(remote) == [FILE]


def test_a_rehearsal_changes_nothing_anywhere(checkout: Checkout, remote: Path) -> None:
    write_backup(checkout.backup_dir / NOW, base_1="x")
    before = tree(checkout.directory)
    done = checkout.run("backup-gdrive.sh", "--test", "--force")
    assert (done.returncode, f"would upload snapshot {NOW}" in done.stdout) == (0, True)
    assert tree(checkout.directory) == before


def test_setting_up_probes_the_remote_and_leaves_nothing_there(
    checkout: Checkout, remote: Path
) -> None:
    done = checkout.run("backup-gdrive.sh", "--setup")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search("a probe was written to .* read back and deleted", done.stdout)
    assert names_in(remote) == []
    # rclone's dialogue, answered: a new remote of the storage that it knows as "local".
    dialogue = checkout.run("backup-gdrive.sh", "--setup", BACKUP_REMOTE="other:x")
    assert dialogue.returncode == 1
    assert "rclone has no remote named other yet" in dialogue.stdout
    assert "FAILED" in dialogue.stderr
