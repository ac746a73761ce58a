"""Settings: every documented variable, and what a wrong one is answered with."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic import SecretStr, ValidationError

from deployments import places
from deployments.logs import (
    PipeHandler,
    configure_logging,
    log_settings,
    request_line,
    resolve_format,
)
from deployments.settings import Settings, SettingsError, load_settings

SECRET = "correct horse battery staple"

# variable, its value, what the field becomes, what it is without the variable
DOCUMENTED: list[tuple[str, str, Any, Any]] = [
    ("DATA_DIR", "/srv/memories", Path("/srv/memories"), Path.cwd() / "data"),
    ("WORKSPACE_DIR", "/srv/notes", Path("/srv/notes"), Path.cwd()),
    ("AUTO_BUILD", "Watch", "watch", "false"),
    ("HOST", "::1", "::1", "127.0.0.1"),
    ("PORT", "8000", 8000, 8900),
    ("PUBLIC_URL", "https://memory.example.org", "https://memory.example.org", ""),
    ("API_KEY", SECRET, SecretStr(SECRET), SecretStr("")),
    ("ALLOW_NO_AUTH", "true", True, False),
    ("CORS_ORIGINS", "https://a.org, https://b.org", ("https://a.org", "https://b.org"), ()),
    ("ALLOWED_HOSTS", "memory.lan,", ("memory.lan",), ("localhost", "127.0.0.1", "[::1]")),
    ("DASHBOARD", "true", True, False),
    ("DASHBOARD_PORT", "8266", 8266, 8265),
    ("MAX_BODY_BYTES", "1048576", 1048576, 32 * 1024 * 1024),
    ("MODEL_NAME", "other-model", "other-model", "all-MiniLM-L6-v2"),
    ("MODEL_DIR", "/srv/model", Path("/srv/model"), None),
    ("MODEL_PRECISION", "fp32", "fp32", "auto"),
    ("QUERY_CACHE_SIZE", "0", 0, 2048),
    ("DEDUP_THRESHOLD", "0.95", 0.95, 0.90),
    ("EXACT_BELOW", "10", 10, 20_000),
    ("COMPACT_FROM", "50", 50, 1000),
    ("CACHE_AFTER", "60", 60, 2000),
    ("INDEX_MEMORY_MB", "512", 512, None),
    ("MAX_BACKUPS", "3", 3, 10),
    ("MAX_QUEUED_TEXTS", "5", 5, 4096),
    ("MAX_QUEUED_QUERIES", "6", 6, 256),
    ("MAX_QUEUED_WRITES", "7", 7, 1024),
    ("IMPORT_CHUNKS", "16", 16, 3),
    ("REQUEST_TIMEOUT_S", "1.5", 1.5, 30.0),
    ("BUILD_TIMEOUT_S", "60", 60.0, 3600.0),
    ("START_TIMEOUT_S", "20", 20.0, 300.0),
    ("STOP_TIMEOUT_S", "5", 5.0, 10.0),
    ("LOG_LEVEL", "debug", "debug", "info"),
    ("LOG_FORMAT", "json", "json", "auto"),
    ("LOG_PIPE", "/srv/pipe", Path("/srv/pipe"), None),
    ("CLOUD_SYNC_ENABLED", "false", False, False),
    ("CLOUD_SYNC_BUCKET", "bucket", "bucket", ""),
    ("CLOUD_SYNC_PREFIX", "mine/", "mine/", "faiss-memory/"),
    ("CLOUD_SYNC_REGION", "eu-central-1", "eu-central-1", "us-east-1"),
    ("CLOUD_SYNC_ENDPOINT", "http://localhost:9000", "http://localhost:9000", ""),
    ("CLOUD_SYNC_ACCESS_KEY", "id", SecretStr("id"), SecretStr("")),
    ("CLOUD_SYNC_SECRET_KEY", SECRET, SecretStr(SECRET), SecretStr("")),
    ("CLOUD_SYNC_SECRET_KEY_FILE", "/srv/secret", Path("/srv/secret"), None),
    ("CLOUD_SYNC_PASSPHRASE", SECRET, SecretStr(SECRET), SecretStr("")),
    ("CLOUD_SYNC_PASSPHRASE_FILE", "/srv/phrase", Path("/srv/phrase"), None),
    ("CLOUD_SYNC_ALLOW_EMPTY_START", "true", True, False),
    ("CLOUD_SYNC_KEEP", "5", 5, 20),
    ("CLOUD_SYNC_KEEP_DAYS", "0", 0, 30),
    ("CLOUD_SYNC_INTERVAL_S", "0", 0.0, 10.0),
    ("CLOUD_SYNC_TIMEOUT_S", "3", 3.0, 20.0),
]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def _logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers, root.level)
    yield
    root.handlers, level = before
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize(("variable", "raw", "value", "default"), DOCUMENTED)
def test_a_variable_sets_its_field_and_without_it_the_default_holds(
    variable: str, raw: str, value: object, default: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = variable.lower()
    assert getattr(load_settings(), field) == default
    monkeypatch.setenv(variable, "")
    assert getattr(load_settings(), field) == default
    monkeypatch.setenv(variable, raw)
    assert getattr(load_settings(), field) == value


def test_every_setting_is_in_the_table_above() -> None:
    assert {variable.lower() for variable, *_ in DOCUMENTED} == set(Settings.model_fields)


@pytest.mark.parametrize(
    ("variable", "raw"),
    [
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "http"),
        ("DEDUP_THRESHOLD", "1.01"),
        ("DEDUP_THRESHOLD", "nan"),
        ("MAX_BACKUPS", "-1"),
        ("MAX_BODY_BYTES", "-1"),
        ("MODEL_PRECISION", "int4"),
        ("REQUEST_TIMEOUT_S", "0"),
        ("LOG_LEVEL", "loud"),
        ("ALLOW_NO_AUTH", "perhaps"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_variable(
    variable: str, raw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, raw)
    with pytest.raises(SettingsError) as refusal:
        load_settings()
    assert str(refusal.value).startswith(f"{variable}={raw}: ")


def test_every_bad_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "x")
    monkeypatch.setenv("MAX_BACKUPS", "y")
    with pytest.raises(SettingsError) as refusal:
        load_settings()
    assert [line.split("=")[0] for line in str(refusal.value).splitlines()] == [
        "PORT",
        "MAX_BACKUPS",
    ]


@pytest.mark.parametrize("key", ["schlüssel", "key\n", " spaced-out", "a\tb", "\x7f", "k" * 1025])
def test_a_key_that_no_header_can_carry_is_refused_without_telling_it(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", key)
    with pytest.raises(SettingsError, match=r"^API_KEY: a key ") as refusal:
        load_settings()
    assert key not in str(refusal.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "memory.lan"])
def test_a_host_beyond_loopback_needs_a_key_or_consent(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST", host)
    with pytest.raises(SettingsError, match="API_KEY"):
        load_settings()
    monkeypatch.setenv("ALLOW_NO_AUTH", "true")
    assert load_settings().host == host
    monkeypatch.delenv("ALLOW_NO_AUTH")
    monkeypatch.setenv("API_KEY", SECRET)
    assert load_settings().host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_no_key(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", host)
    assert not load_settings().has_api_key


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, "CLOUD_SYNC_BUCKET"),
        ({"CLOUD_SYNC_BUCKET": "b", "CLOUD_SYNC_ACCESS_KEY": "id"}, "CLOUD_SYNC_SECRET_KEY"),
        ({"CLOUD_SYNC_BUCKET": "b", "CLOUD_SYNC_SECRET_KEY": SECRET}, "CLOUD_SYNC_ACCESS_KEY"),
    ],
)
def test_incomplete_cloud_sync_is_refused_without_telling_the_secret(
    given: dict[str, str], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"CLOUD_SYNC_ENABLED": "true", **given}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=complaint) as refusal:
        load_settings()
    assert SECRET not in str(refusal.value)


def test_a_secret_key_file_completes_cloud_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "CLOUD_SYNC_ENABLED": "true",
        "CLOUD_SYNC_BUCKET": "b",
        "CLOUD_SYNC_ACCESS_KEY": "id",
        "CLOUD_SYNC_SECRET_KEY_FILE": "/run/secrets/key",
    }.items():
        monkeypatch.setenv(name, value)
    assert load_settings().cloud_sync_enabled


def test_builder_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_BACKUPS", "3")
    assert load_settings(max_backups=4).max_backups == 4


def test_a_checkout_keeps_its_data_and_an_installation_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert load_settings().data_dir == Path("data").absolute()
    monkeypatch.setattr(places, "_ROOT", tmp_path)
    assert load_settings().data_dir == places.installed_data_dir()


def test_only_a_checkout_as_workspace_has_pages_of_its_own(tmp_path: Path) -> None:
    names = places.pages_not_to_build(places._ROOT)
    assert {"README.md", "CHANGELOG.md", "docs", "integrations"} <= names
    assert all((places._ROOT / name).exists() for name in names)
    assert places.pages_not_to_build(tmp_path) == frozenset()


@pytest.mark.parametrize("where", [{}, {"path": "/a" * 100}])
def test_a_request_is_one_line_of_a_terminal(where: dict[str, str]) -> None:
    line = request_line(
        {
            "event": "request",
            "timestamp": "2026-12-01T06:20:47.350083Z",
            "method": "DELETE",
            "route": "/memory/{memory_id}",
            "status": 200,
            "total_ms": 123456.789,
            "embed_ms": 2.345,
            "search_ms": 1.987,
            "n_hits": 5,
            "request_id": "23b79766-2d67-4823-af57-973c25a9e20f",
            **where,
        }
    )
    assert line is not None
    assert line.startswith("06:20:47 DELETE /")
    assert " 200 123456.8 ms, embed 2.3, search 2.0, 5 hits 23b79766" in line
    assert len(line) <= 80
    assert request_line({"event": "another"}) is None


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load_settings().port = 1  # type: ignore[misc]


@pytest.mark.usefixtures("_logging_restored")
def test_settings_of_somebody_s_own_are_logged_with_secrets_masked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("API_KEY", SECRET)
    monkeypatch.setenv("CLOUD_SYNC_SECRET_KEY", SECRET)
    settings = load_settings()
    configure_logging(settings, component="launcher")
    log_settings(settings)
    line = capsys.readouterr().err
    logged = json.loads(line)
    assert (logged["event"], logged["component"]) == ("settings", "launcher")
    changed = {"api_key", "cloud_sync_secret_key", "data_dir", "workspace_dir"}
    assert set(Settings.model_fields) & set(logged) == changed
    assert SECRET not in line
    assert set(logged["api_key"]) == {"*"}


@pytest.mark.usefixtures("_logging_restored")
def test_a_logged_traceback_shows_no_local_variables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(load_settings(), component="index")
    memory_text = SECRET
    try:
        _ = [][len(memory_text)]
    except IndexError:
        logging.getLogger("engine.anything").exception("failed")
    line = capsys.readouterr().err
    assert json.loads(line)["event"] == "failed"
    assert SECRET not in line


@pytest.mark.usefixtures("_logging_restored")
def test_lines_reach_the_launchers_pipe_and_are_dropped_when_nobody_reads(
    tmp_path: Path,
) -> None:
    pipe = tmp_path / "log"
    os.mkfifo(pipe)
    handler = PipeHandler(pipe)
    logger = logging.getLogger("test_of_the_pipe")
    logger.addHandler(handler)
    logger.propagate = False
    logger.warning("nobody reads this")
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    logger.warning("one")
    for _ in range(5000):
        logger.warning("x" * 100)  # far more than a pipe holds
    received = os.read(reader, 1_000_000)
    assert received.startswith(b"one\nxxx")
    assert b"nobody" not in received
    handler.close_pipe()
    os.close(reader)


def test_logs_are_json_unless_stderr_is_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert resolve_format("auto", io.StringIO()) == "json"
    assert resolve_format("auto", Terminal()) == "console"
    assert resolve_format("json", Terminal()) == "json"
