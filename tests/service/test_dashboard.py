"""`DASHBOARD=true`: Ray's own command line on the running service, and who else gets in."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml  # type: ignore[import-untyped]

from tests.faults.test_rolling_update import changed_config
from tests.faults.test_service_faults import writing
from tests.service import test_listeners as listeners
from tests.support.service import Service, free_port, running_service

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]

DASHBOARD_PORT = free_port(17_700)
PATIENCE_S = 300
REPLACED = ("Index", "Embedder")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    env = {
        "REQUEST_TIMEOUT_S": "120",
        "DASHBOARD": "true",
        "DASHBOARD_PORT": str(DASHBOARD_PORT),
    }
    with running_service(tmp_path_factory.mktemp("dashboard"), env=env) as service:
        yield service


def serve(service: Service, *words: str) -> str:
    """What Ray's command line prints in the environment that the launcher names."""
    [exported] = re.findall(
        r"^For `serve status`.*: export (.+)$", service.log_path.read_text(), re.M
    )
    done = subprocess.run(
        [str(Path(sys.executable).with_name("serve")), *words],
        env={**os.environ, **dict(word.split("=", 1) for word in shlex.split(exported))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr + service.log()
    return done.stdout


def application(service: Service) -> Any:
    return yaml.safe_load(serve(service, "status"))["applications"]["default"]


def is_replaced(service: Service, before: dict[str, list[int]]) -> bool:
    """Whether every replica is a new one, and Serve is content."""
    for name, pids in before.items():
        now = service.replica_pids(name)
        if not now or set(now) & set(pids):
            return False
    status = application(service)
    parts = {name: each["status"] for name, each in status["deployments"].items()}
    return status["status"] == "RUNNING" and set(parts.values()) == {"HEALTHY"}


def test_serve_deploy_under_load_loses_no_acknowledged_write_and_answers_no_500(
    service: Service, tmp_path: Path
) -> None:
    before = {name: service.replica_pids(name) for name in REPLACED}
    pause = threading.Event()
    with writing(service, "update") as writers:
        serve(service, "deploy", str(changed_config(tmp_path / "changed.yaml", *REPLACED)))
        for _ in range(PATIENCE_S):
            if is_replaced(service, before):
                break
            pause.wait(1)
        else:
            pytest.fail(f"not replaced: {application(service)}\n{service.log()}")
    print(dict(writers.outcomes))
    assert writers.outcomes.keys() <= {200, 429, 503}
    assert writers.lost_and_repeated() == ([], [])
    found = httpx.post(f"{service.base_url}/search", json={"query": "says 3"}, trust_env=False)
    assert (found.status_code, found.json()["count"]) == (200, 5)


def test_the_dashboard_answers_on_loopback_to_those_who_have_the_token(service: Service) -> None:
    url = f"http://127.0.0.1:{DASHBOARD_PORT}/api/serve/applications/"
    for headers in ({}, {"Authorization": f"Bearer {'f' * 64}"}):
        for method in ("GET", "PUT", "DELETE"):
            answer = httpx.request(method, url, headers=headers, trust_env=False)
            assert answer.status_code in {401, 403}, (method, headers)
    hosts = {x.host for x in listeners.listeners_of(service) if x.port == DASHBOARD_PORT}
    assert hosts == {"127.0.0.1"}


def test_nothing_else_listens_that_does_not_demand_the_token(
    service: Service, tmp_path: Path
) -> None:
    serve(service, "status")  # with the first question the dashboard joins Ray, and listens
    found = listeners.listeners_of(service)
    assert any(x.title.startswith("ray-dashboard-ServeHead") for x in found)
    listeners.test_rays_own_ports_refuse_calls_without_the_token(service)
    listeners.test_beyond_loopback_only_serve_replicas_listen_and_they_refuse_forged_calls(
        service, tmp_path
    )
    assert {x.port for x in found if listeners.speaks_http(x)} == {service.port, DASHBOARD_PORT}


def test_the_end_of_the_dashboard_does_not_end_the_service_and_stopping_leaves_nothing(
    service: Service,
) -> None:
    [dashboard] = [
        process for process in service.processes() if "/dashboard.py" in " ".join(process.cmdline())
    ]
    everything = service.processes()
    dashboard.kill()
    assert not service.exited_within(3)
    assert httpx.get(f"{service.base_url}/health/ready", trust_env=False).status_code == 200
    assert service.stop() == 0
    assert not [process for process in everything if is_alive(process)]


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs: init may not have asked yet how an orphan ended."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
