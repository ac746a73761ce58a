"""The launcher: what it refuses, what it leaves behind, and how it survives being killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.settings import load_settings
from scripts.launcher.preflight import (
    check_dashboard,
    check_data_dir,
    check_port_free,
    check_workspace_dir,
    memories_elsewhere,
)
from scripts.launcher.runtime_dir import (
    OWNER_VARIABLE,
    LauncherError,
    RuntimeDir,
    own_pids,
    runtime_dir_of,
)
from scripts.launcher.stopping import catch_signals
from scripts.launcher.stubs.haproxy_shim import ERROR_PAGES, harden
from tests import ROOT
from tests.support.service import STOP_PATIENCE_S, Service
from tests.support.terminal import Terminal

SERVE_CONFIG_OF_HAPROXY = """\
global
    log 127.0.0.1:514 local0 info
    maxconn 4096
    stats socket /run/x/admin.sock mode 666 level admin expose-fd listeners
defaults
    log global
    timeout client 3600s
    errorfile 502 /run/x/500.http
    errorfile 503 /run/x/500.http
frontend prometheus
    bind :9101
    mode http
frontend http_frontend
    bind 127.0.0.1:8900
    acl healthcheck path -i /-/healthz
backend http-default
    http-reuse always
    server one 127.0.0.1:30000 check
listen stats
  bind *:8404
  stats enable
