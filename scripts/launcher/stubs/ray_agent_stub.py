"""Stands in for Ray's two agents, which raylet insists on starting.

They serve the dashboard, metrics and runtime environments; the service uses none of them, and
without them it takes 120 MB less and opens fewer ports. Run by path with `python -I -S`:

    ray_agent_stub.py <session_dir> <node_id> <port_name>=<port> ...

It publishes the ports as Ray's agents do (one file each; -1 means not served) and stays until
raylet is gone. Raylet adds options of its own, which are ignored.
"""

import os
import sys
import time


def publish(session_dir: str, node_id: str, name: str, port: str) -> None:
    """Write a port file whole or not at all."""
    path = os.path.join(session_dir, f"{name}_{node_id}")  # noqa: PTH118 (pathlib is 2 MB)
    with open(path + ".tmp", "w") as file:  # noqa: PTH123
        file.write(port)
    os.rename(path + ".tmp", path)  # noqa: PTH104


def main(argv: list[str]) -> None:
    """Publish, then wait for the parent to end."""
    raylet = os.getppid()
    session_dir, node_id, *ports = argv
    for pair in ports:
        if not pair.startswith("-"):
            publish(session_dir, node_id, *pair.split("="))
    while os.getppid() == raylet:
        time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1:])
