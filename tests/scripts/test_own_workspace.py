"""Which directory is the service's workspace, seen from this machine and from others."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.workspace.directory_id import directory_id
from scripts.cli.importing.file_commands import workspace_of
from scripts.cli.service import Json, Service


class Told(Service):
    """A service that says of its workspace what it is told to."""

    def __init__(self, stats: Json, url: str = "http://localhost:8900") -> None:
        super().__init__(url)
        self._stats = stats

    def get(self, path: str, **params: object) -> Json:
        assert (path, params) == ("/stats", {})
        return self._stats


def test_the_same_directory_is_known_by_whatever_name(tmp_path: Path) -> None:
    notes, other, link = tmp_path / "notes", tmp_path / "other", tmp_path / "link"
    for directory in (notes, other):
        directory.mkdir()
    link.symlink_to(notes)
    assert directory_id(notes) == directory_id(link) == directory_id(other / ".." / "notes")
    assert directory_id(notes) != directory_id(other)
    (notes / "a.md").touch()
    assert directory_id(notes / "a.md") is directory_id(tmp_path / "missing") is None


def test_the_workspace_of_a_service_here_is_known(tmp_path: Path) -> None:
    stats = {"workspace_dir": str(tmp_path), "workspace_id": directory_id(tmp_path)}
    assert workspace_of(Told(stats)) == tmp_path.resolve()
    assert workspace_of(Told(stats, "http://memory.example:8900")) is None


@pytest.mark.parametrize("workspace_id", ["0123456789abcdef", None])
def test_at_the_other_end_of_a_tunnel_a_directory_of_the_same_name_is_another(
    tmp_path: Path, workspace_id: str | None
) -> None:
    stats = {"workspace_dir": str(tmp_path), "workspace_id": workspace_id}
    assert workspace_of(Told(stats)) is None


@pytest.mark.parametrize("named", ["", "missing", "."])
def test_what_is_no_directory_here_is_no_workspace(named: str) -> None:
    assert workspace_of(Told({"workspace_dir": named})) is None


def test_a_service_of_before_is_taken_at_its_word(tmp_path: Path) -> None:
    assert workspace_of(Told({"workspace_dir": str(tmp_path)})) == tmp_path.resolve()
