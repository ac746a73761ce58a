"""What `deploy/` has for Prometheus and Grafana asks only for what the service exports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from tests import ROOT
from tests.support.service import Service

DEPLOY = ROOT / "deploy"
BOARD: dict[str, Any] = json.loads((DEPLOY / "grafana.json").read_bytes())
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((DEPLOY / "alerts.yaml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
SCRAPE: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text("utf-8"))


def expressions() -> Iterator[str]:
    for panel in BOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (variable.get("definition", "") for variable in BOARD["templating"]["list"])
    yield from (rule["expr"] for rule in RULES)


@pytest.mark.service
def test_every_metric_of_the_board_and_the_alerts_is_exported(shared_service: Service) -> None:
    with httpx.Client(base_url=shared_service.base_url, timeout=60, trust_env=False) as http:
        assert http.post("/search", json={"query": "anything"}).is_success
        families = list(text_string_to_metric_families(http.get("/metrics").text))
    exported = {sample.name for family in families for sample in family.samples}
    labels = {name for family in families for sample in family.samples for name in sample.labels}

    asked = {name for text in expressions() for name in re.findall(r"faiss_memory_\w+", text)}
    assert len(asked) > 20
    assert asked <= exported
    matched = {name for text in expressions() for name in re.findall(r'(\w+)=?[=!]~?"', text)}
    assert matched <= labels | {"instance", "job"}


@pytest.mark.service
def test_what_only_grows_is_a_counter_and_each_part_tells_its_memory_and_cpu(
    shared_service: Service,
) -> None:
    with httpx.Client(base_url=shared_service.base_url, timeout=60, trust_env=False) as http:
        families = list(text_string_to_metric_families(http.get("/metrics").text))
    for family in families:
        for sample in family.samples:
            is_total = sample.name.endswith("_total")
            assert is_total == (family.type == "counter") or sample.name.endswith("_created")
    parts = {"ingress", "index", "embedder"}
    for name in ("process_cpu_seconds", "process_resident_memory_bytes"):
        [of_parts] = [f for f in families if f.name == f"faiss_memory_{name}"]
        assert {sample.labels["part"] for sample in of_parts.samples} == parts
        assert all(sample.value > 0 for sample in of_parts.samples)


def test_the_boards_panels_are_apart_and_ask_the_source_that_is_chosen() -> None:
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    for one, other in combinations((panel["gridPos"] for panel in BOARD["panels"]), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below
    for panel in BOARD["panels"]:
        for asking in (panel, *panel["targets"]):
            assert asking["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_every_alert_says_what_is_wrong_and_where() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names) > 5
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert "{{ $labels.instance }}" in rule["annotations"]["summary"]
        assert rule["annotations"]["description"]


def test_the_scrape_sends_the_key_and_loads_the_alerts() -> None:
    [job] = SCRAPE["scrape_configs"]
    assert job["authorization"]["type"] == "Bearer"
    assert SCRAPE["rule_files"] == ["alerts.yaml"]
    assert f'job="{job["job_name"]}"' in RULES[0]["expr"]


def test_promtool_accepts_the_rules() -> None:
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("there is no promtool here")
    subprocess.run([promtool, "check", "rules", DEPLOY / "alerts.yaml"], check=True)
