"""The service on a cluster: started with a configuration, its replicas watched."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.cluster import (
    DEPLOY,
    NODE_SCRIPT,
    START_PATIENCE_S,
    Cluster,
    Machine,
    Role,
    poll,
    running_cluster,
)
from tests.cluster.cluster_load import API_KEY, PATIENCE_S, doors, is_ready, say

SHIPPED = DEPLOY / "serve_cluster.yaml"

ONLY_WHEN_ASKED_FOR = [
    pytest.mark.service,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        not os.environ.get("CLUSTER_TESTS"),
        reason="takes some ten minutes; CLUSTER_TESTS=1 runs it",
    ),
]
"""Marks of the test files that start clusters."""


def changed_config(path: Path, changes: Mapping[str, str]) -> Path:
    """The shipped configuration with each of these texts, which it has once, replaced."""
    config = SHIPPED.read_text("utf-8")
    for shipped, here in changes.items():
        assert config.count(shipped) == 1, shipped
        config = config.replace(shipped, here)
    path.write_text(config, "utf-8")
    return path


@contextmanager
def ready_cluster(
    roles: Sequence[Role], *, config: Path = SHIPPED, env: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """A cluster on which every door is ready."""
    env = {"API_KEY": API_KEY, "SERVE_CONFIG": str(config), **(env or {})}
    with running_cluster(roles, env=env) as cluster:
        for machine in doors(cluster):
            waited_s = wait_until_ready(machine)
            say(f"start: {machine.role}'s door is ready after {waited_s:.0f} s")
        yield cluster


def wait_until_ready(machine: Machine) -> float:
    """Wait until memories can be searched and stored through this door; returns the seconds."""
    return poll(f"{machine.role} ready", lambda: is_ready(machine), patience_s=START_PATIENCE_S)


def deploy(head: Machine, config: Path) -> None:
    """Apply a changed configuration, as docs/cluster.md says, and wait until it runs."""
    deploying = head.run_here("env", f"SERVE_CONFIG={config}", "sh", str(NODE_SCRIPT), "deploy")
    output, _ = deploying.communicate(timeout=START_PATIENCE_S)
    assert deploying.returncode == 0, output.decode()


class ReplicaWatch:
    """On which machines Serve says that each deployment's replicas run, as it is now."""

    def __init__(self, cluster: Cluster) -> None:
        [head, *_] = cluster.machines
        self._names = {machine.ip: machine.name for machine in cluster.machines}
        self._now: dict[str, dict[str, str]] = {}
        self._process = head.run_here(sys.executable, "-m", "tests.cluster.cluster_state")
        threading.Thread(target=self._follow, daemon=True).start()

    def machines_of(self, deployment: str) -> list[str]:
        """Names of the machines, one for each running replica."""
        return sorted(self._names[ip] for ip in self._now.get(deployment, {}).values())

    def replicas(self) -> set[str]:
        """Every running replica; one that was replaced has another name."""
        return {replica for running in self._now.values() for replica in running}

    def wait_for(self, deployment: str, machines: Sequence[Machine]) -> None:
        """Wait until these machines run a replica each, and no other does."""
        names = sorted(machine.name for machine in machines)
        waited_s = poll(
            f"{deployment} on {names}",
            lambda: self.machines_of(deployment) == names,
            patience_s=PATIENCE_S,
        )
        say(f"{deployment} on {len(names)} nodes after {waited_s:.0f} s")

    def wait_for_one(self, deployment: str) -> None:
        """Wait until one replica is left, wherever."""
        waited_s = poll(
            f"one {deployment}",
            lambda: len(self.machines_of(deployment)) == 1,
            patience_s=PATIENCE_S,
        )
        say(f"{deployment} on one node after {waited_s:.0f} s")

    def close(self) -> None:
        """End the process that looks."""
        self._process.kill()
        self._process.wait()

    def _follow(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.startswith(b"{"):
                continue  # what Ray has to say
            self._now = json.loads(line)
            shown = {name: self.machines_of(name) for name in self._now}
            say(f"replicas: {shown}")
