"""Prints which replicas Serve runs on which nodes, a JSON line whenever that changes.

Runs on a machine of the cluster: `{"Embedder": {"9f2kq1zs": "10.0.0.3", ...}, ...}`.
"""

from __future__ import annotations

import json
import os
import time

import ray
from ray.serve.context import _get_global_client

_POLL_S = 0.5


def main() -> None:
    """Look again and again."""
    address = f"{os.environ['HEAD_IP']}:6379"
    ray.init(address=address, log_to_driver=False, logging_level="CRITICAL")
    client = _get_global_client()
    before: dict[str, dict[str, str]] = {}
    while True:
        deployments = client.get_serve_details()["applications"]["default"]["deployments"]
        now = {
            name: {
                replica["replica_id"]: replica["node_ip"]
                for replica in deployment["replicas"]
                if replica["state"] == "RUNNING"
            }
            for name, deployment in deployments.items()
        }
        if now != before:
            print(json.dumps(now), flush=True)
        before = now
        time.sleep(_POLL_S)


if __name__ == "__main__":
    main()