"""


def test_the_shim_takes_away_what_strangers_could_reach() -> None:
    config = harden(SERVE_CONFIG_OF_HAPROXY, "/run/x")
    binds = [line.split()[1] for line in config.splitlines() if line.strip().startswith("bind")]
    assert binds == ["127.0.0.1:8900"]
    assert "mode 600 level admin" in config
    assert "514" not in config
    assert "errorfile 502 /run/x/502.http" in config
    assert "errorfile 503 /run/x/503.http" in config
    assert "server one 127.0.0.1:30000 check" in config
    assert harden(config, "/run/x").count("bind") == 1


def test_the_shim_gives_no_address_all_connections_and_none_long_for_its_headers() -> None:
    config = harden(SERVE_CONFIG_OF_HAPROXY, "/run/x", max_connections=400)
    assert "    maxconn 400\n" in config
    assert "reject if of_this_machine { sc_conn_cur(0) gt 300 }" in config
    assert "reject if !of_this_machine { sc_conn_cur(0) gt 100 }" in config
    assert re.findall("timeout (?:client|http-request) .*", config) == [
        "timeout client 120s",
        "timeout http-request 10s",
    ]


def test_the_shim_has_haproxy_notice_machines_that_are_gone() -> None:
    config = harden(SERVE_CONFIG_OF_HAPROXY, "/run/x")
    backend = config[config.index("backend http-default") :]
    assert backend.index("srvtcpka-cnt 3") < backend.index("server one")
    assert backend.index("default-server tcp-ut 6s") < backend.index("server one")


@pytest.mark.parametrize(
    ("host", "bind"),
    [
        ("192.0.2.7", "bind 192.0.2.7:8900\n"),
        ("memory.lan", "bind memory.lan:8900\n"),
        ("::1", "bind [::1]:8900\n"),
        ("::", "bind [::]:8900 v4v6\n"),
    ],
)
def test_the_shim_opens_the_address_that_clients_are_given(host: str, bind: str) -> None:
    assert bind in harden(SERVE_CONFIG_OF_HAPROXY, "/run/x", host)


@pytest.mark.parametrize("status", ["502", "503"])
def test_the_shims_answers_are_whole_and_say_when_to_try_again(status: str) -> None:
    head, _, body = ERROR_PAGES[f"{status}.http"].partition("\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ")
    assert "Retry-After: 2" in head
    assert f"Content-Length: {len(body)}" in head
    assert ("may or may not" in json.loads(body)["detail"]) == (status == "502")


def test_a_port_that_is_taken_is_refused_with_the_name_of_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LauncherError, match=rf"{port}.*process {os.getpid()}"):
            check_port_free("127.0.0.1", port)
    check_port_free("127.0.0.1", port)


def test_a_dashboard_whose_port_is_taken_is_refused_by_the_name_of_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LauncherError, match=rf"{port}.*set DASHBOARD_PORT"):
            check_dashboard(load_settings(dashboard_port=port))
    with pytest.raises(LauncherError, match="DASHBOARD_PORT and PORT"):
        check_dashboard(load_settings(dashboard_port=port, port=port))


def test_a_dashboard_that_is_not_installed_is_refused_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scripts.launcher.preflight.find_spec", lambda _: None)
    with pytest.raises(LauncherError, match="FULL_RAY=true"):
        check_dashboard(load_settings())


def test_an_address_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(LauncherError, match=r"HOST=no\.such\.name\.invalid"):
        check_port_free("no.such.name.invalid", 8900)


def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LauncherError, match="DATA_DIR"):
        check_data_dir(tmp_path / "file" / "data")


def test_a_workspace_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(LauncherError, match=f"WORKSPACE_DIR={path} is no directory"):
            check_workspace_dir(path)


def test_memories_elsewhere_are_told_of_while_there_are_none_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    assert memories_elsewhere(tmp_path / "new") is None
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "metadata.json").touch()  # the original's
    assert memories_elsewhere(tmp_path / "new") == tmp_path / "data"
    assert memories_elsewhere(tmp_path / "data") is None


def test_nohup_is_obeyed_and_another_hangup_stops() -> None:
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        catch_signals()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        catch_signals()
        assert callable(signal.getsignal(signal.SIGHUP))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_terminal_that_closes_is_noticed_without_a_signal() -> None:
    code = (
        "import signal, sys, time\n"
        "from scripts.launcher.stopping import Foreground\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"  # `make` keeps it to itself
        "terminal = Foreground()\n"
        "assert not terminal.is_gone()\n"
        "print('ready', flush=True)\n"
        "while not terminal.is_gone(): time.sleep(0.05)\n"
        "sys.exit(7)\n"
    )
    terminal = Terminal([sys.executable, "-c", code], dict(os.environ), ROOT)
    terminal.wait_for(b"ready")
    terminal.close()
    assert terminal.process.wait(STOP_PATIENCE_S) == 7


def test_a_second_launcher_for_the_same_data_is_refused(tmp_path: Path) -> None:
    first = RuntimeDir.open(tmp_path / "runtime")
    with pytest.raises(LauncherError, match=f"process {os.getpid()}"):
        RuntimeDir.open(tmp_path / "runtime")
    os.close(first.lock_fd)


def test_a_runtime_directory_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime").chmod(0o755)
    with pytest.raises(LauncherError, match="private"):
        RuntimeDir.open(tmp_path / "runtime")


def test_a_strangers_directory_of_the_usual_name_is_no_obstacle(tmp_path: Path) -> None:
    usual = runtime_dir_of(tmp_path, tmp_path)
    usual.symlink_to(tmp_path)

    instead = runtime_dir_of(tmp_path, tmp_path)

    assert instead not in {usual, runtime_dir_of(tmp_path, tmp_path)}
    os.close(RuntimeDir.open(instead).lock_fd)
    assert runtime_dir_of(tmp_path, tmp_path) == instead


def test_the_token_is_made_once_and_is_private(tmp_path: Path) -> None:
    runtime = RuntimeDir.open(tmp_path / "runtime")
    first = runtime.ensure_token().read_text()
    assert len(first) == 64
    assert runtime.ensure_token().read_text() == first
    assert runtime.token_path.stat().st_mode & 0o777 == 0o600
    os.close(runtime.lock_fd)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_child_that_hides_the_mark_is_found_by_its_parent(tmp_path: Path) -> None:
    command = "env -i sleep 600 & echo $!; wait"
    environment = {OWNER_VARIABLE: str(tmp_path), "PATH": os.environ["PATH"]}
    with subprocess.Popen(["sh", "-c", command], env=environment, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            assert set(own_pids(tmp_path)) == {parent.pid, child}
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_leftovers_are_ended_and_a_neighbours_processes_are_not(tmp_path: Path) -> None:
    path = tmp_path / "runtime"
    sleepers = [
        subprocess.Popen(["sleep", "600"], env={OWNER_VARIABLE: owner, "PATH": os.environ["PATH"]})
        for owner in (str(path), f"{path}2")
    ]
    try:
        runtime = RuntimeDir.open(path)
        assert sleepers[0].wait(10) == -signal.SIGKILL
        assert sleepers[1].poll() is None
        assert own_pids(path) == []
        os.close(runtime.lock_fd)
    finally:
        sleepers[1].kill()
        sleepers[1].wait()


def _refusal(tmp_path: Path, **env: str) -> str:
    service = Service(tmp_path / "data", tmp_path, env=env)
    service.launch()
    assert service.exited_within(60)
    assert service.stop() == 1
    return service.log()


@pytest.mark.service
def test_an_open_service_beyond_loopback_is_refused_before_anything_starts(tmp_path: Path) -> None:
    log = _refusal(tmp_path, HOST="0.0.0.0")
    assert "API_KEY" in log
    assert "Traceback" not in log


@pytest.mark.service
def test_a_missing_model_is_answered_with_the_command_that_sets_it_up(tmp_path: Path) -> None:
    log = _refusal(tmp_path, MODEL_DIR=str(tmp_path / "no_model"))
    assert "scripts.setup_model" in log
    assert "Traceback" not in log


@pytest.mark.service
def test_an_index_that_cannot_open_ends_the_start_with_the_engines_sentence(
    tmp_path: Path,
) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "memories.db").write_bytes(b"this is no database" * 500)
    service = Service(data_dir, tmp_path)
    service.launch()
    assert service.exited_within(120), service.log()
    assert service.stop() == 1
    assert "Cannot run: " in service.log()
    assert "Traceback" not in service.log()
    assert service.processes() == []


def test_the_launcher_is_what_make_serve_runs() -> None:
    assert "-m scripts.serve" in (ROOT / "Makefile").read_text()
