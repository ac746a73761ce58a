"""Which answers the clients of our own service ask again for: one table for all of them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from scripts.cli.errors import RefusedError
from scripts.cli.service import Service
from scripts.launcher.auto_build import WorkspaceBuilder
from tests.support.fake_service import FakeService, Refused, serving
from wire.retries import PASSING, PASSING_IN_TIME

FINAL = (400, 401, 404, 413, 422, 500)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)


@pytest.mark.parametrize("status", sorted(PASSING))
def test_the_command_line_asks_again_for_what_passes(status: int) -> None:
    fake = FakeService(refusals=[Refused(status, "not now")])
    with serving(fake) as url:
        assert Service(url).get("/health")["status"] == "ok"


@pytest.mark.parametrize("status", [*FINAL, 507])
def test_the_command_line_does_not_ask_again_for_what_stays(status: int) -> None:
    fake = FakeService(refusals=[Refused(status, "never")])
    with serving(fake) as url, pytest.raises(RefusedError) as refusal:
        Service(url).get("/health")
    assert refusal.value.status == status


@pytest.mark.parametrize("status", sorted(PASSING_IN_TIME))
def test_the_watcher_of_a_workspace_waits_even_for_room_on_the_disk(
    status: int, tmp_path: Path
) -> None:
    refusals = [Refused(status, "not now") for _ in range(3)]
    fake = FakeService(refusals=refusals)
    with serving(fake) as url:
        service = Service(url, patience_s=0)
        assert WorkspaceBuilder(service, tmp_path, data_dir=tmp_path).build()
    assert not refusals


@pytest.mark.parametrize("status", FINAL)
def test_the_watcher_of_a_workspace_takes_no_for_an_answer(status: int, tmp_path: Path) -> None:
    fake = FakeService(refusals=[Refused(status, "never")])
    with serving(fake) as url:
        assert not WorkspaceBuilder(Service(url), tmp_path, data_dir=tmp_path).build()
