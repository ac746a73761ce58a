"""A workspace that builds itself: at the start, and whenever its files change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.service import Service, running_service

pytestmark = pytest.mark.service

PATIENCE_S = 120


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("auto_build")
    (directory / "workspace").mkdir()
    (directory / "workspace" / "deploys.md").write_text("Deploys happen on Tuesdays.")
    with running_service(directory, env={"AUTO_BUILD": "watch"}) as service:
        yield service


@pytest.fixture
def texts_of(service: Service) -> Callable[[str], list[str]]:
    """The texts of the memories whose source starts so."""

    def ask(prefix: str) -> list[str]:
        answer = httpx.get(
            f"{service.base_url}/memories", params={"source_prefix": prefix}, trust_env=False
        )
        return [memory["text"] for memory in answer.json()["memories"]]

    return ask


def wait_until(condition: Callable[[], object], service: Service) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, service.log()
        time.sleep(0.2)


def test_what_is_there_at_the_start_is_built(
    service: Service, texts_of: Callable[[str], list[str]]
) -> None:
    wait_until(lambda: texts_of("deploys.md") == ["Deploys happen on Tuesdays."], service)


def test_new_changed_and_deleted_files_are_followed(
    service: Service, texts_of: Callable[[str], list[str]]
) -> None:
    path = service.workspace_dir / "guide" / "oncall.md"
    path.parent.mkdir()
    path.write_text("On call this week: Anna.")
    wait_until(lambda: texts_of("guide/oncall.md") == ["On call this week: Anna."], service)

    path.write_text("On call this week: Ben.")
    wait_until(lambda: texts_of("guide/oncall.md") == ["On call this week: Ben."], service)

    path.unlink()
    wait_until(lambda: texts_of("guide/oncall.md") == [], service)
    assert texts_of("deploys.md")


def test_a_directory_that_is_moved_away_takes_its_memories_with_it(
    service: Service, texts_of: Callable[[str], list[str]], tmp_path: Path
) -> None:
    for name in ("old", "older"):
        (service.workspace_dir / name).mkdir()
        (service.workspace_dir / name / "notes.md").write_text(f"Notes that are {name}.")
    wait_until(lambda: texts_of("old/") and texts_of("older/"), service)
    (service.workspace_dir / "old").rename(tmp_path / "old")
    wait_until(lambda: texts_of("old/") == [], service)
    assert texts_of("older/") == ["Notes that are older."]


def test_a_workspace_that_is_emptied_takes_nothing_with_it(
    service: Service, texts_of: Callable[[str], list[str]], tmp_path: Path
) -> None:
    """As when a disk is unmounted: then everything seems deleted."""
    for path in list(service.workspace_dir.iterdir()):
        path.rename(tmp_path / path.name)
    wait_until(lambda: "workspace not built" in service.log(), service)
    assert texts_of("deploys.md") == ["Deploys happen on Tuesdays."]
