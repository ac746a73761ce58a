"""The shell scripts as tests run them: in a checkout whose path is full of traps, with a HOME of
their own and nothing of ours in the environment."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import ROOT
from tests.support.fake_service import FakeService, Json

AWKWARD = 'it\'s 100% "our" $HOME'
"""A directory name that careless quoting breaks."""


@dataclass(kw_only=True)
class Checkout:
    """A copy of the scripts, and the directories that they are told to use."""

    directory: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def backup_dir(self) -> Path:
        return self.directory / "snap shots"

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    @property
    def home(self) -> Path:
        return self.directory / "home dir"

    @property
    def programs(self) -> Path:
        """First on PATH."""
        return self.directory / "bin"

    def environment(self) -> dict[str, str]:
        path = [str(self.programs), str(Path(sys.executable).parent), os.environ["PATH"]]
        return {
            "PATH": ":".join(path),
            "HOME": str(self.home),
            "BACKUP_DIR": str(self.backup_dir),
            **self.env,
        }

    def start(self, script: str, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.directory / "scripts" / script), *arguments],
            cwd=self.home,
            env={**self.environment(), **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, script: str, *arguments: str, max_file_bytes: int | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        def limit() -> None:
            if max_file_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))

        return subprocess.run(
            [str(self.directory / "scripts" / script), *arguments],
            cwd=self.home,
            env={**self.environment(), **env},
            input="",
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=limit,
        )

    def program(self, name: str, lines: str) -> None:
        """Put a program of the test's own first on PATH."""
        path = self.programs / name
        path.write_text(f"#!/usr/bin/env bash\n{lines}\n", "utf-8")
        path.chmod(0o755)

    def snapshots(self) -> list[str]:
        return sorted(
            p.name for p in self.backup_dir.glob("2*_*") if (p / "manifest.json").exists()
        )

    def log(self) -> str:
        return (self.backup_dir / "backup.log").read_text("utf-8")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """Without the virtual environment, so that no restore is tried: that takes seconds."""
    checkout = Checkout(directory=tmp_path / AWKWARD)
    for directory in (checkout.home, checkout.data_dir / "backups", checkout.programs):
        directory.mkdir(parents=True)
    shutil.copytree(
        ROOT / "scripts", checkout.directory / "scripts", ignore=shutil.ignore_patterns("*cache*")
    )
    return checkout


def write_backup(directory: Path, **files: str) -> Path:
    """What a backup looks like from outside: files, and a manifest with their hashes."""
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / f"{name}.db").write_text(content, "utf-8")
    manifest = [
        {"name": f"{name}.db", "sha256": hashlib.sha256(content.encode()).hexdigest()}
        for name, content in files.items()
    ]
    (directory / "manifest.json").write_text(json.dumps({"format": 1, "files": manifest}), "utf-8")
    return directory


def tree(directory: Path) -> dict[str, object]:
    """Everything in a directory: content, links, and when it was changed."""
    return {
        str(path.relative_to(directory)): (
            path.lstat().st_mtime_ns,
            path.is_file() and path.read_bytes(),
        )
        for path in sorted(directory.rglob("*"))
    }


@dataclass
class BackingUp(FakeService):
    """A service that makes backups in `data_dir`, as the test says."""

    data_dir: Path = Path()
    files: dict[str, str] = field(default_factory=lambda: {"base_1": "first" * 1000})
    names: list[str] = field(default_factory=list)
    damaged: bool = False

    def _route(self, method: str, path: str, query: dict[str, str], body: Json) -> Json:
        if (method, path) != ("POST", "/backup"):
            return super()._route(method, path, query, body)
        name = f"{query['prefix']}_20261122_{len(self.names):06}"
        self.names.append(name)
        self.backups.append(name)
        directory = write_backup(self.data_dir / "backups" / name, **self.files)
        if self.damaged:
            (directory / "base_1.db").write_text("rotten", "utf-8")
        return {"success": True, "backup_path": f"/data/backups/{name}", "message": "made"}
