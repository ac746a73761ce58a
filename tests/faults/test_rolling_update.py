"""A changed configuration under load, and a second service on the same data directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml  # type: ignore[import-untyped]

from tests import ROOT
from tests.faults.test_service_faults import writing
from tests.support.service import Service

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]


@pytest.fixture
def service(mortal_service: Service) -> Service:
    return mortal_service


def changed_config(path: Path, *names: str) -> Path:
    """The configuration with other CPU shares for these deployments."""
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    for deployment in config["applications"][0]["deployments"]:
        if deployment["name"] in names:
            deployment["ray_actor_options"]["num_cpus"] += 0.01
    path.write_text(yaml.safe_dump(config))
    return path


def deploy(data_dir: Path, config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.deploy", "--config", str(config)],
        cwd=ROOT,
        env={**os.environ, "DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_rolling_update_under_load_loses_no_acknowledged_write_and_answers_no_500(
    service: Service, tmp_path: Path
) -> None:
    names = ("Index", "Embedder")
    before = {name: service.replica_pids(name) for name in names}
    with writing(service, "update") as writers:
        done = deploy(service.data_dir, changed_config(tmp_path / "changed.yaml", *names))
        assert done.returncode == 0, done.stderr + service.log()
        for name in names:
            assert not set(before[name]) & set(service.replica_pids(name)), name
    print(dict(writers.outcomes))
    assert writers.outcomes.keys() <= {200, 429, 503}
    assert writers.lost_and_repeated() == ([], [])


def test_a_second_service_on_the_same_directory_is_refused_and_the_first_goes_on(
    service: Service, tmp_path: Path
) -> None:
    link = tmp_path / "data"
    link.symlink_to(service.data_dir)
    second = Service(link, tmp_path)
    second.launch()
    assert second.exited_within(120)
    assert second.stop() == 1
    refusal = f"already served by process {service.launcher.pid}"
    assert second.log().startswith("Cannot run: ")
    assert refusal in second.log()
    health = httpx.get(f"{service.base_url}/health", trust_env=False, timeout=60)
    assert health.json()["status"] == "ok"


def test_deploying_without_a_running_service_says_how_to_start_one(tmp_path: Path) -> None:
    done = deploy(tmp_path, ROOT / "serve_config.yaml")
    assert done.returncode == 1
    assert "make serve" in done.stderr
